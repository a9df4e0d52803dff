# SPDX-License-Identifier: Apache-2.0
"""The agent's view of Services: what each needs of its node, who is told of changes, and what outlives the agent."""

from __future__ import annotations

import ipaddress
import json
import socket
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from agent.nodesetup.facts import Assignment, Peer
from agent.nodesetup.frontends import Frontends, Health, NodePort, OwnAddress
from agent.services.cache import ServiceCache
from agent.services.connections import Destination, counted
from agent.services.gratuitous import frame
from agent.services.health import HealthServers, answer
from agent.services.table import Changes, Port, Service, ServiceTable, from_message
from agent.services.wanted import Surroundings, contribution, total
from agent.state import State
from sdn.v1 import controller_pb2 as messages
from tests.ports import unused_port

ip = ipaddress.ip_address
NODE = Surroundings(
    addresses=(ip("172.30.0.11"), ip("fd00:30::11")),
    switched=(ipaddress.ip_network("10.96.0.0/16"), ipaddress.ip_network("172.30.0.192/28")),
)
BOTH = (ip("10.96.0.5"), ip("fd00:10:96::5"))


def test_a_cluster_ip_needs_nothing_of_the_node() -> None:
    service = Service("default", "web", cluster_ips=BOTH, ports=(Port("", "TCP", 80),))
    assert contribution(service, NODE) == Frontends()


def test_a_node_port_is_one_of_each_family_that_the_service_has() -> None:
    ports = (Port("a", "TCP", 80, 30080), Port("b", "SCTP", 81, 30081), Port("c", "UDP", 82))
    only4 = Service("default", "web", "NodePort", cluster_ips=BOTH[:1], ports=ports)
    assert contribution(only4, NODE).node_ports == {NodePort(4, "tcp", 30080), NodePort(4, "sctp", 30081)}
    both = Service("default", "web", "NodePort", cluster_ips=BOTH, ports=ports)
    assert len(contribution(both, NODE).node_ports) == 4


def test_external_addresses_are_the_nodes_own_or_routed_or_in_a_range_that_is() -> None:
    service = Service(
        "default",
        "web",
        "LoadBalancer",
        cluster_ips=BOTH,
        external_ips=(ip("172.30.0.11"), ip("203.0.113.9")),
        load_balancer_ips=(ip("172.30.0.193"), ip("198.51.100.1")),
        ports=(Port("", "UDP", 53),),
        announce=True,
    )
    needs = contribution(service, NODE)
    assert needs.own_addresses == {OwnAddress(ip("172.30.0.11"), "udp", 53)}
    assert needs.routed == {ip("203.0.113.9"), ip("198.51.100.1")}
    assert needs.announced == {ip("172.30.0.193"), ip("198.51.100.1")}


@pytest.mark.parametrize(
    "service",
    [
        Service(
            "default", "web", "ExternalName", external_ips=(ip("203.0.113.9"),), external_name="a.example"
        ),
        Service("default", "web", external_ips=(ip("203.0.113.9"),), ports=(Port("", "TCP", 80, 30080),)),
    ],
    ids=["ExternalName", "headless"],
)
def test_what_has_no_cluster_ip_needs_nothing(service: Service) -> None:
    assert contribution(service, NODE) == Frontends()


def test_what_two_services_share_stays_with_the_second() -> None:
    needs = Frontends(routed=frozenset({ip("203.0.113.9")}), health={30999: Health("default", "a", 1)})
    shared = Frontends(routed=frozenset({ip("203.0.113.9")}))
    assert total([needs, shared]).routed == total([shared]).routed
    assert total([needs, shared]).health == needs.health
    assert total([]) == Frontends()


def test_subscribers_are_told_what_is_known_then_only_what_changes() -> None:
    table = ServiceTable()
    one, two = Service("default", "one"), Service("default", "two")
    table.apply([one])
    told: list[Changes] = []
    table.subscribe(told.append)
    table.apply([one])
    table.apply([two], [("default", "missing")])
    table.apply([], [], confirmed=True)
    table.apply([], [("default", "one")], confirmed=True)
    assert told == [
        Changes((one,)),
        Changes((two,)),
        Changes(confirmed=True),
        Changes((), (("default", "one"),), confirmed=True),
    ]


