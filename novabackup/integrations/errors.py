"""The errors of integrations: one class for each reaction of a caller."""

from __future__ import annotations

from novabackup.errors import NovaBackupError

__all__ = ["HookError", "MetricsError", "RecoveryError", "ServiceError", "UnhealthyError"]


class ServiceError(NovaBackupError):
    """A service could not be stopped, started or queried: inspect it by hand."""


class UnhealthyError(NovaBackupError):
    """A service runs but does not answer correctly: check its log and its indexes, or restore them."""


class HookError(NovaBackupError):
    """A hook that runs before the work failed, so the work was not started: fix the hook."""


class RecoveryError(NovaBackupError):
    """A step of a full recovery failed: remove the cause, then run the recovery again, which resumes there."""


class MetricsError(NovaBackupError):
    """Metrics could not be delivered: check the receiver. No backup is affected."""
