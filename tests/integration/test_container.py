"""
The image and the compose files in ``contrib/container``.

Where a builder of images is at hand and gets the base image, it builds ours. Elsewhere the steps of the file are run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration._docs import ROOT, Process, environment, free_port, wait_for_port
from integration._nats import needs_nats
from integration._server import http_request, script

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

FOLDER = ROOT / "contrib" / "container"
USER = 10001
SECRET = "a-secret-of-the-tests-0123456789"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile with their arguments."""
    text = (FOLDER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    return [(name, argument) for name, _, argument in (line.partition(" ") for line in lines)]


def context() -> list[str]:
    """Return what the builder gets of the clone."""
    lines = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").split("\n")
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def last(name: str) -> str:
    return [argument for instruction, argument in instructions() if instruction == name][-1]


def command() -> list[str]:
    """Return what the image starts."""
    entry, arguments = json.loads(last("ENTRYPOINT")), json.loads(last("CMD"))
    return [*entry, *arguments]


def check(port: int) -> int:
    """Return the exit status of the image's health check."""
    found: list[str] = json.loads(last("HEALTHCHECK").partition(" CMD ")[2])
    found[-1] = found[-1].replace("8081", str(port))
    done = subprocess.run([sys.executable, *found[1:]], capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in which nobody without privileges can write."""
    folder = tmp_path / "root"
    folder.mkdir()
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def without_privileges() -> list[str]:
    """Return what starts a command as the user of the image, or as one who may do as little."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed, and this is root")
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    reading = f"open({script('twistd')!r})"  # the environment may be for root alone
    if subprocess.run([*user, sys.executable, "-c", reading], capture_output=True, check=False).returncode == 0:
        return user
    # Only root can read this Python: then without any capability, as in a container with cap_drop.
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


@contextmanager
def running(arguments: list[str], folder: Path, output: Path) -> Iterator[Process]:
    """Start a command without privileges in *folder*; its output goes elsewhere."""
    start = ["bash", "-c", 'cd "$0" && exec "$@"', str(folder), *without_privileges(), *arguments]
    with Process(start, output, PYTHONDONTWRITEBYTECODE="1") as process:
        yield process


def test_the_image_does_not_run_as_root_and_gets_its_signals() -> None:
    assert last("USER") == f"{USER}:{USER}"
    assert last("STOPSIGNAL") == "SIGTERM"
    assert command()[:4] == ["twistd", "-n", "--pidfile=", "lhttp"]
    assert all(
        argument.startswith("python:3.") and "-slim" in argument for name, argument in instructions() if name == "FROM"
    )


def test_the_command_runs_in_a_read_only_folder_and_the_check_sees_it(read_only: Path, tmp_path: Path) -> None:
    port = free_port()
    arguments = [argument.replace("8081", f"tcp:{port}:interface=127.0.0.1") for argument in command()]
    touch = subprocess.run([*without_privileges(), "touch", read_only / "file"], capture_output=True, check=False)
    assert touch.returncode != 0
    with running(arguments, read_only, tmp_path) as process:
        wait_for_port(port, process)
        assert check(port) == 0
        process.stop()
    assert check(port) == 1
    assert list(read_only.iterdir()) == []


def test_the_image_takes_what_an_installation_needs_and_no_more() -> None:
    named = [
        line.removeprefix("!") for line in (FOLDER / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"
    ]
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert {"lhttp_tx", "twisted", "setup.cfg", "pyproject.toml", "README.md"} <= set(named)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("CI"), reason="makes an image or an environment; set CI=true to run it")
def test_the_image_or_its_environment_can_be_built(tmp_path: Path) -> None:
    for builder in ("docker", "buildah", "podman"):
        pull = [builder, "pull", last("FROM")]
        if shutil.which(builder) and not subprocess.run(pull, capture_output=True, timeout=300, check=False).returncode:
            build = [builder, "build", "-t", "lhttp-test", "-f", str(FOLDER / "Dockerfile"), str(ROOT)]
            subprocess.run(build, check=True, timeout=1200)
            return
    clone = tmp_path / "src"
    clone.mkdir()
    for name in context():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, clone / name)
    for name, argument in instructions():
        if name == "FROM" and " AS " not in argument:
            break
        if name == "RUN":
            step = argument.replace("/opt/lhttp", str(tmp_path / "lhttp"))
            subprocess.run(["bash", "-euc", step], cwd=clone, check=True, timeout=1200, env=environment())
    modules = "import jwt, lhttp_tx, nats, prometheus_client"
    python = tmp_path / "lhttp" / "bin" / "python"
    subprocess.run([python, "-c", modules], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "lhttp" / "bin" / "nats-server").exists()


@pytest.fixture(params=["compose.yaml", "cluster.yaml"])
def compose(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return a compose file."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / request.param).read_text("utf-8"))
    return found


def test_compose_files_name_what_exists(compose: dict[str, Any]) -> None:
    services, secrets = compose["services"], compose.get("secrets", {})
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service.get("secrets", ())) <= set(secrets), name
        assert set(service.get("networks", ())) <= set(compose.get("networks", {})), name
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        for volume in service.get("volumes", ()):
            assert (FOLDER / volume.partition(":")[0]).is_file(), volume
        if "build" in service:
            assert (FOLDER / service["build"]["context"]).resolve() == ROOT
            assert (ROOT / service["build"]["dockerfile"]).is_file()


