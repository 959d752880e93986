"""The command that tells monitoring how backups are: metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from novabackup.cli.around import monitor_of
from novabackup.cli.output import Answer
from novabackup.cli.work import BY_DEFAULT, Options
from novabackup.errors import ConfigurationError
from novabackup.integrations.metrics import Pushgateway, Sink, Textfile, exposition, measure

__all__ = ["metrics"]


def metrics(
    *,
    textfile: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    push: Annotated[str | None, Parameter(metavar="URL")] = None,
    print_: Annotated[bool, Parameter(name="--print")] = False,
    options: Options = BY_DEFAULT,
) -> Answer:
    """Measure the repository for Prometheus: print the metrics, or hand them over.

    They go where --textfile and --push say, or else where [metrics] in the configuration says; --print only prints
    them. A repository that cannot be read is a metric, too, and no error.

    Args:
        textfile: Write them to this file, for the textfile collector of node_exporter; its name ends with .prom.
        push: Push them to the Pushgateway at this URL.
        print_: Print them, and hand nothing over.
    """
    if print_ and (textfile is not None or push is not None):
        raise ConfigurationError("expected --print or where to hand the metrics over, found both. Use one of them")
    with options.open() as work:
        monitor = monitor_of(work)
        sinks: list[Sink] = []
        if textfile is not None:
            sinks.append(Textfile(textfile))
        if push is not None:
            sinks.append(Pushgateway(push))
        if monitor is not None and not sinks and not print_:
            sinks.extend(monitor.sinks)
        if monitor is not None and not options.store:
            found = monitor.measure()
        else:
            runs = monitor.log.runs() if monitor is not None else ()
            found = measure(work.repository, runs, store=work.store if options.store else None)
        for sink in sinks:
            sink(found)
        samples = [
            {"name": metric.name, "labels": dict(sample.labels), "value": sample.value}
            for metric in found
            for sample in metric.samples
        ]
        return Answer(
            fields={"repository": work.repository.url, "metrics": samples},
            shown=[] if sinks else exposition(found).splitlines(),
            done=[f"{len(found)} metrics are handed over"] if sinks else [],
        )
