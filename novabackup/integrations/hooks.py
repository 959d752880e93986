"""Runs hooks around work: before it, after it, on success and on failure."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import attrs

from novabackup._support import commands
from novabackup.errors import ConfigurationError
from novabackup.integrations._about import id_of, told
from novabackup.integrations.errors import HookError
from novabackup.repository.repository import Repository
from novabackup.repository.snapshot import Snapshot
from novabackup.store.store import IndexStore

__all__ = ["Event", "Hook", "Hooks", "Work"]

_LOG = logging.getLogger("novabackup")

_OURS = "NOVABACKUP_"


@attrs.frozen(kw_only=True)
class Event:
    """What a hook receives.

    Attributes:
        name: When it runs: ``before``, ``success``, ``failure`` or ``after``.
        work: What the work is, such as ``snapshot``; empty if the caller did not name it.
        store: URL of the store, without credentials; empty if there is none.
        repository: URL of the repository, without credentials; empty if there is none.
        snapshot: Id of the snapshot that the work took or restored; empty while there is none.
        error: Why the work failed, without secrets; empty if it did not.
    """

    name: Literal["before", "success", "failure", "after"]
    work: str = ""
    store: str = ""
    repository: str = ""
    snapshot: str = ""
    error: str = ""


Hook = Sequence[str] | Callable[[Event], object]
"""A command as a list of its arguments, or a function that gets the event."""


@attrs.define
class Work:
    """One piece of work between hooks.

    Attributes:
        snapshot: Set by the block to the snapshot that it took or restored, for the hooks that follow.
        failures: Errors of the hooks after the block.
    """

    snapshot: Snapshot | str = ""
    failures: list[str] = attrs.field(factory=list)


def _hooks(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    if isinstance(hooks, str) or callable(hooks):
        raise ConfigurationError("expected a list of hooks, found a single one. Put it into a list")
    return tuple(hook if callable(hook) else commands.arguments(hook) for hook in hooks)


@attrs.frozen(kw_only=True)
class Hooks:
    """The hooks around a piece of work.

    Commands find ``NOVABACKUP_EVENT``, ``NOVABACKUP_WORK``, ``NOVABACKUP_STORE``, ``NOVABACKUP_REPOSITORY``,
    ``NOVABACKUP_SNAPSHOT`` and ``NOVABACKUP_ERROR`` in their environment, and no other variable that begins with
    ``NOVABACKUP_``, so that no repository key reaches them.

    Attributes:
        before: Run first. If one fails, the work is not started.
        success: Run when the work succeeded.
        failure: Run when it failed, or was not started because a hook before it failed.
        after: Run last, in any case.
        timeout: Timeout of each command, in seconds.
    """

    before: Sequence[Hook] = attrs.field(default=(), converter=_hooks)
    success: Sequence[Hook] = attrs.field(default=(), converter=_hooks)
    failure: Sequence[Hook] = attrs.field(default=(), converter=_hooks)
    after: Sequence[Hook] = attrs.field(default=(), converter=_hooks)
    timeout: float = attrs.field(default=300.0, validator=attrs.validators.gt(0.0))

    @contextlib.contextmanager
    def around(
        self, store: IndexStore | str = "", repository: Repository | str = "", *, work: str = ""
    ) -> Iterator[Work]:
        """Run the hooks around a block.

        A hook that fails after the block does not turn successful work into a failure: it is logged as an error, kept
        in `Work.failures`, and the remaining hooks still run. What must succeed for a backup to count, such as a copy
        to another place, belongs in the block.

        Args:
            store: Passed to the hooks.
            repository: Passed to the hooks.
            work: Passed to the hooks: what the work is.

        Yields:
            The work; set its ``snapshot``.

        Raises:
            HookError: A hook before the block failed; the block has not run.
        """
        current = Work()
        event = Event(
            name="before",
            work=work,
            store=store if isinstance(store, str) else store.url,
            repository=repository if isinstance(repository, str) else repository.url,
        )
        try:
            for hook in self.before:
                self._run(hook, event)
            yield current
        except BaseException as failure:
            failed = attrs.evolve(event, name="failure", error=told(failure))
            self._behind(self.failure, failed, current)
            self._behind(self.after, attrs.evolve(failed, name="after"), current)
            for text in current.failures:
                failure.add_note(f"Besides, {text}")
            raise
        self._behind(self.success, attrs.evolve(event, name="success"), current)
        self._behind(self.after, attrs.evolve(event, name="after"), current)

    def _behind(self, hooks: Sequence[Hook], event: Event, work: Work) -> None:
        event = attrs.evolve(event, snapshot=id_of(work.snapshot))
        for hook in hooks:
            try:
                self._run(hook, event)
            except Exception as failure:  # noqa: BLE001 - reported; the work is done, and its result stands
                text = f"a hook failed: {told(failure)}"
                _LOG.error("%s", text)
                work.failures.append(text)

    def _run(self, hook: Hook, event: Event) -> None:
        if callable(hook):
            hook(event)
            return
        done = commands.run(hook, timeout=self.timeout, environment=_environment(event))
        if not done.good:
            raise HookError(f"{hook[0]}: expected this hook ({event.name}) to succeed, found {done}\nFix the command")


def _environment(event: Event) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    ours = {"event": event.name, **attrs.asdict(event, filter=attrs.filters.exclude("name"))}
    return inherited | {_OURS + name.upper(): value for name, value in ours.items()}
