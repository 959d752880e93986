"""Which snapshots a policy keeps, and why; nothing here does any I/O.

`policy` says what to keep, `judging` decides what becomes of each snapshot, `plan` shows it.
"""

from novabackup.retention.judging import SLACK, Candidate, apply, still_forgotten
from novabackup.retention.plan import ForgetPlan, State, Verdict
from novabackup.retention.policy import COLD, DEFAULT, LOCAL, REMOTE, Policy, Reach, Rule

__all__ = [
    "COLD",
    "DEFAULT",
    "LOCAL",
    "REMOTE",
    "SLACK",
    "Candidate",
    "ForgetPlan",
    "Policy",
    "Reach",
    "Rule",
    "State",
    "Verdict",
    "apply",
    "still_forgotten",
]
