"""The rules and the dashboard that come with the package are valid, and name only metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from novabackup.integrations.metrics import HELP
from novabackup.integrations.prometheus import alert_rules, dashboard


@pytest.fixture
def promtool():
    """Run promtool; give what it said."""
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool, which Debian's package prometheus has")

    def run(*arguments: object) -> str:
        done = subprocess.run(
            ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def named(text: str) -> set[str]:
    return set(re.findall(r"\bnova_backup_\w+", text))


def expressions() -> list[str]:
    """Every expression of the dashboard, with its variables filled in as Grafana does."""
    shown = json.loads(dashboard())
    found = [target["expr"] for panel in shown["panels"] for target in panel["targets"]]
    found += [note["expr"] for note in shown["annotations"]["list"]]
    return [expression.replace("$store", ".*").replace("$repository", "(a|b)") for expression in found]


def test_the_rules_are_valid_and_do_what_they_say(promtool, tmp_path):
    (tmp_path / "alerts.yml").write_text(alert_rules())
    assert f"{alert_rules().count('- alert:')} rules found" in promtool(
        "check", "rules", "--lint-fatal", tmp_path / "alerts.yml"
    )
    promtool("test", "rules", Path(__file__).with_name("alerts_test.yml"))


def test_every_alert_is_tested_and_says_what_to_do():
    alerts = re.findall(r"- alert: (\w+)", alert_rules())
    tested = Path(__file__).with_name("alerts_test.yml").read_text()
    assert len(set(alerts)) == len(alerts)
    assert [alert for alert in alerts if alert not in tested] == []
    assert len(alerts) == alert_rules().count("description:") == alert_rules().count("summary:")


def test_rules_and_dashboard_name_only_metrics_that_there_are():
    assert named(alert_rules()) <= HELP.keys()
    assert named(dashboard()) <= HELP.keys()
    assert len(named(dashboard())) > 12


def test_the_document_names_every_metric():
    document = Path(__file__).parents[2] / "docs" / "monitoring.md"
    assert named(document.read_text()) == HELP.keys()


def test_the_expressions_of_the_dashboard_are_valid(promtool, tmp_path):
    # JSON strings are YAML strings.
    rules = [f"  - record: dashboard:{number}\n    expr: {json.dumps(e)}\n" for number, e in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text("groups:\n- name: dashboard\n  rules:\n" + "".join(rules))
    assert f"{len(rules)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_the_dashboard_is_one_that_grafana_shows():
    shown = json.loads(dashboard())
    assert shown["title"] == shown["uid"] == "novabackup"
    variables = {variable["name"] for variable in shown["templating"]["list"]}
    assert variables == {"datasource", "store", "repository"}
    assert set(re.findall(r"\$\{?(\w+)", dashboard())) - {"__all"} == variables
    panels = shown["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["type"] in {"stat", "timeseries", "state-timeline"}
        assert panel["title"]
        assert panel["description"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_what_is_measured_is_what_promtool_takes(promtool):
    from novabackup.integrations.metrics import Metric, Sample, exposition

    metrics = [Metric(name=name, samples=(Sample(labels={"store": 'a"\\\n'}, value=1.5),)) for name in HELP]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition(metrics), text=True, capture_output=True, check=False
    )
    # Its only objection is to names that others have fixed.
    assert "error" not in done.stderr
    assert done.returncode in (0, 3), done.stderr
