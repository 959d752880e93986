"""Keep another repository in step, with a retention policy of its own: `plan` and `execute`."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
from fsspec.callbacks import Callback

from novabackup import retention
from novabackup.errors import NotFoundError
from novabackup.objects.objects import Objects
from novabackup.operations import copy, forget
from novabackup.operations.copy import CopyPlan, Paces
from novabackup.retention import Candidate, ForgetPlan, Policy, State


@attrs.frozen(kw_only=True)
class MirrorPlan:
    """What `mirror` would do.

    Attributes:
        copy: What is copied to the other repository.
        forget: Which of the snapshots there are kept or forgotten, and why.
    """

    copy: CopyPlan
    forget: ForgetPlan

    def __str__(self) -> str:
        lines = [f"copy {name}" for name in self.copy.copy] or ["nothing to copy"]
        return "\n".join([*lines, "", str(self.forget)])

    def _repr_html_(self) -> str:
        return self.copy._repr_html_() + self.forget._repr_html_()


def plan(source: Objects, target: Objects, policy: Policy) -> MirrorPlan:
    """Apply a policy to the snapshots of both together, as if all were in the target, which need not exist yet.

    Damaged snapshots of the source are left out.
    """
    there = {candidate.id: candidate for candidate in _candidates(target)}
    here = {one.id: one for one in forget.candidates(source) if one.state is not State.DAMAGED}
    judged = retention.apply(policy, {**here, **there}.values(), now=datetime.now(UTC))
    of_target = [verdict for verdict in judged.verdicts if verdict.id in there]
    return MirrorPlan(
        copy=copy.plan(source, [name for name in judged.kept if name in here], target),
        forget=attrs.evolve(judged, verdicts=tuple(of_target)),
    )


def execute(source: Objects, todo: MirrorPlan, target: Objects, paces: Paces, callback: Callback) -> None:
    """Copy, then forget; nothing is forgotten if something could not be copied."""
    copy.execute(source, todo.copy, target, paces, callback)
    if todo.forget.forgotten:
        forget.execute(target, todo.forget)


def _candidates(target: Objects) -> list[Candidate]:
    try:
        target.access.require()
    except NotFoundError:
        return []
    return forget.candidates(target)
