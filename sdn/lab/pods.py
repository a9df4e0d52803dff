# SPDX-License-Identifier: Apache-2.0
"""Pods, made and removed as a container runtime does it: a network namespace, then the CNI plugin is executed.

The order of calls is containerd's: ADD once; after a failed ADD one DEL, then the namespace goes, and the kubelet tries
again with a new container; at the end DEL, the namespace goes, and DEL again with an empty CNI_NETNS.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import subprocess
import time
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from sdn.lab import namespaces, trees
from sdn.lab.command import environment
from sdn.lab.errors import CniError, LabError
from sdn.lab.preflight import plugin
from sdn.lab.programs import agent_socket
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder, PodRecord
from sdn.lab.waiting import patience

CNI_VERSION = "1.1.0"
NETWORK = "sdn"
INTERFACE = "eth0"
#: CNI code "try again later": the one failure that is worth a new attempt (specification, section 5, "Error").
TRY_AGAIN = 11
_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def add(
    folder: Folder,
    spec: LabSpec,
    name: str,
    namespace: str = "default",
    node: str | None = None,
    labels: Mapping[str, str] | None = None,
    retry_seconds: float = 30,
) -> PodRecord:
    """Make a pod; on the node with the fewest pods if none is named.

    While the plugin says "try again later", new attempts are made for `retry_seconds`. CniError if it refuses;
    nothing is left of the pod then.
    """
    if not _SUBDOMAIN.fullmatch(name) or len(name) > 253:
        raise LabError(
            f"pod name {name!r} is no DNS subdomain (RFC 1123): lower-case letters, digits, '-' and '.'"
        )
    if not _LABEL_NAME.fullmatch(namespace):
        raise LabError(
            f"namespace {namespace!r} is no DNS label (RFC 1123): 1 to 63 lower-case letters, digits and '-'"
        )
    if node is None:
        count = {machine.name: 0 for machine in spec.node_machines}
        for pod in folder.pods():
            count[pod.node] = count.get(pod.node, 0) + 1
        node = min(spec.node_machines, key=lambda machine: count[machine.name]).name
    spec.node(node)
    pod = PodRecord(
        name=name,
        namespace=namespace,
        uid=str(uuid.uuid4()),
        node=node,
        netns=_netns_name(spec, namespace, name),
        container_id=secrets.token_hex(32),
        labels=dict(labels or {}),
    )
    deadline = time.monotonic() + patience(retry_seconds)
    folder.add_pod(pod)
    while True:
        try:
            return _attempt(folder, spec, pod)
        except CniError as problem:
            if problem.code != TRY_AGAIN or time.monotonic() > deadline:
                folder.remove_pod(pod)
                raise
            time.sleep(0.5)
            pod = msgspec.structs.replace(pod, container_id=secrets.token_hex(32))
            folder.write_pod(pod)
        except BaseException:
            folder.remove_pod(pod)
            raise


def _attempt(folder: Folder, spec: LabSpec, pod: PodRecord) -> PodRecord:
    namespaces.add(pod.netns)
    try:
        result = execute(folder, spec, pod, "ADD")
        if resolution := resolv_conf(result.get("dns") or {}):
            namespaces.write_resolv_conf(pod.netns, resolution)
    except BaseException:
        # What the plugin made of it, it is told to remove; an agent that cannot be asked now finds out by itself.
        with contextlib.suppress(LabError):
            execute(folder, spec, pod, "DEL")
        namespaces.delete(pod.netns)
        raise
    made = _filled(pod, result)
    folder.write_pod(made)
    return made


def resolv_conf(dns: Mapping[str, Any]) -> str:
    """The `dns` of a CNI result as a runtime writes it for the pod's containers; empty: there is none."""
    if not dns.get("nameservers"):
        return ""
    lines = [f"nameserver {address}" for address in dns["nameservers"]]
    lines += [f"{key} {' '.join(dns[key])}" for key in ("search", "options") if dns.get(key)]
    return "\n".join(lines) + "\n"


