# SPDX-License-Identifier: Apache-2.0
"""Debian's etcd on loopback, in a folder of a test's own: one member or several."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Etcd:
    """A cluster of ``members``; each can be killed."""

    def __init__(self, members: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ct-etcd-"))
        ports = _free_ports(2 * members)
        self._clients, self._peers = ports[:members], ports[members:]
        self.processes: list[subprocess.Popen[bytes]] = []
        cluster = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(self._peers))
        for number in range(members):
            client, peer = (
                f"http://127.0.0.1:{self._clients[number]}",
                f"http://127.0.0.1:{self._peers[number]}",
            )
            with (self.folder / f"log-{number}").open("wb") as log:
                self.processes.append(
                    subprocess.Popen(
                        [
                            *("etcd", "--name", f"m{number}", "--data-dir", f"{self.folder}/m{number}"),
                            *("--listen-client-urls", client, "--advertise-client-urls", client),
                            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                            *("--initial-cluster", cluster, "--heartbeat-interval", "50"),
                            *("--election-timeout", "500", "--logger", "zap", "--log-level", "error"),
                        ],
                        stdout=log,
                        stderr=log,
                        env={"PATH": "/usr/bin:/bin", "ETCD_UNSUPPORTED_ARCH": "arm64"},
                    )
                )

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._clients)

    @property
    def url(self) -> str:
        return f"etcd://{self.endpoints}"

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while self.ctl("get", "/", check=False) != 0:
            if time.monotonic() > deadline:
                logs = "".join(file.read_text() for file in self.folder.glob("log-*"))
                raise AssertionError(f"etcd did not start: {logs[-2000:]}")
            time.sleep(0.1)

    def ctl(self, *arguments: str, check: bool = True) -> int:
        """Run etcdctl; gives its exit code."""
        return subprocess.run(
            ["etcdctl", "--endpoints", self.endpoints, *arguments],
            env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3"},
            capture_output=True,
            timeout=60,
            check=check,
        ).returncode

    def clear(self) -> None:
        self.ctl("del", "", "--from-key")

    def leader(self) -> int:
        """The number of the member that leads."""
        for number, port in enumerate(self._clients):
            done = subprocess.run(
                ["etcdctl", "--endpoints", f"127.0.0.1:{port}", "endpoint", "status", "-w", "simple"],
                env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if done.stdout.split(", ")[4:5] == ["true"]:
                return number
        raise AssertionError("no member leads")

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
