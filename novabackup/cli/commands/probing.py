"""The command that looks whether all works, as after a recovery: probe."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from novabackup.cli.around import probes_of
from novabackup.cli.exits import Exit
from novabackup.cli.output import Answer, Column, Table, count, counted, problem_fields, problem_lines
from novabackup.cli.work import BY_DEFAULT, Options, Span, Work
from novabackup.integrations.errors import ServiceError, UnhealthyError

__all__ = ["probe"]

_LONGEST_SHOWN = 100
_PATIENCE = 5.0
"""Seconds that a service is asked for; whoever has just started it may say more."""
_ONE_POLL = 1.0


def probe(*, timeout: Span | None = None, options: Options = BY_DEFAULT) -> Answer:
    """Look whether all works, as after a recovery: the live files, the service, its health, and its answer.

    Opens the live files of the store and compares what is in them. What is asked beside that is said by [service],
    [health] and [query] in the configuration. Ends with 1 if the files are wrong, and with 7 if the service is.

    Args:
        timeout: How long to go on asking a service that is not healthy, such as 5m; by default five
            seconds.
    """
    with options.open() as work:
        with work.progress("Looking", counted("files")) as bar:
            problems = work.live_problems(bar)
        wrong = f"{count(len(problems), 'problem')}, listed above" if problems else ""
        rows = [("", work.store.url, wrong or "no problems")]
        asked = []
        for name, ask in _questions(work, timeout):
            said, error = _put(ask)
            asked.append({"probe": name, "said": said, "error": error})
            rows.append(("", name, error or _shown(said)))
        failed = [bool(problems), *(bool(one["error"]) for one in asked)]
        rows = [("wrong" if bad else "good", what, found) for bad, (_, what, found) in zip(failed, rows, strict=True)]
        table = Table(columns=[Column("State", whole=True), Column("What"), Column("Found")], rows=rows)
        return Answer(
            fields={
                "store": work.store.url,
                "store_problems": [problem_fields(problem) for problem in problems],
                "probes": asked,
            },
            shown=[*([f"Problems in {work.store.url}:", *problem_lines(problems)] if problems else []), table],
            exit=Exit.WRONG if problems else Exit.AROUND if any(failed) else Exit.OK,
        )


def _questions(work: Work, timeout: float | None) -> list[tuple[str, Callable[[], object]]]:
    """Name what is asked: whether the service runs, then whether it is well."""
    found: list[tuple[str, Callable[[], object]]] = []
    if work.config.service is not None:
        service = work.config.service.made()

        def runs() -> str:
            if not service.running():
                raise ServiceError("it does not run")
            return "it runs"

        found.append((service.name, runs))
    health = work.config.health
    if health is not None:
        asked = attrs.evolve(health, timeout=_PATIENCE if timeout is None else max(timeout, _ONE_POLL))
        work = attrs.evolve(work, config=attrs.evolve(work.config, health=asked))
    return [*found, *((str(probe), probe) for probe in probes_of(work))]


def _put(ask: Callable[[], object]) -> tuple[object, str | None]:
    """Ask; give what was said, and what is wrong."""
    try:
        return ask(), None
    except (ServiceError, UnhealthyError) as error:
        return None, str(error)


def _shown(said: object) -> str:
    """Show an answer to people: what was asked for, if that can be told, in one line."""
    answer = said.get("answer", said) if isinstance(said, dict) else said
    pairs = answer.items() if isinstance(answer, dict) else ()
    text = " ".join((", ".join(f"{key} {value}" for key, value in pairs) or str(answer)).split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
