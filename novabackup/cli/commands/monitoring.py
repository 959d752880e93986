"""The command that prints what Prometheus and Grafana are set up with: monitoring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from novabackup.cli.output import Answer
from novabackup.cli.work import BY_DEFAULT, Options
from novabackup.integrations import prometheus

__all__ = ["monitoring"]

_TEXTS: dict[str, Callable[[], str]] = {"rules": prometheus.alert_rules, "dashboard": prometheus.dashboard}


def monitoring(what: Literal["rules", "dashboard"], /, *, options: Options = BY_DEFAULT) -> Answer:
    """Print the alert rules for Prometheus, or the dashboard for Grafana.

    No configuration is read: both are about whatever the command metrics has handed over.

    Args:
        what: rules is a file for rule_files in prometheus.yml, dashboard one to import in Grafana.
    """
    text = _TEXTS[what]()
    return Answer(fields={what: text}, shown=text.splitlines())
