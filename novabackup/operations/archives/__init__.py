"""Plain archives, as `tar` and `sha256sum` know them: snapshots written as such, and existing ones taken in."""

from novabackup.operations.archives.export import Exported
from novabackup.operations.archives.import_ import Archive, PreIngest
from novabackup.operations.archives.plan import ImportPlan, Intake
from novabackup.operations.archives.tar import Bounds

__all__ = ["Archive", "Bounds", "Exported", "ImportPlan", "Intake", "PreIngest"]
