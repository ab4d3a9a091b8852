"""Dashboard and alert rules ask for what the code shows, and the documentation names it."""

import json
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from services.common.looked_up import Gauge
from stack.settings import ROOT

DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
OF_PROMETHEUS = {"le", "instance", "job"}


def modules() -> list[str]:
    paths = [*ROOT.glob("services/*/metrics.py"), ROOT / "gpu_worker" / "metrics.py"]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]


def shown() -> dict[str, set[str]]:
    """Every sample that the code can show, with its labels."""
    found: dict[str, set[str]] = {"up": set()}
    for module in map(import_module, modules()):
        for value in vars(module).values():
            if isinstance(value, Gauge):
                found[value.name] = set(value.labels)
    for collector in list(REGISTRY._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in getattr(collector, "describe", list)():
            if family.name == "sdfleet_worker_memory_bytes":
                labels = {"kind"}
            for ending in ENDINGS.get(family.type, ()):
                if family.name.startswith("sdfleet_"):
                    found[family.name + ending] = labels
    return found


def rules() -> dict[str, str]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "sdfleet.json").read_text())
    return found


def queries() -> dict[str, str]:
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }
    return rules() | panels


@pytest.mark.parametrize(("where", "query"), queries().items(), ids=queries())
def test_a_query_asks_for_metrics_and_labels_that_there_are(where: str, query: str) -> None:
    samples, known = shown(), set(OF_PROMETHEUS)
    named = re.findall(r"\b(sdfleet_[a-z_]+|up)\b", query)
    assert named
    for name in named:
        assert name in samples, name
        known |= samples[name]
    for name, selector in re.findall(r"(sdfleet_[a-z_]+)\{([^}]*)\}", query):
        asked = set(re.findall(r"([a-z_]+)\s*[=!]~?", re.sub(r'"[^"]*"', '""', selector)))
        assert asked <= samples[name] | OF_PROMETHEUS, name
    for labels in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in labels.split(",")} <= known
    assert query.count("(") == query.count(")")


def test_every_metric_and_every_alert_is_in_the_documentation() -> None:
    metrics = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown()} - {"up"}
    assert [name for name in sorted(metrics) if f"`{name}" not in OPERATIONS] == []
    assert [name for name in rules() if f"`{name}`" not in OPERATIONS] == []


def test_no_metric_has_a_label_that_strangers_fill() -> None:
    closed = {
        *("service", "method", "route", "status", "task", "state", "task_type", "work", "path", "endpoint"),
        *("instance_type", "kind", "outcome", "phase", "cache", "result", "remembered"),
    }
    assert {label for labels in shown().values() for label in labels} <= closed


def test_the_provisioned_files_lead_to_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    used = {
        target["datasource"]["uid"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    }
    assert used == {source["uid"]}
    assert yaml.safe_load((provisioning / "dashboards" / "sdfleet.yml").read_text())["providers"]


def test_prometheus_asks_every_service_and_every_worker() -> None:
    asked = {
        name
        for job in yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
        for place in job["dns_sd_configs"]
        for name in place["names"]
    }
    services = {path.parent.name for path in ROOT.glob("services/*/app.py")}
    tasks = {f"{path.parent.name}-tasks" for path in ROOT.glob("services/*/tasks.py")}
    assert asked == services | tasks | {"gpu_worker"}
    compose = Path(ROOT / "docker-compose.yml")
    if compose.exists():
        assert asked <= set(yaml.safe_load(compose.read_text())["services"])


@pytest.mark.parametrize(("where", "query"), queries().items(), ids=queries())
def test_a_default_is_not_itself_compared(where: str, query: str) -> None:
    """A comparison binds tighter than `or`: `a or vector(0) == 0` holds whenever there is an `a`."""
    assert not re.search(r"\bor\s+vector\(\d+\)\s*(==|!=|[<>])", query)


def test_alerts_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian: prometheus) is not installed")
    command = [promtool, "test", "rules", str(DEPLOY / "alerts.test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
