# SPDX-License-Identifier: Apache-2.0
"""What an operator copies from deploy/ is accepted by the programs of this tree."""

import configparser
import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from agent.settings import PROGRAM as AGENT
from agent.settings import AgentSettings
from controller.settings import ControllerSettings
from sdn import settings
from sdn.cli import manifests
from sdn.cli.lab_demo import NAMESPACE
from sdn.model import NetworkPolicy, parse, to_document
from sdn.version import VERSION

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def pyproject() -> Mapping[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's names have capitals
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def test_example_of_the_agents_settings_is_accepted() -> None:
    config = settings.read(AgentSettings, AGENT, ["--config", str(DEPLOY / "examples" / "agent.toml")], {})
    assert config.controllers


def test_example_of_the_controllers_settings_is_accepted() -> None:
    path = DEPLOY / "examples" / "controller.toml"
    config = settings.read(ControllerSettings, "sdn-controller", ["--config", str(path)], {})
    assert config.openflow_address.startswith("0.0.0.0:")


@pytest.mark.parametrize("path", sorted((DEPLOY / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_of_an_object_is_accepted(path: Path) -> None:
    for _, document in manifests.read([str(path)]):
        value = parse(document)
        assert parse(to_document(value)) == value
        assert value.KIND.lower() == path.stem


def test_the_example_of_a_network_policy_is_for_the_pods_of_the_demo() -> None:
    ((_, document),) = manifests.read([str(DEPLOY / "examples" / "networkpolicy.yaml")])
    policy = parse(document)
    assert isinstance(policy, NetworkPolicy)
    assert policy.metadata.namespace == NAMESPACE
    (rule,) = policy.spec.ingress
    (peer,) = rule.from_
    assert peer.pod_selector is not None
    for colour, subject, allowed in (("blue", True, False), ("green", False, True)):
        labels = {"app": colour}
        assert policy.spec.pod_selector.selector().matches(labels) is subject
        assert peer.pod_selector.selector().matches(labels) is allowed
    assert [(port.protocol, port.port) for port in rule.ports] == [("TCP", 80)]


def test_there_is_an_example_and_a_unit_for_each_daemon() -> None:
    daemons = {name for name in pyproject()["project"]["scripts"] if name.startswith("sdn-")}
    assert {f"sdn-{path.stem}" for path in (DEPLOY / "examples").glob("*.toml")} == daemons
    assert {path.stem for path in (DEPLOY / "systemd").glob("*.service")} == daemons


@pytest.mark.parametrize("path", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.stem)
def test_a_unit_waits_for_readiness_and_starts_its_daemon_again(path: Path, tmp_path: Path) -> None:
    service = unit(path)["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert Path(service["ExecStart"]).name == path.stem
    assert unit(path)["Unit"]["StartLimitIntervalSec"] == "0"
    if shutil.which("systemd-analyze"):
        # The unit as it is, but for the program, which is not installed on a build machine.
        copy = tmp_path / path.name
        text = path.read_text(encoding="utf-8").replace(
            service["ExecStart"], shutil.which("true") or "/bin/true"
        )
        copy.write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_the_agents_unit_makes_the_folders_of_its_default_settings() -> None:
    service = unit(DEPLOY / "systemd" / "sdn-agent.service")["Service"]
    config = settings.read(AgentSettings, AGENT, ["--controllers=c:1"], {})
    assert Path("/var/lib") / service["StateDirectory"] == config.state_dir
    assert Path("/run") / service["RuntimeDirectory"] == config.socket.parent


def test_the_controllers_unit_makes_the_folders_of_its_default_settings() -> None:
    service = unit(DEPLOY / "systemd" / "sdn-controller.service")["Service"]
    config = settings.read(ControllerSettings, "sdn-controller", [], {})
    assert Path(config.store.removeprefix("sqlite://")).parent == Path("/var/lib") / service["StateDirectory"]
    assert Path(config.grpc_socket).parent == Path("/run") / service["RuntimeDirectory"]


@pytest.mark.root
def test_the_agents_unit_leaves_it_the_right_to_end_its_dns_server() -> None:
    lines = (DEPLOY / "systemd" / "sdn-agent.service").read_text(encoding="utf-8").splitlines()
    named = [line.partition("=")[2].split() for line in lines if line.startswith("CapabilityBoundingSet=")]
    kept = ["+" + name.removeprefix("CAP_").lower() for names in named for name in names]
    command = ["setpriv", "--bounding-set", ",".join(["-all", *kept]), sys.executable, "-c", DNS_SERVER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "ended\n", done.stderr


#: Begins a DNS server, waits until that is nobody's, and ends it.
DNS_SERVER = """
import time
from pathlib import Path
from agent.dns.child import DnsServer
from agent.dns.config import DnsConfig

server = DnsServer()
server.assign(DnsConfig(listen=(), domain="cluster.local"))
server.start()
while server._process is None or "\\nUid:\\t65534" not in Path(f"/proc/{server._process.pid}/status").read_text():
    time.sleep(0.02)
process = server._process
server.assign(None)
while process.poll() is None and server._thread.is_alive():
    time.sleep(0.02)
print("ended" if server._thread.is_alive() else "failed", flush=True)
server.close()
process.stdin.close()
"""


def test_cni_configuration_names_the_plugin_and_the_agents_usual_socket() -> None:
    conf = json.loads((DEPLOY / "cni" / "10-sdn.conflist").read_text(encoding="utf-8"))
    first, *chained = conf["plugins"]
    assert first["type"] == "sdn-cni"
    assert Path(first["agentSocket"]) == settings.read(AgentSettings, AGENT, ["--controllers=c:1"], {}).socket
    for plugin in chained:
        assert Path("/usr/lib/cni", plugin["type"]).exists(), (
            "deploy/debian-packages.txt brings the reference plugins"
        )


def test_a_wheel_carries_the_plugin_and_the_programs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".venv", ".git", ".*_cache", "*.egg-info", "build", "results", "tests")
    shutil.copytree(ROOT, source, ignore=ignore)
    pip = [ROOT / ".venv/bin/python", "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert VERSION in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = next(name for name in names if name.endswith("entry_points.txt"))
        entries = archive.read(scripts).decode()
    assert {"agent/cni/sdn-cni", "sdn/py.typed", "sdn/v1/agent_pb2_grpc.pyi"} <= names
    for script, target in pyproject()["project"]["scripts"].items():
        assert f"{script} = {target}" in entries
        assert target.partition(":")[0].replace(".", "/") + ".py" in names


def test_the_lock_satisfies_every_range_and_names_exact_versions() -> None:
    lock = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            lock[name.lower().replace("_", "-")] = version
    project = pyproject()["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(lock[requirement.name.lower()]), text
    assert lock["os-ken"] == "4.2.2"
