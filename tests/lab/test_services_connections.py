# SPDX-License-Identifier: Apache-2.0
"""Connections that exist while a Service, its endpoints or the daemons change; clients that stay with an endpoint."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from sdn.lab.waiting import wait_until
from tests.lab import service_objects as objects
from tests.lab.service_clients import Conversation
from tests.lab.service_lab import EACH, FAMILIES, TRANSPORTS, ServiceLab, serving

SOURCE_PORT = 20777


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("connections") as found:
        yield found


@pytest.fixture(autouse=True)
def all_ready(cluster: ServiceLab) -> Iterator[None]:
    yield
    objects.apply(cluster.lab, *(cluster.told(f"web-{number}") for number in (1, 2, 3)))
    objects.settle(cluster.lab)


def eventually(ask: Callable[[], str], wanted: str, seconds: float = 10) -> None:
    """Ask until `wanted` answers; a datagram may meet a change that is under way."""

    def holds() -> bool:
        try:
            return ask() == wanted
        except (TimeoutError, ConnectionError):
            return False

    wait_until(holds, f"an answer of {wanted}", seconds)


def name_of(conversation: Conversation) -> str:
    return str(conversation.ask()["name"])


# Stale datagrams.


@pytest.mark.parametrize("client", ["client-1", "node-1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_of_one_socket_leave_an_endpoint_that_is_not_ready_any_more(
    cluster: ServiceLab, family: str, client: str
) -> None:
    """One source port that never rests, so that its tracked connection never ends by itself."""
    cluster.ready("web-3", False)
    cluster.ready("web-1", False)
    with cluster.service("dns", [objects.port(53, 8080, "UDP")], {"app": "web"}) as name:
        with cluster.converse(client, cluster.cluster_ip(name, family), 53, "udp", SOURCE_PORT) as socket:
            assert [name_of(socket) for _ in range(3)] == ["web-2"] * 3
            cluster.ready("web-3")
            # What exists stays where it is.
            assert [name_of(socket) for _ in range(3)] == ["web-2"] * 3
            cluster.ready("web-2", False)
            assert [name_of(socket) for _ in range(3)] == ["web-3"] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_of_one_socket_leave_a_pod_that_is_gone(cluster: ServiceLab, family: str) -> None:
    cluster.add("brief", "node-2", {"app": "brief"})
    with cluster.service("brief", [objects.port(53, 8080, "UDP")], {"app": "brief"}) as name:
        with cluster.converse("client-1", cluster.cluster_ip(name, family), 53, "udp", SOURCE_PORT) as socket:
            assert name_of(socket) == "brief"
            cluster.add("next", "node-3", {"app": "brief"})
            try:
                cluster.remove("brief")
                objects.settle(cluster.lab)
                eventually(lambda: name_of(socket), "next")
            finally:
                cluster.remove("next")


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_find_the_first_endpoint_that_comes(cluster: ServiceLab, family: str) -> None:
    """Refused while there was none; no memory of that remains."""
    with cluster.service("later", [objects.port(53, 8080, "UDP")], {"app": "later"}) as name:
        with cluster.converse("client-1", cluster.cluster_ip(name, family), 53, "udp", SOURCE_PORT) as socket:
            with pytest.raises(ConnectionRefusedError):
                socket.ask()
            cluster.add("late", "node-2", {"app": "later"})
            try:
                objects.settle(cluster.lab)
                eventually(lambda: name_of(socket), "late")
            finally:
                cluster.remove("late")


def test_the_same_datagrams_to_a_node_port_from_outside_move_too(cluster: ServiceLab) -> None:
    cluster.ready("web-3", False)
    cluster.ready("web-1", False)
    with cluster.service("dns", [objects.port(53, 8080, "UDP")], {"app": "web"}, type="NodePort") as name:
        port = objects.node_port(cluster.lab, name, "UDP")
        address = cluster.lab.spec.node("node-1").ipv4
        cluster.wait_for("outside", address, port, "udp")
        with cluster.converse("outside", address, port, "udp", SOURCE_PORT) as socket:
            assert name_of(socket) == "web-2"
            cluster.ready("web-3")
            cluster.ready("web-2", False)
            assert [name_of(socket) for _ in range(3)] == ["web-3"] * 3


# Established connections.


@pytest.mark.parametrize("family", FAMILIES)
def test_an_established_connection_goes_on_when_its_endpoint_leaves_the_service(
    cluster: ServiceLab, family: str
) -> None:
    with cluster.service("web", objects.both(80, 8080), {"name": "web-2"}) as name:
        with cluster.converse("client-1", cluster.cluster_ip(name, family)) as connection:
            assert name_of(connection) == "web-2"
            cluster.ready("web-2", False)
            assert [name_of(connection) for _ in range(5)] == ["web-2"] * 5
            answers = cluster.ask("client-1", cluster.cluster_ip(name, family), count=3)
            assert {answer.outcome for answer in answers} == {"refused"}


@pytest.mark.parametrize("client", ["client-1", "client-2"])
@pytest.mark.parametrize(*EACH)
def test_two_services_with_one_endpoint_can_be_asked_from_the_same_port(
    cluster: ServiceLab, family: str, transport: str, client: str
) -> None:
    """What the endpoint would see of both connections is the same, unless one gets another source port."""
    ports = objects.both(80, 8080)
    with cluster.service("one", ports, {"name": "web-1"}), cluster.service("two", ports, {"name": "web-1"}):
        first, second = (cluster.cluster_ip(name, family) for name in ("one", "two"))
        with cluster.converse(client, first, 80, transport, SOURCE_PORT) as one:
            assert name_of(one) == "web-1"
            with cluster.converse(client, second, 80, transport, SOURCE_PORT) as two:
                assert [name_of(two), name_of(one)] * 3 == ["web-1"] * 6


def conversations(cluster: ServiceLab, service: str) -> list[Conversation]:
    """From pods, nodes and outside, in all families and transports, by the Service's address and by a node's port."""
    found = []
    node = cluster.lab.spec.node("node-1")
    for family in FAMILIES:
        for transport in TRANSPORTS:
            for client in ("client-1", "client-2", "node-1", "node-2"):
                found += [
                    cluster.converse(client, cluster.cluster_ip(service, family), 80, transport)
                    for _ in (1, 2)
                ]
            port = objects.node_port(cluster.lab, service, transport)
            address = node.ipv4 if family == "IPv4" else node.ipv6
            cluster.wait_for("outside", address, port, transport)
            found.append(cluster.converse("outside", address, port, transport))
    return found


@pytest.mark.parametrize(
    "names",
    [["controller-1"], ["node-1/agent"], ["controller-1", "node-1/agent", "node-2/agent"]],
    ids="+".join,
)
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_connections_stay_where_they_are_when_daemons_come_again(
    cluster: ServiceLab, names: list[str], how: str
) -> None:
    with cluster.service("web", objects.both(80, 8080), {"app": "web"}, type="NodePort") as name:
        held = conversations(cluster, name)
        try:
            before = [name_of(one) for one in held]
            assert set(before) == {"web-1", "web-2", "web-3"}
            for process in names:
                if how == "restart":
                    cluster.lab.restart(process)
                else:
                    cluster.lab.wait_restarted(process, cluster.lab.kill(process))
                assert [name_of(one) for one in held] == before
            cluster.lab.wait_ready()
            objects.settle(cluster.lab)
            assert [name_of(one) for one in held] == before
        finally:
            for one in held:
                one.close()
        # And new ones find all endpoints.
        address = cluster.cluster_ip(name)
        assert set(cluster.answerers("client-1", address)) == {"web-1", "web-2", "web-3"}


def test_a_change_while_the_controller_is_away_is_made_up_for(cluster: ServiceLab) -> None:
    """Datagrams, too, leave an endpoint that went while nobody could tell the switch."""
    cluster.add("brief", "node-2", {"app": "brief"})
    cluster.add("stays", "node-3", {"app": "brief"})
    try:
        with cluster.service("brief", [objects.port(53, 8080, "UDP")], {"app": "brief"}) as name:
            address = cluster.cluster_ip(name)
            with cluster.converse("client-1", address, 53, "udp") as first:
                sockets = [first, *(cluster.converse("client-1", address, 53, "udp") for _ in range(15))]
                assert set(map(name_of, sockets)) == {"brief", "stays"}
                cluster.lab.stop("controller-1")
                try:
                    cluster.remove("brief")
                finally:
                    cluster.lab.start("controller-1")
                cluster.lab.wait_ready()
                objects.settle(cluster.lab)
                for socket in sockets:
                    eventually(lambda socket=socket: name_of(socket), "stays")  # type: ignore[misc]
                    socket.close()
    finally:
        for name in ("brief", "stays"):
            if name in [pod.name for pod in cluster.lab.pods()]:
                cluster.remove(name)


# Session affinity.

CLIENTS = ("client-1", "client-2", "client-3", "web-1", "web-2", "web-3")
AFFINITY = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 4}}}


@pytest.mark.parametrize(*EACH)
def test_a_client_stays_with_its_endpoint_and_clients_are_spread(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    with cluster.service("sticky", objects.both(80, 8080), {"app": "web"}, **AFFINITY) as name:
        address = cluster.cluster_ip(name, family)
        homes = set()
        for client in (*CLIENTS, "node-1", "node-2", "node-3"):
            # The first one alone: requests that are under way at the same time may each be the first.
            cluster.answerers(client, address, transport=transport, count=1)
            found = cluster.answerers(client, address, transport=transport, count=20)
            assert len(found) == 1, f"{client}: {found}"
            homes |= set(found)
        assert len(homes) > 1, homes


def test_affinity_ends_with_its_time_out_and_lasts_while_the_client_comes_again(cluster: ServiceLab) -> None:
    def homes(addresses: dict[str, str]) -> dict[str, set[str]]:
        """Who answers all clients, by family."""
        return {
            family: {
                name for client in CLIENTS for name in cluster.answerers(client, addresses[family], count=1)
            }
            for family in FAMILIES
        }

    first = {family: {"web-1"} for family in FAMILIES}
    cluster.ready("web-2", False)
    cluster.ready("web-3", False)
    with cluster.service("sticky", objects.both(80, 8080), {"app": "web"}, **AFFINITY) as name:
        addresses = {family: cluster.cluster_ip(name, family) for family in FAMILIES}
        assert homes(addresses) == first
        cluster.ready("web-2")
        cluster.ready("web-3")
        for _ in range(4):
            assert homes(addresses) == first, "it ended although each client came in time"
            time.sleep(2)
        time.sleep(4)
        # Six clients, three endpoints: that all choose the old one again is next to impossible.
        for family, found in homes(addresses).items():
            assert found != {"web-1"}, family


@pytest.mark.parametrize(*EACH)
def test_a_client_moves_when_its_endpoint_goes_and_stays_with_the_next(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    with cluster.service(
        "sticky", objects.both(80, 8080), {"app": "web"}, sessionAffinity="ClientIP"
    ) as name:
        address = cluster.cluster_ip(name, family)
        home = next(iter(cluster.answerers("client-1", address, transport=transport, count=1)))
        assert set(cluster.answerers("client-1", address, transport=transport)) == {home}
        cluster.ready(home, False)
        new = next(iter(cluster.answerers("client-1", address, transport=transport, count=1)))
        assert new != home
        assert set(cluster.answerers("client-1", address, transport=transport)) == {new}


def test_affinity_outlasts_a_restart_of_controller_and_agents(cluster: ServiceLab) -> None:
    with cluster.service(
        "sticky", objects.both(80, 8080), {"app": "web"}, sessionAffinity="ClientIP"
    ) as name:
        address = cluster.cluster_ip(name)

        def homes() -> Counter[tuple[str, str]]:
            return Counter(
                (client, home) for client in CLIENTS for home in cluster.answerers(client, address, count=2)
            )

        before = homes()
        for process in ("controller-1", "node-1/agent", "node-2/agent", "node-3/agent"):
            cluster.lab.restart(process)
        cluster.lab.wait_ready()
        objects.settle(cluster.lab)
        assert homes() == before
