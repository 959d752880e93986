"""Decides which snapshots a policy keeps, and why, without any I/O.

`policy` defines what to keep, `judging` decides on each snapshot, `plan` holds and shows the result.
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
