"""What surrounds backups in production: services to stop, hooks to run, health checks, schedules, metrics, reports.

Each module is imported by its own name, such as ``novabackup.integrations.service``; nothing here is needed to take or
restore a snapshot.
"""
