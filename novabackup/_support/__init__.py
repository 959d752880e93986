"""Small tools that know nothing of backups: text, paths, threads, temporary folders."""
