"""The command probe."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import msgspec

from novabackup._support.text import count
from novabackup.cli.context import BY_DEFAULT, Context, Options, Span
from novabackup.cli.exits import Exit
from novabackup.cli.lifecycle import probes_of
from novabackup.cli.output import Result, counted, problem_lines, table
from novabackup.integrations.errors import ServiceError, UnhealthyError

_LONGEST_SHOWN = 100
_PATIENCE = 5.0
"""Seconds to keep asking a service; --timeout is for one that has just been started."""
_ONE_POLL = 1.0


def probe(*, timeout: Span | None = None, options: Options = BY_DEFAULT) -> Result:
    """Check the live files and the service, as after a recovery.

    Opens the live files of the store and compares their contents. The other checks are those of [service], [health] and
    [query] in the configuration. Ends with 1 if the files are wrong, and with 7 if the service is.

    Args:
        timeout: How long to keep asking a service that is not healthy, such as 5m; by default five seconds.
    """
    with options.open() as context:
        with context.progress("Checking", counted("files")) as bar:
            problems = context.live_problems(bar)
        wrong = f"{count(len(problems), 'problem')}, listed above" if problems else ""
        rows = [("wrong" if wrong else "good", context.store.url, wrong or "no problems")]
        asked = []
        for name, ask in _probes(context, timeout):
            response, error = None, None
            try:
                response = ask()
            except (ServiceError, UnhealthyError) as failure:
                error = str(failure)
            asked.append({"probe": name, "said": response, "error": error})
            rows.append(("wrong" if error else "good", name, error or _shown(response)))
        failed = any(one["error"] for one in asked)
        return Result(
            fields={"store": context.store.url, "store_problems": problems, "probes": asked},
            shown=[
                *([f"Problems in {context.store.url}:", *problem_lines(problems)] if problems else []),
                table("!State", "What", "Found", rows=rows),
            ],
            exit=Exit.WRONG if problems else Exit.AROUND if failed else Exit.OK,
        )


def _probes(context: Context, timeout: float | None) -> list[tuple[str, Callable[[], object]]]:
    """Return what to ask, by name: whether the service runs, then whether it works."""
    found: list[tuple[str, Callable[[], object]]] = []
    if context.config.service is not None:
        service = context.config.service.made()

        def runs() -> str:
            if not service.running():
                raise ServiceError("it does not run")
            return "it runs"

        found.append((service.name, runs))
    if context.config.health is not None:
        patience = _PATIENCE if timeout is None else max(timeout, _ONE_POLL)
        health = msgspec.structs.replace(context.config.health, timeout=patience)
        context = attrs.evolve(context, config=msgspec.structs.replace(context.config, health=health))
    return [*found, *((str(probe), probe) for probe in probes_of(context))]


def _shown(response: object) -> str:
    """Format a response for people in one line: the answer alone, where it can be recognized."""
    answer = response.get("answer", response) if isinstance(response, dict) else response
    pairs = answer.items() if isinstance(answer, dict) else ()
    text = " ".join((", ".join(f"{key} {value}" for key, value in pairs) or str(answer)).split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
