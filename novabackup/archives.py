"""Plain archives, as `tar` and `sha256sum` know them: snapshots written as such, and existing ones taken in."""

from novabackup.operations.archives import (
    Archive,
    Bounds,
    Exported,
    ImportPlan,
    Intake,
    PreIngest,
)

__all__ = ["Archive", "Bounds", "Exported", "ImportPlan", "Intake", "PreIngest"]
