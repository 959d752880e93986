"""Plain archives, as `tar` and `sha256sum` know them: snapshots written as such, and existing ones taken in."""

from novabackup.archives._tar import Bounds
from novabackup.archives.exporting import Exported
from novabackup.archives.importing import Archive, PreIngest
from novabackup.archives.planning import ImportPlan, Intake

__all__ = ["Archive", "Bounds", "Exported", "ImportPlan", "Intake", "PreIngest"]
