"""The commands metrics and monitoring, for Prometheus and Grafana."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from novabackup.cli.context import BY_DEFAULT, Options
from novabackup.cli.lifecycle import monitor_of
from novabackup.cli.output import Result
from novabackup.errors import ConfigurationError
from novabackup.integrations import prometheus
from novabackup.integrations.metrics import Pushgateway, Sink, Textfile, exposition, measure

_FILES: dict[str, Callable[[], str]] = {"rules": prometheus.alert_rules, "dashboard": prometheus.dashboard}


def metrics(
    *,
    textfile: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    push: Annotated[str | None, Parameter(metavar="URL")] = None,
    print_: Annotated[bool, Parameter(name="--print")] = False,
    options: Options = BY_DEFAULT,
) -> Result:
    """Print the metrics of the repository for Prometheus, or hand them over.

    They go where --textfile and --push say, or else where [metrics] in the configuration says; --print only prints
    them. A repository that cannot be read is a metric, not an error.

    Args:
        textfile: Write them to this file, for the textfile collector of node_exporter; its name ends with .prom.
        push: Push them to the Pushgateway at this URL.
        print_: Print them, and hand nothing over.
    """
    if print_ and (textfile is not None or push is not None):
        raise ConfigurationError("expected --print or where to hand the metrics over, found both. Use one of them")
    with options.open() as context:
        monitor = monitor_of(context)
        sinks: list[Sink] = [] if textfile is None else [Textfile(textfile)]
        sinks += [] if push is None else [Pushgateway(push)]
        if monitor is not None and not sinks and not print_:
            sinks.extend(monitor.sinks)
        if monitor is not None and not options.store:
            found = monitor.measure()
        else:
            runs = monitor.log.runs() if monitor is not None else ()
            found = measure(context.repository, runs, store=context.store if options.store else None)
        for sink in sinks:
            sink(found)
        samples = [
            {"name": metric.name, "labels": dict(sample.labels), "value": sample.value}
            for metric in found
            for sample in metric.samples
        ]
        return Result(
            fields={"repository": context.repository.url, "metrics": samples},
            shown=[] if sinks else exposition(found).splitlines(),
            done=[f"{len(found)} metrics are handed over"] if sinks else [],
        )


def monitoring(what: Literal["rules", "dashboard"], /, *, options: Options = BY_DEFAULT) -> Result:
    """Print the alert rules for Prometheus or the dashboard for Grafana.

    No configuration is read: both work with all that the command metrics hands over.

    Args:
        what: rules is a file for rule_files in prometheus.yml, dashboard one to import in Grafana.
    """
    text = _FILES[what]()
    return Result(fields={what: text}, shown=text.splitlines())
