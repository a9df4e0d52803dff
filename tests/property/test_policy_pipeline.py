# SPDX-License-Identifier: Apache-2.0
"""What the flows of policies do with a connection is what the evaluator says of it: for every packet that goes the way
on which the connection began, from the pod's port to the other pod's, through one switch or two.

``SDN_POLICY_CASES`` sets how many connections are asked about (default 10,000). A case that fails is written out in
test_policy_regressions.py, beside others that are easily got wrong.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from hypothesis import HealthCheck, given, settings

from sdn.pipeline.fields import IPPROTO_TCP
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import Match
from sdn.pipeline.registers import ANSWERER_OFFSET, OPENER_OFFSET, Mark
from sdn.policy.cells import GuardKey
from sdn.policy.evaluator import evaluate
from sdn.policy.values import PolicyPod
from sdn.policy.verdict import Connection
from sdn.simulator.conjunction import is_conjunctive
from sdn.simulator.conntrack import ESTABLISHED, INVALID, NEW, REPLY
from tests.property.policy_clusters import PolicyCase, policy_clusters
from tests.property.policy_network import Network

CONNECTIONS_EACH = 40
CASES = int(os.environ.get("SDN_POLICY_CASES", "10000"))
_ACK = 0x10
FORMER_PORT = 0x4000


def examples(share: int = 1) -> settings:
    """So many examples that the share of :data:`CASES` is reached."""
    return settings(
        max_examples=max(1, CASES // share // CONNECTIONS_EACH + 1),
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def of_pods(case: PolicyCase) -> list[Connection]:
    """The connections that have a pod at one end: no switch sees others."""
    return [
        one
        for one in case.connections
        if isinstance(one.source, PolicyPod) or isinstance(one.destination, PolicyPod)
    ]


def explanation(network: Network, connection: Connection, state: int = NEW, **changes: int) -> str:
    """What the evaluator says, and what each switch did."""
    verdict = evaluate(network.cluster, connection)
    ways = "\n".join(str(passage.journey) for passage in network.passages(connection, state, **changes))
    return f"{connection}: {verdict.describe()}\n{ways}"


@examples()
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_a_connection_gets_through_exactly_when_the_evaluator_allows_it(case: PolicyCase) -> None:
    network = Network(case.cluster)
    for connection in of_pods(case):
        expected = evaluate(case.cluster, connection).allowed
        assert network.allows(connection) == expected, explanation(network, connection)
        if expected and isinstance(connection.destination, PolicyPod):
            *_, last = network.passages(connection)
            ports = (*last.journey.ports,)
            wanted = connection.destination.ofport
            itself = connection.source == connection.destination
            assert itself or [port for port in ports if port < 0xFF00] == [wanted], explanation(
                network, connection
            )


@examples(4)
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_later_packets_of_a_connection_meet_what_policies_say_now(case: PolicyCase) -> None:
    network = Network(case.cluster)
    for connection in of_pods(case):
        more = {"tcp_flags": _ACK} if connection.protocol == IPPROTO_TCP else {}
        expected = evaluate(case.cluster, connection).allowed
        for mark in (0, Mark.DENIED):
            assert network.allows(connection, ESTABLISHED, mark, **more) == expected, explanation(
                network, connection, ESTABLISHED
            )


@examples(4)
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_answers_pass_unless_their_connection_is_marked_as_denied(case: PolicyCase) -> None:
    network = Network(case.cluster)
    for connection in of_pods(case):
        if not isinstance(connection.source, PolicyPod):
            continue
        assert network.allows(connection, REPLY, 0), explanation(network, connection, REPLY)
        first = next(network.passages(connection, REPLY, Mark.DENIED))
        assert first.journey.dropped, str(first.journey)


@examples(4)
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_a_former_pods_connection_passes_as_policies_say_and_its_answers_never(case: PolicyCase) -> None:
    network = Network(case.cluster)
    for connection in of_pods(case):
        ends = [
            (end, offset)
            for end, offset in (
                (connection.source, ANSWERER_OFFSET),
                (connection.destination, OPENER_OFFSET),
            )
            if isinstance(end, PolicyPod)
        ]
        for end, offset in ends:
            own, former = end.ofport << offset, (end.ofport ^ 0x4000) << offset
            assert network.allows(connection, REPLY, label=own), explanation(network, connection, REPLY)
            *_, last = network.passages(connection, REPLY, label=former)
            assert last.journey.dropped, str(last.journey)
        expected = evaluate(case.cluster, connection).allowed
        former = FORMER_PORT << OPENER_OFFSET | FORMER_PORT << ANSWERER_OFFSET
        for state in (NEW, ESTABLISHED):
            more = {"tcp_flags": _ACK} if state != NEW and connection.protocol == IPPROTO_TCP else {}
            assert network.allows(connection, state, label=former, **more) == expected, explanation(
                network, connection, state
            )


@examples(4)
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_a_pod_with_policies_takes_no_packet_of_no_connection(case: PolicyCase) -> None:
    network = Network(case.cluster)
    for connection in of_pods(case):
        guarded = any(
            GuardKey(end.ofport) in network.engine.cells(end.node)
            for end in (connection.source, connection.destination)
            if isinstance(end, PolicyPod)
        )
        exempt = connection.source == connection.destination or not isinstance(connection.source, PolicyPod)
        if exempt:
            continue
        invalid = network.allows(connection, INVALID)
        assert not (guarded and invalid), explanation(network, connection, INVALID)
        if connection.protocol == IPPROTO_TCP:
            middle = network.allows(connection, NEW, tcp_flags=_ACK)
            assert middle == (not guarded), explanation(network, connection, tcp_flags=_ACK)


@examples(4)
@given(case=policy_clusters(connections=CONNECTIONS_EACH))
def test_flows_of_one_priority_never_compete_and_none_is_there_twice(case: PolicyCase) -> None:
    network = Network(case.cluster)
    for node in case.cluster.nodes:
        flows = network.flows(node.name)
        assert len({flow.key for flow in flows}) == len(flows)
        rivals = [f"{one.key[:2]}: [{one.match}] and [{other.match}]" for one, other in competing(flows)]
        assert rivals == []


def competing(flows: Iterable[Flow]) -> Iterator[tuple[Flow, Flow]]:
    """Flows of one table and one priority that would both take some packet: which of them does is not defined.
    Conjunctive ones take none themselves.
    """
    groups: dict[tuple[int, int], list[tuple[Flow, dict[str, tuple[int, int]]]]] = defaultdict(list)
    for flow in flows:
        if not is_conjunctive(flow):
            groups[flow.table, flow.priority].append((flow, bits(flow.match)))
    for group in groups.values():
        for (one, wanted), (other, others) in combinations(group, 2):
            if all(
                (wanted[name][0] ^ others[name][0]) & wanted[name][1] & others[name][1] == 0
                for name in wanted.keys() & others.keys()
            ):
                yield one, other


def bits(match: Match) -> dict[str, tuple[int, int]]:
    """By field the value, and the bits of it that count."""
    return {field.name: (value, field.all_ones if mask is None else mask) for field, value, mask in match}
