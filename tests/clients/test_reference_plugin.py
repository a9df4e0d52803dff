# SPDX-License-Identifier: Apache-2.0
"""The runtime of these tests works with the reference plugins, so that a failure with ours is ours."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.containerd import IMAGE, Containerd
from tests.clients.cri import Pod, Runtime

pytestmark = pytest.mark.root

REFERENCE = Path("/usr/lib/cni")
NODE = f"rc-ref-{os.getpid()}"


@pytest.fixture
def node() -> Iterator[str]:
    """A network namespace that stands for a node; deleted at the end."""
    subprocess.run(["ip", "netns", "add", NODE], check=True)
    try:
        subprocess.run(["ip", "-n", NODE, "link", "set", "lo", "up"], check=True)
        yield NODE
    finally:
        subprocess.run(["ip", "netns", "delete", NODE], check=True)


def conflist(data: Path) -> dict[str, Any]:
    """The reference bridge with addresses of both families; host-local keeps its state in `data`."""
    ranges = [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd00:99::/64"}]]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(data)}
    bridge = {"type": "bridge", "bridge": "ref0", "isGateway": True, "ipam": ipam}
    return {"cniVersion": "1.0.0", "name": "reference", "plugins": [bridge]}


def test_a_pod_with_the_reference_bridge_gets_addresses_runs_a_process_and_leaves_nothing(
    node: str, tmp_path: Path
) -> None:
    plugins = [REFERENCE / name for name in ("bridge", "host-local", "loopback")]
    with Containerd(netns=node, conflist=conflist(tmp_path), plugins=plugins) as containerd:
        with Runtime(containerd.socket) as runtime:
            pod = Pod("web")
            sandbox = runtime.run_pod(pod)
            assert set(runtime.pod_addresses(sandbox)) == {"10.99.0.2", "fd00:99::2"}
            container = runtime.run_container(sandbox, pod, IMAGE, ["/bin/sleep", "1000"])
            assert runtime.execute(container, "ping", "-c1", "10.99.0.1").exit_code == 0
            runtime.stop_pod(sandbox)
            runtime.remove_pod(sandbox)
            assert runtime.pods() == {}
        assert [path.name for path in (tmp_path / "reference").glob("10.*")] == []
        printed = containerd.run_with_cni("box", "/bin/ip", "-4", "addr", "show", "dev", "eth0")
        assert "inet 10.99.0.3/24" in printed
        assert [path.name for path in (tmp_path / "reference").glob("10.*")] == []
    assert not containerd.folder.exists()
