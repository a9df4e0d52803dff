# SPDX-License-Identifier: Apache-2.0
"""Debian's etcd on loopback, in a folder of a test's own: one member or several, with or without TLS."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import unused_port


def _free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(unused_port())
    return list(ports)


class Keys:
    """An authority, a certificate of each name signed by it (for 127.0.0.1), and a stranger's own."""

    def __init__(self, folder: Path, *names: str) -> None:
        self._folder = folder
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
        for authority in ("ca", "stranger"):
            self._openssl(
                *("req", "-x509", *_NEW_KEY, "-subj", f"/CN={authority}", "-days", "2"),
                *("-keyout", str(self.key(authority)), "-out", str(self.certificate(authority))),
            )
        for name in names:
            request = folder / f"{name}.csr"
            self._openssl(
                *("req", *_NEW_KEY, "-subj", f"/CN={name}"),
                *("-keyout", str(self.key(name)), "-out", str(request)),
            )
            self._openssl(
                *("x509", "-req", "-in", str(request), "-days", "2", "-extfile", f"{folder}/extensions"),
                *("-CA", str(self.certificate("ca")), "-CAkey", str(self.key("ca")), "-CAcreateserial"),
                *("-out", str(self.certificate(name))),
            )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)

    def certificate(self, name: str) -> Path:
        return self._folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self._folder / f"{name}.key"


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Etcd:
    """A cluster of ``members``; each can be killed, paused and started again.

    With ``keys`` (a certificate named "etcd" and one named "client" among them) clients speak TLS, and must
    show a certificate of the same authority. ``users`` are the numbers of the users that the members run as,
    instead of the test's own.
    """

    def __init__(self, members: int = 1, keys: Keys | None = None, users: Sequence[int] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ct-etcd-"))
        self._keys = keys
        self._users = users
        if users:
            self.folder.chmod(0o755)
        for number, user in enumerate(users):
            (self.folder / f"m{number}").mkdir(mode=0o700)
            os.chown(self.folder / f"m{number}", user, -1)
        ports = _free_ports(2 * members)
        self._clients, self._peers = ports[:members], ports[members:]
        self._login: tuple[str, ...] = ()
        self.processes = [self._start(number) for number in range(members)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        cluster = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(self._peers))
        scheme = "https" if self._keys else "http"
        client = f"{scheme}://127.0.0.1:{self._clients[number]}"
        peer = f"http://127.0.0.1:{self._peers[number]}"
        tls: tuple[str, ...] = ()
        if self._keys:
            tls = (
                *(
                    "--cert-file",
                    str(self._keys.certificate("etcd")),
                    "--key-file",
                    str(self._keys.key("etcd")),
                ),
                *("--trusted-ca-file", str(self._keys.certificate("ca")), "--client-cert-auth"),
            )
        with (self.folder / f"log-{number}").open("ab") as log:
            return subprocess.Popen(
                [
                    *("etcd", "--name", f"m{number}", "--data-dir", f"{self.folder}/m{number}"),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", cluster, "--heartbeat-interval", "50"),
                    *("--election-timeout", "500", "--logger", "zap", "--log-level", "error"),
                    *tls,
                ],
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "ETCD_UNSUPPORTED_ARCH": "arm64"},
                user=self._users[number] if self._users else None,
            )

    @property
    def endpoints(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._clients)

    def peer_port(self, number: int) -> int:
        return self._peers[number]

    @property
    def url(self) -> str:
        return f"etcd://{self.endpoints}"

    def url_from(self, first: int) -> str:
        """The same members, with number ``first`` in front."""
        ports = self._clients[first:] + self._clients[:first]
        return "etcd://" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def kill(self, number: int) -> None:
        """SIGKILL; its data stays."""
        self.processes[number].kill()
        self.processes[number].wait()

    def restart(self, number: int) -> None:
        """Start a member that was killed, with the data it had."""
        self.processes[number] = self._start(number)

    def wipe(self, number: int) -> None:
        """Start a member that was killed with no data at all; all members wiped are another store."""
        shutil.rmtree(self.folder / f"m{number}")
        self.restart(number)

    def save(self, file: Path) -> None:
        """Back up what the first member has."""
        self.ctl("snapshot", "save", str(file), endpoints=f"127.0.0.1:{self._clients[0]}")

    def restore(self, file: Path) -> None:
        """Start the only member, which was killed, with the data of a backup."""
        shutil.rmtree(self.folder / "m0")
        peer = f"http://127.0.0.1:{self._peers[0]}"
        self.ctl(
            *("snapshot", "restore", str(file), "--name", "m0", "--data-dir", f"{self.folder}/m0"),
            *("--initial-cluster", f"m0={peer}", "--initial-advertise-peer-urls", peer),
        )
        self.restart(0)

    def pause(self, number: int) -> None:
        """SIGSTOP: it takes connections and bytes, and answers nothing."""
        self.processes[number].send_signal(signal.SIGSTOP)
        # Sent is not yet stopped.
        os.waitid(os.P_PID, self.processes[number].pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self, number: int) -> None:
        self.processes[number].send_signal(signal.SIGCONT)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while self.ctl("get", "/", check=False) != 0:
            if time.monotonic() > deadline:
                logs = "".join(file.read_text() for file in self.folder.glob("log-*"))
                raise AssertionError(f"etcd did not start: {logs[-2000:]}")
            time.sleep(0.1)

    def _etcdctl(self, *arguments: str, endpoints: str) -> subprocess.CompletedProcess[str]:
        tls: tuple[str, ...] = ()
        if self._keys:
            tls = (
                *("--cacert", str(self._keys.certificate("ca"))),
                *("--cert", str(self._keys.certificate("client")), "--key", str(self._keys.key("client"))),
            )
        return subprocess.run(
            ["etcdctl", "--endpoints", endpoints, *tls, *self._login, *arguments],
            env={"PATH": "/usr/bin:/bin", "ETCDCTL_API": "3"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ctl(self, *arguments: str, check: bool = True, endpoints: str = "") -> int:
        """Run etcdctl, with all members or those given; gives its exit code."""
        done = self._etcdctl(*arguments, endpoints=endpoints or self.endpoints)
        assert not check or done.returncode == 0, f"etcdctl {' '.join(arguments)}: {done.stderr}"
        return done.returncode

    def enable_users(self, user: str, password: str, *prefixes: str) -> None:
        """Turn authentication on: root (password "root"), and ``user``, who may do anything below
        ``prefixes``."""
        self.ctl("user", "add", "root:root")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("role", "add", "sdn")
        for prefix in prefixes:
            self.ctl("role", "grant-permission", "sdn", "--prefix=true", "readwrite", prefix)
        self.ctl("user", "add", f"{user}:{password}")
        self.ctl("user", "grant-role", user, "sdn")
        self.ctl("auth", "enable")
        self._login = ("--user", "root:root")

    def disable_users(self) -> None:
        self.ctl("auth", "disable")
        self._login = ()

    def clear(self) -> None:
        self.ctl("del", "", "--from-key")

    def leader(self) -> int:
        """The number of the member that leads, once there is one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for number, port in enumerate(self._clients):
                done = self._etcdctl("endpoint", "status", "-w", "simple", endpoints=f"127.0.0.1:{port}")
                if done.stdout.split(", ")[4:5] == ["true"]:
                    return number
            time.sleep(0.1)
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
