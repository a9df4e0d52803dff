# SPDX-License-Identifier: Apache-2.0
"""`sdnctl describe policy`: a policy with its pods, what its rules come to and have counted, the flows behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sdn.cli import kinds, output, policies, sections, switches
from sdn.cli.client import ANSWER_SECONDS, inspection
from sdn.cli.errors import CommandError, UsageError
from sdn.cli.objects import as_document
from sdn.cli.output import NONE, joined, labels

if TYPE_CHECKING:
    from sdn.v1.inspection_pb2 import DescribePolicyResponse, PolicyCount
    from sdn.v1.inspection_pb2_grpc import InspectionStub

_OF_NAMESPACES, _OF_CLUSTER, _EITHER = "NetworkPolicy", "ClusterNetworkPolicy", "Policy"
#: What can be described here.
KINDS = (_OF_NAMESPACES, _OF_CLUSTER, _EITHER)
_DIRECTIONS = ("ingress", "egress")


def fetch(kind: kinds.Kind, namespace: str, name: str, node: str) -> dict[str, Any]:
    """The description as a document. A policy of either kind is looked for in the namespace first."""
    from sdn.v1 import inspection_pb2

    if kind.kind == _OF_CLUSTER and namespace:
        raise UsageError(f"{kind.names[0]} are in no namespace")
    space = namespace or "default"
    with inspection() as stub:
        wanted = kind.kind
        if wanted == _EITHER:
            wanted = _OF_NAMESPACES if _exists(stub, _OF_NAMESPACES, space, name) else _OF_CLUSTER
            if wanted == _OF_CLUSTER and not _exists(stub, _OF_CLUSTER, "", name):
                raise CommandError(
                    f"there is no NetworkPolicy {name!r} in namespace {space}, and no ClusterNetworkPolicy {name!r}"
                )
        request = inspection_pb2.DescribePolicyRequest(
            kind=wanted, namespace="" if wanted == _OF_CLUSTER else space, name=name, node=node
        )
        return _found(stub.DescribePolicy(request, timeout=ANSWER_SECONDS))


def _exists(stub: InspectionStub, kind: str, namespace: str, name: str) -> bool:
    import grpc

    from sdn.v1 import inspection_pb2

    try:
        request = inspection_pb2.GetRequest(kind=kind, namespace=namespace, name=name)
        return bool(stub.Get(request, timeout=ANSWER_SECONDS).objects)
    except grpc.RpcError as problem:
        if problem.code() == grpc.StatusCode.NOT_FOUND:
            return False
        raise


def _found(answer: DescribePolicyResponse) -> dict[str, Any]:
    return {
        "policy": as_document(answer.policy),
        "tier": answer.tier,
        "staged": answer.staged,
        "audit": list(answer.audit),
        "pods": [switches.plain(pod) for pod in answer.pods],
        "pod_total": answer.pod_total,
        "rules": [{**switches.plain(rule), "count": _count(rule.count)} for rule in answer.rules],
        "isolation": [
            {
                "direction": one.direction,
                "denied": _count(one.denied),
                "shared_total": one.shared_total,
            }
            for one in answer.isolation
        ],
        "nodes": [
            {
                "node": node.node,
                "error": node.error,
                "pods": node.pods,
                # Not sorted by table: what counts comes first.
                "flows": [switches.flow_document(flow) for flow in node.flows],
                "flow_total": node.flow_total,
            }
            for node in answer.nodes
        ],
        "events": [as_document(event) for event in answer.events],
    }


def _count(count: PolicyCount) -> dict[str, int]:
    return {"connections": count.connections, "packets": count.packets, "bytes": count.bytes}


# As text.


def show(found: dict[str, Any]) -> None:
    """For eyes."""
    sections.properties(_lines(found))
    sections.table(
        "Pods",
        ("NAMESPACE", "NAME", "NODE", "ADDRESSES", "ISOLATED"),
        [_pod_row(pod) for pod in found["pods"]],
        found["pod_total"],
    )
    sections.table(
        "Rules",
        ("RULE", "ACTION", "PEERS", "PORTS", "CONNECTIONS", "PACKETS", "BYTES", "COUNTERS"),
        [row for direction in _DIRECTIONS for row in _rule_rows(found, direction)],
    )
    for rule in found["rules"]:
        if not rule["everybody"]:
            _show_peers(rule)
    for node in found["nodes"]:
        _show_node(node)
    sections.events(found["events"])


def _lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    policy = found["policy"]
    metadata = policy.get("metadata") or {}
    isolates = joined([one["direction"] for one in found["isolation"]])
    lines = [
        ("Kind", policy.get("kind")),
        ("Name", metadata.get("name")),
        ("Namespace", metadata.get("namespace")),
        ("Labels", labels(metadata.get("labels"))),
        ("Annotations", labels(metadata.get("annotations"))),
        ("Subject", policies.subject(policy)),
        ("Tier", found["tier"]),
        ("Priority", policies.priority(policy)),
        ("Isolates for", isolates),
        ("Staged", "not in force; counted and logged is what it would say" if found["staged"] else None),
        ("Audit", joined(found["audit"])),
    ]
    return [(title, str(value)) for title, value in lines if value not in (None, "", NONE)]


def _pod_row(pod: Mapping[str, Any]) -> list[str]:
    isolated = [
        f"{direction} by {number} {'policy' if number == 1 else 'policies'}"
        for direction in _DIRECTIONS
        if (number := pod[f"isolating_{direction}"])
    ]
    return [pod["namespace"], pod["name"], pod["node"], joined(pod["addresses"]), ", ".join(isolated) or NONE]


def _rule_rows(found: Mapping[str, Any], direction: str) -> list[list[str]]:
    """The rules of a direction; under them what isolation denies."""
    would = "would " if found["staged"] else ""
    rows = [
        [
            rule["rule"],
            f"{would}{rule['action']}",
            _peers(rule),
            ", ".join(map(_port, rule["ports"])) or "all traffic",
            *_counts(rule["count"]),
            _shared(rule["shared_total"]),
        ]
        for rule in found["rules"]
        if rule["direction"] == direction
    ]
    for one in found["isolation"]:
        if one["direction"] == direction:
            shared = _shared(one["shared_total"])
            rows.append(
                [direction, f"{would}deny", "all others", "all traffic", *_counts(one["denied"]), shared]
            )
    return rows


def _peers(rule: Mapping[str, Any]) -> str:
    """everybody; or 3 pods, 1 range, 2 nodes, 1 domain."""
    if rule["everybody"]:
        return "everybody"
    counts = (
        (rule["pod_total"], "pod"),
        (len(rule["networks"]), "range"),
        (rule["node_total"], "node"),
        (len(rule["domains"]), "domain"),
    )
    found = [f"{number} {word}{'' if number == 1 else 's'}" for number, word in counts if number]
    return ", ".join(found) or "nobody"


def _port(port: Mapping[str, Any]) -> str:
    """80/TCP, 8000-8080/UDP, all TCP, or sql = 5432/TCP."""
    protocol = port["protocol"]
    if port["name"]:
        more = port["resolved_total"] - len(port["resolved"])
        numbers = ",".join(port["resolved"]) + (f" and {more} more" if more else "")
        return f"{port['name']} = {numbers or 'no port'}"
    if (port["first"], port["last"]) == (0, 65535):
        return f"all {protocol}"
    numbers = str(port["first"]) if port["first"] == port["last"] else f"{port['first']}-{port['last']}"
    return f"{numbers}/{protocol}"


def _counts(count: Mapping[str, int]) -> list[str]:
    return [str(count["connections"]), str(count["packets"]), str(count["bytes"])]


def _shared(others: int) -> str:
    if not others:
        return "its own"
    return f"shared with {others} other {'policy' if others == 1 else 'policies'}"


def _show_peers(rule: Mapping[str, Any]) -> None:
    rows = [
        ["pod", f"{pod['namespace']}/{pod['name']}", pod["node"], joined(pod["addresses"])]
        for pod in rule["pods"]
    ]
    rows += [["range", _network(network), NONE, NONE] for network in rule["networks"]]
    rows += [["node", node["name"], node["name"], joined(node["addresses"])] for node in rule["nodes"]]
    for domain in rule["domains"]:
        more = domain["address_total"] - len(domain["addresses"])
        addresses = joined(domain["addresses"]) + (f" and {more} more" if more else "")
        rows.append(["domain", domain["pattern"], NONE, addresses])
    total = rule["pod_total"] + len(rule["networks"]) + rule["node_total"] + len(rule["domains"])
    sections.table(f"Peers of {rule['rule']}", ("KIND", "NAME", "NODE", "ADDRESSES"), rows, total)


def _network(network: Mapping[str, Any]) -> str:
    holes = f" except {','.join(network['exceptions'])}" if network["exceptions"] else ""
    return f"{network['cidr']}{holes}"


def _show_node(node: Mapping[str, Any]) -> None:
    flows: Sequence[dict[str, Any]] = node["flows"]
    pods = node["pods"]
    output.heading(f"Node {node['node']}: {pods} pod{'' if pods == 1 else 's'}, {sections.traffic(flows)}")
    if node["error"]:
        output.line(f"not all is known: {node['error']}")
    if flows:
        sections.flow_table(flows)
    if node["flow_total"] > len(flows):
        output.line(f"and {node['flow_total'] - len(flows)} more; --node {node['node']} shows more of them")
