# SPDX-License-Identifier: Apache-2.0
"""The installed programs tell their settings, refuse what is wrong, say when they are ready, end when asked."""

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from agent.settings import AgentSettings
from controller.settings import ControllerSettings
from sdn import settings
from sdn.version import VERSION

BIN = Path(__file__).parents[2] / ".venv" / "bin"
DAEMONS = {"sdn-agent": AgentSettings, "sdn-controller": ControllerSettings}


def run(program: str, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one of our programs in an environment without settings but those given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SDN_")}
    command = [BIN / program, *argv]
    return subprocess.run(command, env=clean | environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", DAEMONS)
def test_help_tells_every_setting(program: str) -> None:
    done = run(program, "--help")
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for field in settings.describe(DAEMONS[program], program):
        assert f"{field.flag} " in text
        assert field.environment in text
        assert field.description in text


@pytest.mark.parametrize("program", DAEMONS)
def test_version_is_told(program: str) -> None:
    assert run(program, "--version").stdout == f"{program} {VERSION}\n"


@pytest.mark.parametrize("program", DAEMONS)
def test_an_unknown_setting_is_refused_by_name_wherever_it_stands(program: str, tmp_path: Path) -> None:
    variable = program.upper().replace("-", "_") + "_COLOUR"
    toml = tmp_path / "settings.toml"
    toml.write_text("colour = 1\n")
    for done, name in (
        (run(program, "--colour", "1"), "--colour"),
        (run(program, **{variable: "1"}), variable),
        (run(program, "--config", str(toml)), "colour"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"{program}: ")
        assert name in done.stderr


def test_the_controller_tells_systemd_that_it_is_ready_and_that_it_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(120)
        manager.bind(str(tmp_path / "notify"))
        argv = [
            f"--store=sqlite://{tmp_path}/state/store.db",
            f"--grpc-socket={tmp_path}/run/controller.sock",
            "--grpc-address=",
            "--openflow-address=127.0.0.1:0",
        ]
        with subprocess.Popen(
            [BIN / "sdn-controller", *argv],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert manager.recv(4096).startswith(b"READY=1")
                assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
                assert stat.S_IMODE((tmp_path / "state" / "store.db").stat().st_mode) & 0o077 == 0
                assert stat.S_IMODE((tmp_path / "run" / "controller.sock").stat().st_mode) == 0o660
                process.send_signal(signal.SIGTERM)
                assert manager.recv(4096).startswith(b"STOPPING=1")
                assert process.wait(120) == 0
            finally:
                process.kill()