def state(name: str, **fields: object) -> messages.ServiceState:
    return messages.ServiceState(namespace="default", name=name, **fields)


def test_an_agent_goes_on_without_a_place_on_disk_for_its_services(tmp_path: Path) -> None:
    (tmp_path / "services.db").mkdir()
    cache = ServiceCache(tmp_path)
    cache.save([state("a")], [])
    assert [service.name for service in cache.load()] == ["a"]
    cache.close()


def test_services_on_disk_are_what_was_saved_last(tmp_path: Path) -> None:
    cache = ServiceCache(tmp_path)
    cache.save([state("a", type="ClusterIP"), state("b")], [])
    cache.save([state("a", type="NodePort")], [("default", "b"), ("default", "c")])
    cache.close()
    cache = ServiceCache(tmp_path)
    assert cache.load() == [from_message(state("a", type="NodePort"))]
    cache.save([state("bad", cluster_ips=["nowhere"])], [])
    assert [service.name for service in cache.load()] == ["a"]
    cache.close()


def test_endpoints_are_kept_where_a_name_stands_for_them() -> None:
    endpoint = messages.EndpointState(address="10.244.1.2", hostname="a", ports={"http": 8080})
    headless = from_message(state("a", endpoints=[endpoint]))
    assert headless.headless
    assert [(one.hostname, one.ports) for one in headless.endpoints] == [("a", {"http": 8080})]
    before = from_message(state("a", cluster_ips=["10.96.0.5"]))
    assert from_message(state("a", cluster_ips=["10.96.0.5"], endpoints=[endpoint])) == before


def test_a_broken_file_of_services_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "services.db").write_bytes(b"this is no database, and longer than a page's header" * 100)
    cache = ServiceCache(tmp_path)
    assert cache.load() == []
    cache.save([state("a")], [])
    assert len(cache.load()) == 1
    cache.close()


def test_what_an_agent_without_services_was_told_is_still_understood(tmp_path: Path) -> None:
    folder = State(tmp_path)
    old = {
        "pod_ranges": ["10.244.1.0/24"],
        "cluster_ranges": ["10.244.0.0/16"],
        "openflow_targets": ["tcp:172.30.0.101:6653"],
        "peers": [
            {"name": "n", "addresses": ["172.30.0.12"], "tunnel_address": "172.30.0.12", "tunnel_mac": ""}
        ],
    }
    folder.save("assignment", msgspec.Raw(json.dumps(old).encode()))
    assignment = folder.load("assignment", Assignment)
    folder.close()
    assert assignment is not None
    assert assignment.peers == [Peer("n", ["172.30.0.12"], "172.30.0.12", "")]
    assert assignment.switched() == []
    assert not assignment.serve_dns


@pytest.mark.parametrize(
    ("protocol", "port", "node_port"),
    [("QUIC", 80, 0), ("", 80, 0), ("tcp } ; flush ruleset", 80, 30080), ("TCP", 0, 0), ("UDP", 80, 70000)],
)
def test_a_port_that_the_node_would_refuse_is_its_services_problem_alone(
    protocol: str, port: int, node_port: int
) -> None:
    wrong = messages.ServicePortState(name="a", protocol=protocol, port=port, node_port=node_port)
    with pytest.raises(ValueError, match="is no port"):
        from_message(messages.ServiceState(namespace="default", name="a", ports=[wrong]))


def test_a_health_check_is_answered_as_kube_proxy_does() -> None:
    head, _, body = answer(Health("shop", "web", 3)).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"X-Load-Balancing-Endpoint-Weight: 3" in head
    assert body.decode() == (
        '{\n\t"service": {\n\t\t"namespace": "shop",\n\t\t"name": "web"\n\t},\n'
        '\t"localEndpoints": 3,\n\t"serviceProxyHealthy": true\n}'
    )
    assert answer(Health("shop", "web", 0)).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


