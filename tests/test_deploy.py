"""The files for operators: their own tools accept them, and what they name is there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crossplane
import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from service.settings import PREFIX, Settings

DEPLOY = Path(__file__).resolve().parents[1] / "docs" / "deploy"
UNIT = (DEPLOY / "surgery.service").read_text("utf-8")
MANIFESTS = {
    each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
}
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
EXPOSURE = 20
"""Tenths of systemd's score of a unit, from 0, shut in, to 100, free."""
TARGET_LABELS = {"job", "instance", "pod"}
"""What Prometheus adds to every series."""
WORDS = {"sum", "by", "rate", "histogram_quantile", "max", "min", "avg", "increase", "on", "without"}


def pod() -> Any:
    return MANIFESTS["Deployment"]["spec"]["template"]["spec"]


def unit(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def words_after(words: list[str], flag: str) -> int:
    return int(words[words.index(flag) + 1])


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("release", ["1.31", kubernetes_validate.latest_version()])
def test_kubernetes_takes_the_manifest(kind: str, release: str) -> None:
    kubernetes_validate.validate(MANIFESTS[kind], release, strict=True)


def test_the_manifests_belong_together() -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    name = MANIFESTS["Deployment"]["metadata"]["name"]
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == name
    (container,) = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": words_after(container["args"], "--port")}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod()["volumes"]}
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert mounts["models"] == {
        "name": "models",
        "mountPath": environment["SURGERY_MODELS"],
        "readOnly": True,
    }
    assert mounts["state"]["mountPath"] == environment["BENTOML_HOME"]
    probes = {container[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe")}
    assert (probes, container["readinessProbe"]["httpGet"]["path"]) == ({"/livez"}, "/readyz")


def test_whoever_ends_the_service_waits_longer_than_it_takes() -> None:
    answer_s = Settings().timeout_s
    (container,) = pod()["containers"]
    graceful = words_after(container["args"], "--timeout-graceful-shutdown")
    drained = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert answer_s < graceful
    assert drained + graceful < pod()["terminationGracePeriodSeconds"]
    graceful = words_after(unit("ExecStart")[0].split(), "--timeout-graceful-shutdown")
    assert answer_s < graceful < int(unit("TimeoutStopSec")[0])


def test_the_commands_options_are_those_of_bentoml() -> None:
    # In a process of its own: a service that was built here has changed BentoML's configuration.
    code = """
from bentoml_cli.serve import build_serve_command
print(*(option for each in build_serve_command().commands["serve"].params for option in each.opts))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    known = {*done.stdout.split()}
    for words in (pod()["containers"][0]["args"], shlex.split(unit("ExecStart")[0])):
        assert {word for word in words if word.startswith("--")} <= known


def test_the_variables_are_those_of_the_settings() -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"SURGERY_CONFIG"}
    pages = [*DEPLOY.iterdir(), DEPLOY.parent / "deploy.md"]
    for page in pages:
        named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", page.read_text("utf-8"))) - {"SURGERY_PORT"}
        assert named <= known, page.name


@pytest.mark.systemd
def test_systemd_takes_the_unit_and_shuts_it_in(tmp_path: Path) -> None:
    path = tmp_path / "surgery.service"  # its program need not be installed here
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", UNIT), "utf-8")
    for command in (
        ["verify", "--man=no"],
        ["security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager"],
    ):
        done = subprocess.run(["systemd-analyze", *command, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr


def test_nginx_takes_the_proxy() -> None:
    read = crossplane.parse(str(DEPLOY / "nginx.conf"), strict=True, single=True)
    # `http2 on` is younger than crossplane's list of directives.
    errors = [error for error in read["errors"] if '"http2"' not in error["error"]]
    assert not errors
    lines = {line["directive"]: line["args"] for line in walk(read["config"][0]["parsed"])}
    settings = Settings()
    assert lines["client_max_body_size"] == [f"{settings.max_body_mib:g}m"]
    assert int(lines["proxy_read_timeout"][0][:-1]) > settings.timeout_s
    assert {"client_header_timeout", "client_body_timeout"} <= lines.keys()


def walk(block: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in block:
        yield line
        yield from walk(line.get("block", []))


def test_prometheus_asks_what_the_service_answers() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))
    for job in config["scrape_configs"]:
        assert job.get("metrics_path", "/metrics") == "/metrics"
        assert {"static_configs", "kubernetes_sd_configs"} & job.keys()
    names = [job["job_name"] for job in config["scrape_configs"]]
    assert len({*names}) == len(names)


def counted() -> dict[str, set[str]]:
    """Return the labels of every series that the service counts, by name."""
    metrics = Metrics(lambda: 0, lambda: 0)
    served: Any = SimpleNamespace(manifest=SimpleNamespace(name="cars", version=1))
    metrics.answered(served, 1, 1, {"decode": 0.1}, 0.5)
    metrics.spooled("cars", "kept")
    metrics.spool_holds("cars", 1, 1)
    metrics.replied("/predict", "cars", "1", 400, "bad_image", 0.1)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.exposition()[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    found["surgery_resident_memory_bytes"].add("pid")  # where several processes count together
    return found


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries = [each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return [*panels, *queries]


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_asks_for_what_is_counted(expression: str) -> None:
    known = counted()
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    labels = {label for match in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"\w+(?==)", match)}
    labels |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", bare) for label in group.split(",")}
    if query := re.fullmatch(r"label_values\((\w+), (\w+)\)", bare):
        names, labels = {query[1]}, {query[2]}
    else:
        rest = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", bare)
        names = set(re.findall(r"[a-z_]\w+", rest)) - WORDS
    assert names
    assert names <= known.keys()
    for name in names:
        assert labels <= known[name] | TARGET_LABELS, name


def test_the_dashboards_legends_and_variables_exist() -> None:
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    known = set.union(*counted().values()) | TARGET_LABELS
    for panel in DASHBOARD["panels"]:
        assert set(re.findall(r"\$\{?(\w+)", json.dumps(panel))) <= variables
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*numbers}) == len(numbers)
