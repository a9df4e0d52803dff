# SPDX-License-Identifier: Apache-2.0
"""Debian's containerd with everything private to one folder: configuration, images, state, socket, CNI.

Nothing of the machine's own containerd is read or touched, so that several can run side by side. It is
started in the network namespace of a node, as on a real node; only the network namespace, because the
mounts under /run/netns that it makes for its pods must be seen by the agent. Measured needs of a machine
without systemd: cgroups driven directly (`SystemdCgroup = false`), and the OOM score left as it is where it
may not be lowered (`restrict_oom_score_adj`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc

from tests.clients import busybox_image
from tests.clients.cri import Runtime

IMAGE: Final = "localhost/busybox:test"
START_SECONDS: Final = 60.0

_CONFIG: Final = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{folder}/cni-bin"
    conf_dir = "{folder}/cni-conf"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


class Containerd:
    """One private containerd, from start (`with`) to an end that leaves no process or mount behind."""

    def __init__(self, *, netns: str | None, conflist: dict[str, Any], plugins: list[Path]) -> None:
        """
        netns     name of the network namespace to run in (as `ip netns` knows it), None for our own
        conflist  the CNI network configuration list, the only one in the runtime's configuration folder
        plugins   the executables that it may name
        """
        self.folder = Path(tempfile.mkdtemp(prefix="containerd-", dir="/tmp"))
        self._netns = netns
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("cni-bin", "cni-conf"):
            (self.folder / name).mkdir()
        for plugin in plugins:
            (self.folder / "cni-bin" / plugin.name).symlink_to(plugin)
        (self.folder / "cni-conf" / "10-test.conflist").write_text(json.dumps(conflist))
        (self.folder / "config.toml").write_text(
            _CONFIG.format(folder=self.folder, image=IMAGE, snapshotter=_snapshotter())
        )

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def cni_bin(self) -> Path:
        return self.folder / "cni-bin"

    @property
    def cni_conf(self) -> Path:
        return self.folder / "cni-conf"

    def __enter__(self) -> Containerd:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def in_netns(self, *command: str) -> list[str]:
        """The command line that runs a command in the network namespace of this runtime."""
        return ["nsenter", f"--net=/run/netns/{self._netns}", *command] if self._netns else list(command)

    def log(self) -> str:
        """What containerd has written so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.in_netns("containerd", "--config", str(self.folder / "config.toml")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its own session: an interrupt at the terminal is for the test, which then ends containerd
                # in order.
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        self._await_ready()
        image = self.folder / "image.tar"
        busybox_image.write(image, IMAGE)
        for namespace in ("k8s.io", "default"):  # the CRI service's, and ctr's own
            self.ctr("images", "import", "--snapshotter", _snapshotter(), str(image), namespace=namespace)

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        answer = "nothing"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self.socket.exists():
                with Runtime(self.socket) as runtime:
                    try:
                        conditions = runtime.call("Status")["status"]["conditions"]
                        answer = str(conditions)
                    except grpc.RpcError as error:
                        # The socket is there before the CRI service answers on it.
                        conditions, answer = [], str(error)
                    if conditions and all(condition.get("status") for condition in conditions):
                        return
            time.sleep(0.1)
        raise RuntimeError(f"containerd is not ready, last answer: {answer}; its log:\n{self.log()}")

    def ctr(self, *arguments: str, namespace: str = "default") -> str:
        """Runs `ctr` against this containerd; what it printed. Raises with its error output when it fails."""
        command = ["ctr", "--address", str(self.socket), "--namespace", namespace, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def run_with_cni(self, container: str, *command: str) -> str:
        """`ctr run --cni`: runs a container in the foreground; what it printed.

        ctr is a CNI client of its own: it sends no Kubernetes names, calls the namespace /proc/PID/ns/net,
        and calls DEL when the process, and the namespace with it, is gone. It looks for configuration and
        plugins in fixed places (/etc/cni/net.d, /opt/cni/bin), so it gets a mount namespace in which these
        are ours.
        """
        copy = self.folder / "etc"
        script = (
            f"cp -a /etc {copy} && rm -rf {copy}/cni && mkdir {copy}/cni"
            f" && ln -s {self.cni_conf} {copy}/cni/net.d"
            f" && mount --bind {copy} /etc"
            f" && mount -t tmpfs cni /opt && mkdir /opt/cni && ln -s {self.cni_bin} /opt/cni/bin"
            ' && exec "$@"'
        )
        ctr = ["ctr", "--address", str(self.socket), "run", "--cni", "--rm", "--snapshotter", _snapshotter()]
        line = self.in_netns(
            "unshare", "--mount", "sh", "-ec", script, "ctr", *ctr, IMAGE, container, *command
        )
        try:
            done = subprocess.run(line, capture_output=True, text=True, check=False)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        if done.returncode != 0:
            raise RuntimeError(
                f"ctr run --cni {container}: exit {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done.stdout

    def close(self) -> None:
        """Removes every pod, ends containerd and deletes its folder. Safe to repeat."""
        process, self._process = self._process, None
        try:
            if process is not None and process.poll() is None:
                self._remove_pods()
        finally:
            if process is not None:
                process.terminate()
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for mount in sorted(_mounts_below(self.folder), key=len, reverse=True):
                subprocess.run(["umount", "--lazy", mount], check=False)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_pods(self) -> None:
        with Runtime(self.socket) as runtime:
            try:
                for sandbox in runtime.pods():
                    runtime.stop_pod(sandbox)
                    runtime.remove_pod(sandbox)
            except grpc.RpcError as error:
                # A plugin that refuses DEL must not keep the processes of the pods alive after the test.
                self._kill_tasks()
                raise RuntimeError(
                    f"containerd could not remove its pods: {error}\n{self.log()[-4000:]}"
                ) from error

    def _kill_tasks(self) -> None:
        for line in self.ctr("tasks", "list", namespace="k8s.io").splitlines()[1:]:
            self.ctr("tasks", "delete", "--force", line.split()[0], namespace="k8s.io")


def _snapshotter() -> str:
    """Layers by overlayfs where the kernel has it, else by plain copies."""
    return "overlayfs" if "\toverlay\n" in Path("/proc/filesystems").read_text() else "native"


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for point in (line.split()[4] for line in lines) if point.startswith(f"{folder}/")]
