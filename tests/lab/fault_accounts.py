# SPDX-License-Identifier: Apache-2.0
"""The accounts when all is healed: what the store has, what each controller knows, what each switch holds and does.

Nobody's word is taken for it alone: controllers that are started anew, and know nothing but the store, must find every
switch as they want it; what is no more must have left a switch as it was before it came; and packets are sent.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc

from sdn.lab.lab import Lab
from sdn.lab.programs import ETCD_CLIENT_PORT
from sdn.lab.waiting import wait_until
from sdn.pipeline.tables import SESSION_AFFINITY
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import accounts
from tests.lab import service_objects as objects
from tests.lab.fault_churn import SERVED, Churn
from tests.lab.fault_traffic import Steady
from tests.lab.service_clients import ask
from tests.lab.service_servers import Servers
from tests.lab.service_sockets import Request

Holdings = dict[str, list[str]]
_OFCTL = ("ovs-ofctl", "-O", "OpenFlow15", "--no-names")
_LEARNED = f"table={SESSION_AFFINITY.number},"
#: How supervisord tells of a process that ended and was not asked to.
_EXITED = re.compile(r"exited: (?P<name>\S+) \((?P<how>[^;)]*); not expected\)")
_EXPECTED_END = "terminated by SIGKILL"


def holdings(lab: Lab) -> Holdings:
    """Every flow, as far as it is not learned, and every group of each switch, without counters."""
    found = {}
    for node in lab.spec.node_machines:
        flows = _run(lab, node.name, *_OFCTL, "--no-stats", "dump-flows", "br-int").splitlines()
        groups = _run(lab, node.name, *_OFCTL, "dump-groups", "br-int")
        found[node.name] = sorted(
            [
                *(line.strip() for line in flows if "actions=" in line and _LEARNED not in line),
                *re.findall(r"group_id=.*", groups),
            ]
        )
    return found


def compared(before: Holdings, after: Holdings) -> list[str]:
    """One line for each node whose switch holds something else."""
    return [
        f"{node}: gone {sorted(set(before[node]) - set(after[node]))[:5]},"
        f" come {sorted(set(after[node]) - set(before[node]))[:5]}"
        for node in before
        if before[node] != after[node]
    ]


def settle(lab: Lab, seconds: float = 120) -> None:
    """Wait until every controller serves and is held for one that does, and all accounts of pods agree."""
    controllers = len(lab.spec.controller_machines)
    wait_until(lambda: len(lab.serving()) == controllers, "all controllers to serve", seconds)
    wait_until(lambda: not _down(lab), "no controller to be marked as down", seconds, every=0.5)
    accounts.wait_until_settled(lab, seconds)


def start_controllers_anew(lab: Lab) -> None:
    """All of them, so that none knows anything but what the store has; until they own every switch again."""
    names = [machine.name for machine in lab.spec.controller_machines]
    for name in names:
        lab.stop(name)
    for name in names:
        lab.start(name)
    lab.wait_ready()
    settle(lab)


def repaired(lab: Lab) -> list[str]:
    """What controllers have found to differ in switches since they were started."""
    found = []
    for node, switch in lab.switches().items():
        if switch.repaired:
            last = [f"{repair.kind} {repair.what}" for repair in switch.last_repairs]
            found.append(f"{node}: {switch.repaired} were repaired, among them {last}")
    return found


def unowned(lab: Lab) -> list[str]:
    """Flows and groups that belong to nobody, as each controller sees it, and counts that differ."""
    found: list[str] = []
    for controller in lab.serving():
        with grpc.insecure_channel(lab.server_of(controller)) as channel:
            stub = inspection_pb2_grpc.InspectionStub(channel)
            for node in lab.spec.node_machines:
                flows = [
                    flow
                    for part in stub.ListFlows(inspection_pb2.ListFlowsRequest(node=node.name), timeout=60)
                    for flow in part.flows
                ]
                groups = [
                    group
                    for part in stub.ListGroups(inspection_pb2.ListGroupsRequest(node=node.name), timeout=60)
                    for group in part.groups
                ]
                found += [
                    f"{controller}: nobody owns {node.name}'s flow {flow.table} {flow.match} -> {flow.actions}"
                    for flow in flows
                    if not flow.owner and flow.table_number != SESSION_AFFINITY.number
                ]
                found += [
                    f"{controller}: nobody owns {node.name}'s group {group.group_id} {group.buckets}"
                    for group in groups
                    if not group.owner
                ]
    for name, switch in lab.switches().items():
        for what, wanted, held in (
            ("flows", switch.desired_flows, switch.installed_flows),
            ("groups", switch.desired_groups, switch.installed_groups),
        ):
            if wanted != held:
                found.append(f"{name}: {held} {what} are installed, {wanted} wanted")
    return found


def of_store(lab: Lab, churn: Churn) -> list[str]:
    """Keys that the store should not have, or should."""
    pods = lab.folder.pods()
    steady = {f"only-{number}" for number in range(1, len(lab.spec.node_machines) + 1)}
    services = {*churn.services, *steady}
    nodes = [machine.name for machine in lab.spec.node_machines]
    wanted = {
        *(f"attachments/{pod.node}/{pod.container_id}/{pod.interface}" for pod in pods),
        *(f"objects/Service/default/{name}" for name in services),
        *(f"service-numbers/default/{name}" for name in services),
        *(
            f"load-balancer-addresses/default/{n}"
            for n, kind in churn.types.items()
            if kind == "LoadBalancer"
        ),
        *(f"objects/NetworkPolicy/default/{name}" for name in (*churn.grants, "friends-only")),
        *(f"controllers/{machine.name}" for machine in lab.spec.controller_machines),
        *(f"{kind}/{node}" for kind in ("nodes", "owners") for node in nodes),
    }
    held = {key for key in _keys(lab) if not key.startswith(("ranges/", "sequence"))}
    return [
        *(f"the store lacks {key}" for key in sorted(wanted - held)),
        *(f"the store still has {key}" for key in sorted(held - wanted)),
    ]


def _down(lab: Lab) -> list[str]:
    return [key for key in _keys(lab) if key.startswith("down/")]


def _keys(lab: Lab) -> list[str]:
    machine = lab.spec.store_machines[0]
    endpoint = f"{machine.ipv4}:{ETCD_CLIENT_PORT}"
    told = _run(
        lab, machine.name, "etcdctl", "--endpoints", endpoint, "get", "/sdn/", "--prefix", "--keys-only"
    )
    return [line.removeprefix("/sdn/") for line in told.split() if line]


def of_objects(lab: Lab, churn: Churn) -> Iterator[str]:
    """Declared objects that a controller does not know, or still knows."""
    steady = [f"only-{number}" for number in range(1, len(lab.spec.node_machines) + 1)]
    wanted = {
        "Service": {*churn.services, *steady, "kube-dns"},
        "NetworkPolicy": {*churn.grants, "friends-only"},
    }
    for controller in lab.serving():
        for kind, names in wanted.items():
            held = {document["metadata"]["name"] for document in accounts.objects(lab, kind, controller)}
            if held != names:
                yield f"{controller} knows {kind} {sorted(held)}, wanted are {sorted(names)}"


# Packets.


def probes(lab: Lab, churn: Churn, steady: Steady, servers: Servers) -> tuple[int, list[str]]:
    """Every pod asks every other one that comes and goes, and each Service is asked from each node: how many requests
    that were, and what was not as it should be.
    """
    pods = list(churn.pods.values())
    for pod in pods:
        servers.everywhere(pod.netns, pod.name, pod.addresses, [SERVED])
    try:
        objects.settle(lab, 60)
        asked: list[tuple[Request, str, set[str]]] = []
        for source in (*pods, *steady.open):
            for target in pods:
                if source is not target:
                    answers = {target.name} if churn.may_speak(source, target) else set()
                    asked += [
                        (request, f"{source.name} -> {target.name}", answers)
                        for address in target.addresses
                        for request in _requests(source.netns, address, SERVED, bool(answers))
                    ]
            for service in churn.services:
                ready = churn.endpoints(service)
                if source in steady.open:
                    asked += [
                        (request, f"{source.name} -> Service {service}", ready)
                        for family in ("IPv4", "IPv6")
                        for request in _requests(
                            source.netns, objects.cluster_ip(lab, service, family), 80, bool(ready)
                        )
                    ]
        found = ask(*(request for request, _, _ in asked))
    finally:
        servers.close(*(pod.name for pod in pods))
    wrong = []
    for (request, what, names), answer in zip(asked, found, strict=True):
        if answer.name not in names if names else answer.outcome == "answered":
            expected = ", ".join(sorted(names)) or "none"
            wrong.append(
                f"{what} {request.transport} {request.address}: {answer.outcome} {answer.name}, not {expected}"
            )
    return len(asked), wrong


def _requests(netns: str, address: str, port: int, answered: bool) -> list[Request]:
    """What is not to be answered is not waited for long."""
    timeout, attempts = (5.0, 3) if answered else (1.0, 1)
    return [Request(netns, t, address, port, timeout=timeout, attempts=attempts) for t in ("tcp", "udp")]


# Daemons.


def of_daemons(lab: Lab) -> list[str]:
    """Daemons that do not run, that ended by themselves at any time, or that complained of a defect."""
    found = [f"{state.name} is {state.state}" for state in lab.state().processes if state.state != "RUNNING"]
    told = (lab.folder.logs / "supervisord.log").read_text(encoding="utf-8", errors="replace")
    ends: dict[str, list[str]] = {}
    for match in _EXITED.finditer(told):
        # Whoever finds no place on his disk may end, and etcd does.
        if match["how"] != _EXPECTED_END and not match["name"].startswith("etcd-"):
            ends.setdefault(match["name"], []).append(match["how"])
    for name, how in ends.items():
        if len(how) > _without_store(lab, name):
            found.append(f"{name} ended by itself {len(how)} times: {', '.join(sorted(set(how)))}")
    for state in lab.state().processes:
        if not state.name.startswith("etcd-"):
            found += [f"{state.name}: {line}" for line in complaints(lab, state.name)]
    return found


def _without_store(lab: Lab, process: str) -> int:
    """How often a controller has ended because its store could not be asked when it was started; then it is started
    again, until it can.
    """
    if not process.startswith("controller-"):
        return 0
    lines = lab.log(process).read_text(encoding="utf-8", errors="replace").splitlines()
    return sum('"event":"cannot start"' in line and '"error":"setting store: ' in line for line in lines)


def complaints(lab: Lab, process: str) -> list[str]:
    """Lines of its log that tell of a defect: tracebacks, failed assertions, what Python could not do."""
    log = lab.log(process).read_text(encoding="utf-8", errors="replace")
    return [
        line[:2000]
        for line in log.splitlines()
        if "Traceback" in line or "assertion" in line or '"level":"error"' in line or "|EMER|" in line
    ]


def keep_logs(lab: Lab, folder: Path) -> Path:
    """A copy of all logs, and what each switch has counted, to be read when the lab is gone."""
    logs = Path(shutil.copytree(lab.folder.logs, folder, dirs_exist_ok=True))
    for node in lab.spec.node_machines:
        for what in ("coverage/show", "dpif-netdev/pmd-stats-show", "upcall/show"):
            told = lab.run(node.name, "ovs-appctl", "--timeout=10", what)
            (logs / f"{node.name}-{what.replace('/', '-')}").write_text(
                told.stdout + told.stderr, encoding="utf-8"
            )
    return logs


def _run(lab: Lab, target: str, *command: str) -> str:
    done = lab.run(target, *command)
    assert done.returncode == 0, f"{' '.join(command)} on {target}: {done.stderr}"
    return done.stdout
