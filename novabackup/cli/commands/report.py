"""The command report."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.config.sections import state_folder
from novabackup.cli.context import BY_DEFAULT, Context, Options, Span
from novabackup.cli.exits import Exit
from novabackup.cli.output import Result
from novabackup.errors import ConfigurationError
from novabackup.format.records import Attributes
from novabackup.integrations.report import Light, Limits, facts, judge, page, summary, survey
from novabackup.integrations.runs import Run, RunLog
from novabackup.retention import DEFAULT
from novabackup.storage import open_storage

_READABLE_BY_ALL = 0o644
_SUFFIXES = (".html", ".htm")


def report(
    *,
    output: Annotated[Path | None, Parameter(alias="-o", metavar="FILE")] = None,
    policy: Annotated[str | None, Parameter(metavar="RULES")] = None,
    runs: Annotated[str | None, Parameter(metavar="FOLDER")] = None,
    max_age: Span | None = None,
    options: Options = BY_DEFAULT,
) -> Result:
    """Report whether all is well and what has to be done; also as an HTML file.

    Checks the repository, its copies in the configuration, and the live files. Ends with 1 if something has to be done
    now.

    Args:
        output: Write the report to this .html file, which needs no network and no scripts.
        policy: Show what these rules would keep, such as "daily 30, weekly 12"; by default [retention] of the
            configuration.
        runs: The folder where runs are recorded, which has the last verifications; by default that of [metrics] in the
            configuration.
        max_age: How old the newest healthy snapshot may be, such as 26h; by default 2d.
    """
    if output is not None and (output.suffix not in _SUFFIXES or output.is_dir()):
        # A typing error must not replace an index by a report.
        raise ConfigurationError(f"--output: expected the name of a file that ends with .html, found {output}")
    with options.open() as context:
        seen = survey(
            context.repository,
            store=context.known_store,
            policy=policy or context.config.retention or DEFAULT,
            runs=_recorded_runs(context, runs),
            copies={name: context.copy(name) for name in context.config.copies},
            limits=Limits() if max_age is None else Limits(backup=timedelta(seconds=max_age)),
        )
        light, sentence = summary(seen)
        findings = judge(seen)
        if output is not None:
            _write(output, page(seen))
        return Result(
            fields={
                "state": light.name.lower(),
                "summary": sentence,
                "findings": [
                    {"state": one.light.name.lower(), "what": one.what, "advice": one.advice} for one in findings
                ],
                "report": str(output) if output is not None else None,
                **facts(seen),
            },
            shown=[
                f"{light.value.capitalize()}: {sentence}",
                *(f"  - {one.what} {one.advice}" for one in findings if len(findings) > 1),
            ],
            done=[f"The report is in {output}"] if output is not None else [],
            exit=Exit.WRONG if light is Light.NOW else Exit.OK,
        )


def _recorded_runs(context: Context, folder: str | None) -> tuple[Run, ...] | None:
    """Return the recorded runs; None if they are not recorded."""
    metrics = context.config.metrics
    if folder is None and metrics is not None:
        folder = metrics.runs or str(state_folder() / "runs")
    return RunLog(folder).runs() if folder is not None else None


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, so that no reader ever sees half of it."""
    attributes = Attributes(mode=_READABLE_BY_ALL, uid=os.geteuid(), gid=os.getegid(), mtime_ns=time.time_ns())
    open_storage(path.absolute().parent).write(path.name, [text.encode()], attributes)
