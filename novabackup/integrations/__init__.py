"""What stands around backups in operation: services to stop, hooks to run, answers to wait for, metrics to give.

Each module is imported by its own name, such as ``novabackup.integrations.service``; nothing here is needed to take or
restore a snapshot.
"""
