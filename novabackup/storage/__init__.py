"""Bytes under keys, atomically and durably; one module per kind of backend."""