def test_the_server_takes_the_commands_of_compose_files(compose: dict[str, Any], tmp_path: Path) -> None:
    config = (FOLDER / "lhttp.toml").read_text("utf-8")
    for secret in compose.get("secrets", ()):
        (tmp_path / secret).write_text(SECRET + secret, "ascii")
    (tmp_path / "lhttp.toml").write_text(config.replace("/run/secrets/", f"{tmp_path}/"), "utf-8")
    (tmp_path / "empty.toml").touch()
    commands = [service["command"] for service in compose["services"].values() if service["image"] == "lhttp"]
    assert commands
    for arguments in commands:
        file, rest = "empty.toml", arguments
        if arguments[0] == "--config":
            file, rest = Path(arguments[1]).name, arguments[2:]
        done = subprocess.run(
            ["lhttp", "check-config", file, "--", *rest],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "valid" in done.stdout


@needs_nats
def test_a_node_of_the_cluster_gets_ready_with_its_three_nats_servers(tmp_path: Path) -> None:
    services = yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8"))["services"]
    names = ("nats1", "nats2", "nats3")
    clients, routes = ({name: free_port() for name in names} for _ in range(2))
    config = (FOLDER / "lhttp.toml").read_text("utf-8")
    for secret in ("publish.token", "prometheus.key", "operator.key"):
        (tmp_path / secret).write_text(SECRET + secret, "ascii")
    for name in names:
        config = config.replace(f"{name}:4222", f"127.0.0.1:{clients[name]}")
    port, admin = free_port(), free_port()
    config = config.replace("8081", f'"tcp:{port}:interface=127.0.0.1"')
    config = config.replace("tcp:9081", f"tcp:{admin}:interface=127.0.0.1").replace("/run/secrets/", f"{tmp_path}/")
    (tmp_path / "lhttp.toml").write_text(config, "utf-8")
    with ExitStack() as stack:
        for name in names:
            arguments = shlex.join(services[name]["command"]).replace("/data", f"{tmp_path}/{name}")
            arguments = arguments.replace("0.0.0.0:6222", f"127.0.0.1:{routes[name]}")
            arguments = re.sub(r"(nats\d):6222", lambda found: f"127.0.0.1:{routes[found[1]]}", arguments)
            own = ["-a", "127.0.0.1", "-p", str(clients[name])]
            process = stack.enter_context(Process([script("nats-server"), *shlex.split(arguments), *own], tmp_path))
            wait_for_port(clients[name], process)
        node = services["node1"]["command"]
        assert node[:2] == ["--config", "/etc/lhttp/lhttp.toml"]
        command = [script("twistd"), "-n", "--pidfile=", "lhttp", "--config", "lhttp.toml", *node[2:]]
        process = stack.enter_context(Process(command, tmp_path))
        wait_for_port(port, process)
        for _ in process.moments("get ready"):
            if http_request(port, "GET", "/ready")[0] == 200:
                break
        (scraped,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
        target = scraped["static_configs"][0]["targets"][0]
        key = {"Authorization": f"Bearer {SECRET}prometheus.key", "Host": target}
        status, _, metrics = http_request(admin, "GET", "/metrics", headers=key)
        assert status == 200 and b"lhttp_bus_up 1" in metrics


def test_grafana_shows_the_dashboard_with_the_metrics_of_prometheus() -> None:
    services = yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8"))["services"]
    files = {place: FOLDER / own for own, place, _ in (each.split(":") for each in services["grafana"]["volumes"])}
    (source,) = yaml.safe_load(files["/etc/grafana/provisioning/datasources/lhttp.yml"].read_text())["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert f"127.0.0.1:{port}:{port}" in services[host]["ports"]
    assert set(services[host]["networks"]) & set(services["grafana"]["networks"])
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/lhttp.yml"].read_text())["providers"]
    shown = [
        json.loads(file.read_text()) for place, file in files.items() if place.startswith(provider["options"]["path"])
    ]
    assert [dashboard["title"] for dashboard in shown] == ["LHTTP"]
    # The dashboard asks for a data source of this type, and takes the one that there is.
    (asked,) = (each["query"] for each in shown[0]["templating"]["list"] if each["type"] == "datasource")
    assert asked == source["type"]
    password = services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert password.removeprefix("/run/secrets/") in services["grafana"]["secrets"]


def test_a_stop_of_a_node_has_the_time_that_it_may_take() -> None:
    service = yaml.safe_load((FOLDER / "cluster.yaml").read_text("utf-8"))["services"]["node1"]
    drain = re.search(r"drain-time = (\d+)", (FOLDER / "lhttp.toml").read_text("utf-8"))
    assert drain is not None
    assert int(service["stop_grace_period"].removesuffix("s")) > int(drain[1]) + 5


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_takes_its_file(tmp_path: Path) -> None:
    text = re.sub(r"node\d:", "127.0.0.1:", (FOLDER / "nginx.conf").read_text("utf-8"))
    (tmp_path / "site.conf").write_text(text, "utf-8")
    outer = f"pid {tmp_path}/pid; events {{}} http {{ access_log off; include {tmp_path}/site.conf; }}"
    (tmp_path / "nginx.conf").write_text(outer, "utf-8")
    test = ["nginx", "-t", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"]
    done = subprocess.run(test, capture_output=True, text=True, timeout=60, check=False)
    if "Permission denied" in done.stderr:
        pytest.skip("nginx may not make its folders")
    assert done.returncode == 0, done.stderr
