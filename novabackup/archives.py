"""Plain archives, as `tar` and `sha256sum` know them: export of snapshots, and import of existing archives."""

from novabackup.operations.archives import (
    Archive,
    Bounds,
    Exported,
    ImportPlan,
    Intake,
    PreIngest,
)

__all__ = ["Archive", "Bounds", "Exported", "ImportPlan", "Intake", "PreIngest"]
