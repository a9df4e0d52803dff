# SPDX-License-Identifier: Apache-2.0
"""A running lab, for scripts and tests: what `sdnctl lab` does, as calls.

lab = Lab.up(LabSpec(name="mine", nodes=2), print)
web = lab.pod_add("web", node="node-1")
assert lab.run("node-2", "ping", "-c1", web.addresses[0]).returncode == 0
lab.down()
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from sdn.lab import building, controllers, matrix, namespaces, pods, processes, readiness
from sdn.lab.building import Progress, silent
from sdn.lab.command import environment
from sdn.lab.errors import LabError
from sdn.lab.programs import programs, switch_environment
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder, PodRecord, names
from sdn.lab.supervision import ProcessState, Supervisor, log_path, state_of
from sdn.lab.waiting import wait_until

if TYPE_CHECKING:
    from sdn.v1 import inspection_pb2


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """A machine on the underlay."""

    name: str
    #: Name of its network namespace, and the file that stands for it.
    netns: str
    netns_path: str
    addresses: tuple[str, ...]


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """A pod, as its runtime knows it."""

    name: str
    #: Kubernetes namespace.
    namespace: str
    node: str
    netns: str
    netns_path: str
    container_id: str
    interface: str
    mac: str
    addresses: tuple[str, ...]
    labels: Mapping[str, str]


class LabState(msgspec.Struct, frozen=True, kw_only=True):
    """What `lab status -o json` prints."""

    name: str
    folder: str
    #: "running"; "starting" while `up` is at work; "broken" when it was cut off or supervisord is gone.
    state: str
    created: str
    spec: LabSpec
    #: Where sdnctl asks: a controller that answers, if there is one. All of them.
    server: str
    servers: tuple[str, ...]
    machines: tuple[MachineState, ...]
    processes: tuple[ProcessState, ...]
    pods: tuple[PodState, ...]


class Lab:
    """One lab by name. Every method looks at what is; nothing is remembered between calls but what was asked for."""

    def __init__(self, name: str) -> None:
        """LabError if there is no such lab."""
        self.folder = Folder(name)
        self.record = self.folder.read()
        self.spec = self.record.spec
        self.supervisor = Supervisor(self.folder)

    @staticmethod
    def up(spec: LabSpec, progress: Progress = silent, *, keep: bool = False) -> Lab:
        """Bring up a lab; LabError, with nothing left of it (unless `keep`), if that fails."""
        building.up(spec, progress, keep=keep)
        return Lab(spec.name)

    def down(self, progress: Progress = silent) -> None:
        """Remove the lab and everything in it."""
        building.down(self.spec.name, progress)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def server(self) -> str:
        """gRPC target of a controller: of the first that answers now, and of the first at all when none does."""
        return self.server_of(controllers.one_to_ask(self.spec, self.folder))

    @property
    def servers(self) -> tuple[str, ...]:
        """gRPC targets of all controllers, in their order."""
        return tuple(self.server_of(name) for name in controllers.names(self.spec))

    def server_of(self, controller: str) -> str:
        """gRPC target of this controller."""
        if controller not in controllers.names(self.spec):
            known = ", ".join(controllers.names(self.spec))
            raise LabError(f"lab {self.name} has no controller {controller!r}; it has {known}")
        return controllers.target(self.folder, controller)

    def serving(self) -> tuple[str, ...]:
        """Names of the controllers that call themselves healthy now."""
        return controllers.serving(self.spec, self.folder)

    def switches(self) -> dict[str, inspection_pb2.Switch]:
        """Each node's switch as its owner sees it, by node. See `sdn.lab.controllers.switches`."""
        return controllers.switches(self.spec, self.folder)

    # Pods.

    def pod_add(
        self,
        name: str,
        namespace: str = "default",
        node: str | None = None,
        labels: Mapping[str, str] | None = None,
        retry_seconds: float = 30,
    ) -> PodRecord:
        """Make a pod by executing the CNI plugin. See `sdn.lab.pods.add`."""
        self._must_run()
        return pods.add(self.folder, self.spec, name, namespace, node, labels, retry_seconds)

    def pod_delete(self, name: str, namespace: str | None = None, retry_seconds: float = 30) -> None:
        """Remove a pod by executing the CNI plugin."""
        self._must_run()
        pods.delete(self.folder, self.spec, self.pod(name, namespace), retry_seconds)

    def pods(self) -> list[PodRecord]:
        """Pods that are ready, in the order of namespace and name."""
        return [pod for pod in self.folder.pods() if pod.addresses]

    def pod(self, name: str, namespace: str | None = None) -> PodRecord:
        """The pod NAME or NAMESPACE/NAME; LabError if there is none, or several in different namespaces."""
        if "/" in name and namespace is None:
            namespace, _, name = name.partition("/")
        found = [pod for pod in self.folder.pods() if pod.name == name and namespace in (None, pod.namespace)]
        if len(found) > 1:
            raise LabError(f"several pods are called {name}: {', '.join(pod.full_name for pod in found)}")
        if not found:
            where = f" in namespace {namespace}" if namespace else ""
            raise LabError(f"lab {self.name} has no pod {name!r}{where}")
        return found[0]

    def cni(self, pod: PodRecord, verb: str, **options: Any) -> dict[str, Any]:
        """Execute the plugin once for a pod, whatever is written down. See `sdn.lab.pods.execute`."""
        return pods.execute(self.folder, self.spec, pod, verb, **options)

    # Commands inside.

    def netns(self, target: str) -> str:
        """Network namespace of a machine (node-1, controller-1, outside, underlay) or a pod (NAME, NAMESPACE/NAME)."""
        if target == "underlay":
            return self.spec.underlay_netns
        for machine in self.spec.machines:
            if machine.name == target:
                return machine.netns
        return self.pod(target).netns

    def command(self, target: str, *command: str) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment that run `command` inside `target`; on a node, ovs-vsctl finds its switch."""
        netns = self.netns(target)
        of_switch: dict[str, str] = {}
        if any(machine.name == target for machine in self.spec.node_machines):
            of_switch = switch_environment(self.folder, target)
        return ["ip", "netns", "exec", netns, *command], environment({**_terminal(), **of_switch})

    def run(
        self, target: str, *command: str, timeout: float = 120, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` inside `target` to its end; it may fail."""
        arguments, variables = self.command(target, *command)
        return subprocess.run(
            arguments,
            env=variables,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            check=False,
        )

    def popen(self, target: str, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start `command` inside `target`; the caller ends it."""
        arguments, variables = self.command(target, *command)
        return subprocess.Popen(arguments, env=variables, text=True, **options)

    # Processes.

    def process(self, name: str) -> ProcessState:
        """`node-1/agent`, `node-1/ovs-vswitchd`, `node-1/ovsdb-server`, `controller-1`, `etcd-1`."""
        for state in self._processes():
            if state.name == name.replace(":", "/"):
                return state
        raise LabError(f"lab {self.name} has no process {name!r}; it has {', '.join(self.process_names())}")

    def process_names(self) -> list[str]:
        return [program.name for program in programs(self.spec, self.folder)]

    def stop(self, name: str) -> None:
        """End a process in an orderly way and keep it ended."""
        self.supervisor.stop(self.process(name).name)

    def start(self, name: str) -> None:
        """Start a process that was stopped."""
        self.supervisor.start_process(self.process(name).name)

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal (kill -9) to a process, which is started again like after any death; its old pid."""
        state = self.process(name)
        identity = processes.identify(state.pid) if state.pid is not None else None
        if identity is None or not processes.send(identity, number):
            raise LabError(f"{name} does not run just now ({state.state})")
        return identity.pid

    def wait_ready(self) -> None:
        """Wait as at the end of `up`: until all serve that were not stopped, and every switch holds its flows."""
        readiness.wait(self.spec, self.folder, self.supervisor, silent)

    def wait_restarted(self, name: str, old_pid: int, seconds: float = 30) -> None:
        """Wait until another process than `old_pid` runs under this name."""

        def running() -> bool:
            state = self.process(name)
            return state.state == "RUNNING" and state.pid not in (None, old_pid)

        wait_until(running, f"{name} to be started again", seconds)

    def log(self, name: str) -> Path:
        """Where a process's output is kept."""
        return log_path(self.folder, self.process(name).name)

    # Views.

    def ping_matrix(self, *, attempts: int = 3, timeout: float = 1.0) -> list[matrix.Reach]:
        """Who reaches whom, both families."""
        return matrix.measure(self.spec, self.pods(), attempts=attempts, timeout=timeout)

    def state(self) -> LabState:
        return LabState(
            name=self.name,
            folder=str(self.folder.path),
            state=self._word(),
            created=self.record.created,
            spec=self.spec,
            server=self.server,
            servers=self.servers,
            machines=tuple(
                MachineState(
                    name=machine.name,
                    netns=machine.netns,
                    netns_path=str(namespaces.path(machine.netns)),
                    addresses=(machine.ipv4, machine.ipv6),
                )
                for machine in self.spec.machines
            ),
            processes=tuple(self._processes()),
            pods=tuple(
                PodState(
                    name=pod.name,
                    namespace=pod.namespace,
                    node=pod.node,
                    netns=pod.netns,
                    netns_path=str(namespaces.path(pod.netns)),
                    container_id=pod.container_id,
                    interface=pod.interface,
                    mac=pod.mac,
                    addresses=pod.addresses,
                    labels=pod.labels,
                )
                for pod in self.folder.pods()
            ),
        )

    def _processes(self) -> list[ProcessState]:
        infos = self.supervisor.processes() if self.supervisor.answers() else {}
        return [
            state_of(program, infos.get(program.name, {}), self.folder)
            for program in programs(self.spec, self.folder)
        ]

    def _word(self) -> str:
        if not self.record.complete:
            return "starting" if processes.alive(self.record.starter) else "broken"
        return "running" if self.supervisor.answers() else "broken"

    def _must_run(self) -> None:
        if not self.record.complete and not processes.alive(self.record.starter):
            raise LabError(
                f"lab {self.name} was left unfinished; `sdnctl lab down --name {self.name}` removes what is left"
            )


def labs() -> list[Lab]:
    """All labs on this machine, whatever their state."""
    return [Lab(name) for name in names()]


def _terminal() -> dict[str, str]:
    return {name: os.environ[name] for name in ("TERM", "COLUMNS", "LINES") if name in os.environ}


__all__ = ["Lab", "LabError", "LabSpec", "LabState", "MachineState", "PodState", "labs"]
