"""The chart in ``contrib/helm``: what helm makes of it, and whether the server takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from integration._docs import ROOT, environment

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

pytestmark = pytest.mark.skipif(
    shutil.which("helm") is None, reason="helm is not installed: go install helm.sh/helm/v3/cmd/helm@latest"
)

CHART = ROOT / "contrib" / "helm" / "lhttp-tx"
SECRET = "a-secret-of-the-tests-0123456789"
CLUSTER = (
    *("replicas=3", "nats.urls={nats://nats:4222}", "serverNames={chat.example}", "secret.name=keys"),
    *("trustedProxies={10.0.0.0/8}", "drain.preStop=3", "serviceMonitor.enabled=true", "ingress.enabled=true"),
    *('config=history = ["room.>"]', 'tables=[[channel]]\nmatch = "room.>"'),
)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(*values: str) -> subprocess.CompletedProcess[str]:
    sets = [part for value in values for part in ("--set", value)]
    return helm("template", "chat", str(CHART), "--kube-version", "1.31.0", *sets)


def made(*values: str) -> dict[str, Any]:
    """Return what helm makes, by kind; of two of a kind, the last one."""
    done = template(*values)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


def test_helm_finds_nothing_to_complain_about() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", [(), CLUSTER], ids=["alone", "cluster"])
def test_the_server_takes_its_configuration(values: tuple[str, ...], tmp_path: Path) -> None:
    found = made(*values)
    config = found["ConfigMap"]["data"]["lhttp.toml"].replace("/run/secrets/lhttp/", f"{tmp_path}/")
    (tmp_path / "lhttp.toml").write_text(config, "utf-8")
    for secret in ("publish.token", "operator.key", "prometheus.key"):
        (tmp_path / secret).write_text(SECRET + secret, "ascii")
    arguments = found["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[:2] == ["--config", "/etc/lhttp/lhttp.toml"]
    rest = [argument.replace("$(POD_NAME)", "chat-0").replace("$(POD_IP)", "10.1.2.3") for argument in arguments[2:]]
    done = subprocess.run(
        ["lhttp", "check-config", "lhttp.toml", "--", *rest],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lhttp.toml: valid" in done.stdout


@pytest.mark.parametrize("values", [(), CLUSTER], ids=["alone", "cluster"])
def test_a_pod_may_do_little_and_has_time_to_end(values: tuple[str, ...]) -> None:
    found = made(*values)
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    config = found["ConfigMap"]["data"]["lhttp.toml"]
    times = [int(digits) for digits in re.findall(r"drain-(?:delay|time) = (\d+)", config)]
    wait = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0, 0])[1])
    # And what --drain-timeout and --close-timeout take.
    assert pod["terminationGracePeriodSeconds"] >= sum(times) + wait + 10
    assert len(times) == 2
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_what_is_optional_is_there_when_asked_for() -> None:
    alone, cluster = made(), made(*CLUSTER)
    extra = {"PodDisruptionBudget", "ServiceMonitor", "Ingress"}
    assert not extra & alone.keys()
    assert extra < cluster.keys()
    (endpoint,) = cluster["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "keys", "key": "prometheus.key"}
    labels = cluster["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert labels.items() <= cluster["Service"]["metadata"]["labels"].items()
    history = made("persistence.enabled=true")["StatefulSet"]
    (claim,) = history["spec"]["volumeClaimTemplates"]
    mounts = history["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert (claim["metadata"]["name"], "/var/lib/lhttp") in [(each["name"], each["mountPath"]) for each in mounts]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("replicas=2", "more than one replica needs NATS"),
        ("ingress.enabled=true", "an ingress needs serverNames"),
        ("serviceMonitor.enabled=true", "a ServiceMonitor needs secret.name"),
        ("nats.urls={nats://user:password@nats:4222}", "does not match pattern"),
        ("nonsense=1", "additional properties 'nonsense' not allowed"),
    ],
)
def test_what_cannot_work_is_refused(value: str, why: str) -> None:
    done = template(value)
    assert done.returncode != 0
    assert why in done.stderr
