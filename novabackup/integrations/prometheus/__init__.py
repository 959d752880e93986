"""The alert rules and the dashboard that come with novabackup: files for Prometheus and Grafana, as text."""

from __future__ import annotations

from importlib import resources

__all__ = ["alert_rules", "dashboard"]


def alert_rules() -> str:
    """Return the rules for Prometheus, as YAML: write them to a file that ``rule_files`` of its configuration names."""
    return _text("alerts.yml")


def dashboard() -> str:
    """Return the dashboard for Grafana, as JSON: import it there, and choose a data source."""
    return _text("grafana-dashboard.json")


def _text(name: str) -> str:
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