def test_health_checks_are_answered_whatever_else_is_connected() -> None:
    port = unused_port()
    servers = HealthServers()
    servers.start()
    try:
        servers.serve([ip("127.0.0.1")], {port: Health("default", "a", 1)})
        with ExitStack() as opened:

            def connect() -> socket.socket:
                where = ("127.0.0.1", port)
                return opened.enter_context(socket.create_connection(where, timeout=60))

            silent = [connect() for _ in range(300)]
            checker = connect()
            checker.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert checker.recv(12) == b"HTTP/1.1 200"
            assert silent[0].recv(1) == b""
    finally:
        servers.close()


def test_an_announcement_claims_the_address_for_the_mac() -> None:
    mac = bytes.fromhex("0a0000000001")
    claim = frame(ip("192.0.2.1"), mac)
    # RFC 5227: a request, the address as sender and target, to everybody.
    assert claim.hex() == "ffffffffffff0a000000000108060001080006040001" + (
        "0a0000000001c0000201000000000000c0000201"
    )
    advertisement = frame(ip("2001:db8::1"), mac)
    # RFC 4861 section 4.4: hop limit 255, router and override flags, the target's link-layer address.
    assert advertisement[:14].hex() == "3333000000010a000000000186dd"
    header, icmp = advertisement[14:54], advertisement[54:]
    assert (header[6], header[7], len(icmp)) == (58, 255, 32)
    assert icmp[4:8].hex() == "a0000000"
    assert icmp[8:24] == ip("2001:db8::1").packed
    assert icmp[24:].hex() == "0201" + mac.hex()
    pseudo = header[8:40] + len(icmp).to_bytes(4, "big") + bytes([0, 0, 0, 58]) + icmp
    words = sum(int.from_bytes(pseudo[i : i + 2], "big") for i in range(0, len(pseudo), 2))
    assert (words & 0xFFFF) + (words >> 16) == 0xFFFF


def test_connections_are_counted_of_the_endpoints_that_were_asked_for() -> None:
    dump = "\n".join(
        [
            "tcp,orig=(src=10.1.1.2,dst=10.96.0.5,sport=1,dport=80),reply=(src=10.1.1.9,dst=10.1.1.2,sport=8080,"
            "dport=1),zone=1,mark=1,protoinfo=(state=ESTABLISHED)",
            "tcp,orig=(src=10.1.1.2,dst=10.96.0.5,sport=2,dport=80),reply=(src=10.1.1.9,dst=10.1.1.2,sport=8080,"
            "dport=2),zone=1,mark=1,protoinfo=(state=TIME_WAIT)",
            "tcp,orig=(src=192.0.2.1,dst=169.254.0.252,sport=3,dport=30080),reply=(src=10.1.1.9,dst=192.0.2.1,"
            "sport=8080,dport=3),zone=1,mark=3,protoinfo=(state=SYN_SENT)",
            "udp,orig=(src=fd00::2,dst=fd00:10:96::5,sport=1,dport=53),reply=(src=fd00::9,dst=fd00::2,sport=53,"
            "dport=1),zone=1,mark=1",
            "icmp,orig=(src=10.1.1.2,dst=10.1.1.3,id=1,type=8,code=0),reply=(src=10.1.1.3,dst=10.1.1.2,id=1,"
            "type=0,code=0),zone=1",
            "tcp,orig=(src=10.1.1.2,dst=10.96.0.5,sport=4,dport=80),reply=(src=10.1.1.8,dst=10.1.1.2,sport=8080,"
            "dport=4),zone=1,protoinfo=(state=ESTABLISHED)",
        ]
    )
    tcp = Destination("10.1.1.9", 8080, "TCP")
    udp = Destination("fd00::9", 53, "UDP")
    own = {4: ip("172.30.0.11")}
    assert counted(dump, own, [tcp, Destination("fd00:0::9", 53, "UDP")]) == {
        (tcp, Destination("10.96.0.5", 80, "TCP")): 1,
        (tcp, Destination("172.30.0.11", 30080, "TCP")): 1,
        (udp, Destination("fd00:10:96::5", 53, "UDP")): 1,
    }
