# SPDX-License-Identifier: Apache-2.0
"""The service manager hears what sd_notify(3) defines, and its absence disturbs nobody."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn import notify


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A service manager's socket, in the file system or in the abstract namespace."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.settimeout(10)
        server.bind(path if request.param == "path" else "\0" + path)
        monkeypatch.setenv("NOTIFY_SOCKET", path if request.param == "path" else "@" + path)
        yield server


def test_each_message_is_one_datagram(manager: socket.socket) -> None:
    assert notify.ready("serving\n3 switches")
    assert manager.recv(4096) == b"READY=1\nSTATUS=serving 3 switches"
    assert notify.status("2 of 3")
    assert manager.recv(4096) == b"STATUS=2 of 3"
    assert notify.stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    assert notify.reloading()
    assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_nobody_is_told_when_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.ready()


def test_a_manager_that_is_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify.ready()