def delete(folder: Folder, spec: LabSpec, pod: PodRecord, retry_seconds: float = 30) -> None:
    """Remove a pod. While the plugin says "try again later", DEL is repeated, for `retry_seconds`; then CniError."""
    deadline = time.monotonic() + patience(retry_seconds)
    while True:
        try:
            execute(folder, spec, pod, "DEL")
            namespaces.delete(pod.netns)
            execute(folder, spec, pod, "DEL", netns="")
        except CniError as problem:
            if problem.code != TRY_AGAIN or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            folder.remove_pod(pod)
            return


def execute(
    folder: Folder,
    spec: LabSpec,
    pod: PodRecord,
    verb: str,
    *,
    netns: str | None = None,
    config: bytes | None = None,
    previous: Mapping[str, Any] | None = None,
    arguments: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Execute the plugin once, as the runtime on the pod's node would, and give what it answers.

    `netns` replaces CNI_NETNS, `config` what stands on stdin, `arguments` single CNI_* variables. CniError if it
    answers with an error; LabError if it answers with what is no answer.
    """
    executable = trees.plugin(folder) if trees.PLUGIN in spec.trees else plugin()
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": pod.container_id,
        "CNI_NETNS": str(namespaces.path(pod.netns)) if netns is None else netns,
        "CNI_IFNAME": INTERFACE,
        "CNI_ARGS": ";".join(
            (
                "IgnoreUnknown=1",
                f"K8S_POD_NAMESPACE={pod.namespace}",
                f"K8S_POD_NAME={pod.name}",
                f"K8S_POD_INFRA_CONTAINER_ID={pod.container_id}",
                f"K8S_POD_UID={pod.uid}",
            )
        ),
        "CNI_PATH": str(executable.parent),
        **(arguments or {}),
    }
    stdin = network_configuration(folder, pod, previous) if config is None else config
    command = ["ip", "netns", "exec", spec.node(pod.node).netns, str(executable)]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=patience(120),
            env=environment(variables),
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"the CNI plugin did not answer {verb} within {patience(120):.0f} s") from None
    try:
        answer = msgspec.json.decode(done.stdout) if done.stdout.strip() else {}
    except msgspec.DecodeError:
        answer = None
    if not isinstance(answer, dict) or (done.returncode != 0 and "code" not in answer):
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise LabError(
            f"`{shlex.join(command)}` ended with {done.returncode} and no CNI answer: {said[-500:]!r}"
        )
    if done.returncode != 0:
        raise CniError(int(answer["code"]), str(answer.get("msg", "")), str(answer.get("details", "")))
    return answer


def network_configuration(folder: Folder, pod: PodRecord, previous: Mapping[str, Any] | None = None) -> bytes:
    """What the runtime writes to the plugin's standard input."""
    configuration: dict[str, Any] = {
        "cniVersion": CNI_VERSION,
        "name": NETWORK,
        "type": "sdn-cni",
        "agentSocket": str(agent_socket(folder, pod.node)),
    }
    if pod.labels:
        labels = [{"key": key, "value": value} for key, value in sorted(pod.labels.items())]
        configuration["args"] = {"cni": {"labels": labels}}
    if previous is not None:
        configuration["prevResult"] = previous
    return msgspec.json.encode(configuration)


def _filled(pod: PodRecord, result: Mapping[str, Any]) -> PodRecord:
    """The pod with what the plugin answered to ADD."""
    inside = [i for i in result.get("interfaces", []) if i.get("sandbox")]
    if not inside or not result.get("ips"):
        raise LabError(f"the CNI plugin's answer names no interface in the pod or no address: {result}")
    return msgspec.structs.replace(
        pod,
        interface=str(inside[0].get("name", INTERFACE)),
        mac=str(inside[0].get("mac", "")),
        mtu=int(inside[0].get("mtu", 0)),
        addresses=tuple(str(ip["address"]).partition("/")[0] for ip in result["ips"]),
    )


def _netns_name(spec: LabSpec, namespace: str, name: str) -> str:
    """`LAB-pod-NAMESPACE-NAME`, if that is free and a file's name; else with something random at its end."""
    plain = f"{spec.name}-pod-{namespace}-{name}"
    if len(plain) <= 200 and not namespaces.exists(plain):
        return plain
    return f"{plain[:200]}-{secrets.token_hex(4)}"
