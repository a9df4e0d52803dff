# SPDX-License-Identifier: Apache-2.0
"""ovs-vswitchd that cannot be asked is not there, whatever the reason."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from agent.vswitchd import Vswitchd, VswitchdUnavailable


def test_without_a_free_descriptor_it_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    (tmp_path / "ovs-vswitchd.pid").write_text("7")
    monkeypatch.setattr(socket, "socket", fails)
    vswitchd = Vswitchd(tmp_path)
    assert not vswitchd.running()
    with pytest.raises(VswitchdUnavailable, match="Too many open files"):
        vswitchd.command("bridge/reconnect", "br-int")
