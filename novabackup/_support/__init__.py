"""Helpers that know nothing of backups: commands, text, paths, threads, temporary folders."""
