"""The errors of what stands around a backup: one class for each thing that a caller can do."""

from __future__ import annotations

from novabackup.errors import NovaBackupError

__all__ = ["HookError", "MetricsError", "RecoveryError", "ServiceError", "UnhealthyError"]


class ServiceError(NovaBackupError):
    """A service could not be stopped, started or asked whether it runs: look at it by hand."""


class UnhealthyError(NovaBackupError):
    """A service runs but does not answer as it should: look at its log and its indexes, or restore them."""


class HookError(NovaBackupError):
    """A hook that has to run before the work failed, so the work was not begun: mend the hook."""


class RecoveryError(NovaBackupError):
    """A step of a full recovery failed: remove the cause, then run the recovery again, which goes on there."""


class MetricsError(NovaBackupError):
    """Metrics could not be handed over: look at what should have taken them. No backup is affected."""
