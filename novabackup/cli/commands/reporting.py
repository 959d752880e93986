"""The command that reports to a person how the backups are: report."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.config.sections import state_folder
from novabackup.cli.exits import Exit
from novabackup.cli.output import Answer
from novabackup.cli.work import BY_DEFAULT, Options, Span, Work
from novabackup.errors import ConfigurationError
from novabackup.format.records import Attributes
from novabackup.integrations.report import Light, Limits, facts, judge, page, summary, survey
from novabackup.integrations.runs import Run, RunLog
from novabackup.retention import DEFAULT
from novabackup.storage import open_storage

__all__ = ["report"]

_READABLE_BY_ALL = 0o644
_SUFFIXES = (".html", ".htm")


def report(
    *,
    output: Annotated[Path | None, Parameter(alias="-o", metavar="FILE")] = None,
    policy: Annotated[str | None, Parameter(metavar="RULES")] = None,
    runs: Annotated[str | None, Parameter(metavar="FOLDER")] = None,
    max_age: Span | None = None,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Report whether all is well, for somebody who must decide what to do; as an HTML file, too.

    Looks at the repository, its copies in the configuration, and the live files. Ends with 1 if something has to be
    done now.

    Args:
        output: Write the report to this .html file, which needs nothing else to be read: no network, no
            scripts.
        policy: Rules of which is shown what they would keep, such as "daily 30, weekly 12"; by default [retention] of
            the configuration.
        runs: The folder in which it is remembered how work went, since verifications are known from there; by default
            that of [metrics] in the configuration.
        max_age: How old the newest healthy snapshot may be, such as 26h; by default 2d.
    """
    if output is not None and (output.suffix not in _SUFFIXES or output.is_dir()):
        # A slip of the hand must not put it in the place of an index.
        raise ConfigurationError(f"--output: expected the name of a file that ends with .html, found {output}")
    with options.open() as work:
        seen = survey(
            work.repository,
            store=work.known_store,
            policy=policy or work.config.retention or DEFAULT,
            runs=_remembered(work, runs),
            copies={name: work.copy(name) for name in work.config.copies},
            limits=Limits() if max_age is None else Limits(backup=timedelta(seconds=max_age)),
        )
        light, sentence = summary(seen)
        findings = judge(seen)
        if output is not None:
            _write(output, page(seen))
        return Answer(
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


def _remembered(work: Work, folder: str | None) -> tuple[Run, ...] | None:
    """Read how work went; None if nobody remembers that."""
    said = work.config.metrics
    if folder is None and said is not None:
        folder = said.runs or str(state_folder() / "runs")
    return RunLog(folder).runs() if folder is not None else None


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, so that whoever reads it never sees half of it."""
    attributes = Attributes(mode=_READABLE_BY_ALL, uid=os.geteuid(), gid=os.getegid(), mtime_ns=time.time_ns())
    open_storage(path.absolute().parent).write(path.name, [text.encode()], attributes)
