"""Plain archives, as `tar` and `sha256sum` know them: export of snapshots, and import of existing archives."""

from novabackup.operations.archives.export import Exported
from novabackup.operations.archives.import_ import Archive
from novabackup.operations.archives.plan import ImportPlan, Intake
from novabackup.operations.archives.pre_ingest import PreIngest
from novabackup.operations.archives.tar import Bounds

__all__ = ["Archive", "Bounds", "Exported", "ImportPlan", "Intake", "PreIngest"]
