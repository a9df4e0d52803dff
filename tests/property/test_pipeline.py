# SPDX-License-Identifier: Apache-2.0
"""The compiler, over random clusters: no two flows of one table and priority can both match a packet.

Where matches of one priority overlap, OpenFlow leaves open which wins (section 5.3); where they do not, the
order in which flows are written cannot matter.
"""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from sdn.pipeline import compiler
from sdn.pipeline.flow import Flow
from sdn.pipeline.topology import Address, LocalNode, PodPort, Range, RemoteNode


def _ranges(index: int, families: frozenset[int]) -> tuple[Range, ...]:
    texts = {4: f"10.244.{index}.0/24", 6: f"fd00:10:244:{index:x}::/64"}
    return tuple(Range.parse(texts[version]) for version in sorted(families))


def _addresses(index: int, families: frozenset[int]) -> tuple[Address, ...]:
    texts = {4: f"172.30.0.{index}", 6: f"fd00:30::{index:x}"}
    return tuple(Address.parse(texts[version]) for version in sorted(families))


@st.composite
def clusters(draw: st.DrawFn) -> tuple[LocalNode, list[PodPort], list[RemoteNode]]:
    """A node, its pods and the other nodes, in one or both families, over a v4 or v6 underlay."""
    families = draw(st.sampled_from([frozenset({4}), frozenset({6}), frozenset({4, 6})]))
    underlay = draw(st.sampled_from([frozenset({4}), frozenset({6}), frozenset({4, 6})]))
    indexes = draw(st.lists(st.integers(1, 250), min_size=1, max_size=5, unique=True))
    local_index, *peer_indexes = indexes
    local = LocalNode(
        f"node-{local_index}",
        _ranges(local_index, families),
        _addresses(local_index, underlay),
        _addresses(local_index, underlay)[0],
    )
    hosts = draw(st.lists(st.integers(2, 254), max_size=6, unique=True))
    pods = [
        PodPort(
            "default",
            f"pod-{host}",
            f"c{host}",
            "eth0",
            16 + place,
            0x0A5800000000 | local_index << 8 | host,
            local.pod_ranges[0].network + host if 4 in families else None,
            local.pod_ranges[-1].network + host if 6 in families else None,
        )
        for place, host in enumerate(hosts)
    ]
    peers = [
        RemoteNode(f"node-{i}", _ranges(i, families), _addresses(i, underlay), _addresses(i, underlay)[0])
        for i in peer_indexes
    ]
    return local, pods, peers


def _overlap(one: Flow, other: Flow) -> bool:
    """Whether some packet matches both: no field has bits that both fix, differently."""
    others = {field.name: (value, mask) for field, value, mask in other.match}
    for field, value, mask in one.match:
        if field.name in others:
            other_value, other_mask = others[field.name]
            common = (field.all_ones if mask is None else mask) & (
                field.all_ones if other_mask is None else other_mask
            )
            if (value ^ other_value) & common:
                return False
    return True


@given(clusters())
def test_no_two_flows_of_one_priority_overlap(
    cluster: tuple[LocalNode, list[PodPort], list[RemoteNode]],
) -> None:
    by_place: dict[tuple[int, int], list[Flow]] = {}
    for flow in compiler.switch_flows(*cluster):
        by_place.setdefault((flow.table, flow.priority), []).append(flow)
    for flows in by_place.values():
        for one, other in combinations(flows, 2):
            assert not _overlap(one, other), (str(one.match), str(other.match))


@given(clusters())
def test_each_object_owns_its_flows_alone(
    cluster: tuple[LocalNode, list[PodPort], list[RemoteNode]],
) -> None:
    local, pods, peers = cluster
    parts = [
        compiler.node_flows(local),
        *(compiler.pod_flows(local, pod) for pod in pods),
        *(compiler.peer_flows(peer) for peer in peers),
    ]
    keys = [flow.key for part in parts for flow in part]
    assert len(keys) == len(set(keys))
    for part in parts:
        assert len({flow.owner for flow in part}) == 1
