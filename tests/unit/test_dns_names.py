# SPDX-License-Identifier: Apache-2.0
"""The cluster's names answer as the Kubernetes DNS specification says (schema version 1.1.0)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.services.dns import Answer, Code, Record, Zone
from sdn.v1.controller_pb2 import EndpointState, ServicePortState, ServiceState

RANGES = [ipaddress.ip_network(text) for text in ("10.244.0.0/16", "fd00:10:244::/48", "10.96.0.0/14")]
DNS = [ipaddress.ip_address("10.96.0.10"), ipaddress.ip_address("fd00:10:96::a")]

WEB = ServiceState(
    namespace="default",
    name="web",
    type="ClusterIP",
    cluster_ips=["10.96.0.5", "fd00:10:96::5"],
    ports=[
        ServicePortState(name="http", protocol="TCP", port=80),
        ServicePortState(protocol="UDP", port=81),
    ],
    endpoints=[EndpointState(address="10.244.1.5", hostname="web-0", ports={"http": 8080})],
)
DB = ServiceState(
    namespace="shop",
    name="db",
    type="ClusterIP",
    ports=[ServicePortState(name="sql", protocol="TCP", port=5432)],
    endpoints=[
        EndpointState(address="10.244.1.7", hostname="db-0", ports={"sql": 5432}),
        EndpointState(address="10.244.2.8", ports={"sql": 5433}),
        EndpointState(address="fd00:10:244:1::7", hostname="db-0", ports={"sql": 5432}),
    ],
)
FAR = ServiceState(namespace="shop", name="far", type="ExternalName", external_name="www.Example.com")


def zone(*services: ServiceState) -> Zone:
    made = Zone("cluster.local", RANGES, DNS)
    for service in services:
        made.update(service)
    made.complete = True
    return made


def answer(made: Zone, name: str, kind: str) -> Answer:
    found = made.answer(name, kind)
    assert found is not None
    return found


def data(made: Zone, name: str, kind: str) -> list[str]:
    """What is in the answer's records, which must all have the name that was asked for."""
    found = answer(made, name, kind)
    assert found.code == Code.NOERROR
    assert {record.name for record in found.records} <= {name.rstrip(".").lower()}
    return [record.data for record in found.records]


def test_a_service_has_its_cluster_addresses_each_in_its_type() -> None:
    made = zone(WEB)
    assert data(made, "web.default.svc.cluster.local.", "A") == ["10.96.0.5"]
    assert data(made, "WEB.default.svc.Cluster.Local", "AAAA") == ["fd00:10:96::5"]


def test_a_named_port_has_an_srv_record_with_the_addresses_beside_it() -> None:
    made = zone(WEB)
    found = answer(made, "_http._tcp.web.default.svc.cluster.local", "SRV")
    assert [record.data for record in found.records] == ["0 100 80 web.default.svc.cluster.local."]
    assert {record.data for record in found.additional} == {"10.96.0.5", "fd00:10:96::5"}


def test_an_unnamed_port_has_none() -> None:
    assert answer(zone(WEB), "_._udp.web.default.svc.cluster.local", "SRV").code == Code.NXDOMAIN


def test_a_cluster_address_leads_back_to_its_service() -> None:
    made = zone(WEB)
    for address in WEB.cluster_ips:
        name = ipaddress.ip_address(address).reverse_pointer
        assert data(made, name, "PTR") == ["web.default.svc.cluster.local."]


def test_endpoints_of_a_service_with_an_address_have_no_names() -> None:
    made = zone(WEB)
    assert answer(made, "web-0.web.default.svc.cluster.local", "A").code == Code.NXDOMAIN
    assert answer(made, "5.1.244.10.in-addr.arpa", "PTR").code == Code.NXDOMAIN


def test_a_headless_service_has_the_addresses_of_its_endpoints() -> None:
    made = zone(DB)
    assert data(made, "db.shop.svc.cluster.local", "A") == ["10.244.1.7", "10.244.2.8"]
    assert data(made, "db.shop.svc.cluster.local", "AAAA") == ["fd00:10:244:1::7"]


def test_each_endpoint_of_a_headless_service_has_a_name_and_leads_back_to_it() -> None:
    made = zone(DB)
    assert data(made, "db-0.db.shop.svc.cluster.local", "A") == ["10.244.1.7"]
    assert data(made, "db-0.db.shop.svc.cluster.local", "AAAA") == ["fd00:10:244:1::7"]
    assert data(made, "10-244-2-8.db.shop.svc.cluster.local", "A") == ["10.244.2.8"]
    assert data(made, "8.2.244.10.in-addr.arpa", "PTR") == ["10-244-2-8.db.shop.svc.cluster.local."]


def test_srv_of_a_headless_service_has_each_endpoint_with_its_own_number() -> None:
    found = answer(zone(DB), "_sql._tcp.db.shop.svc.cluster.local", "SRV")
    assert [record.data for record in found.records] == [
        "0 100 5432 db-0.db.shop.svc.cluster.local.",
        "0 100 5433 10-244-2-8.db.shop.svc.cluster.local.",
    ]
    assert {record.data for record in found.additional} == {"10.244.1.7", "fd00:10:244:1::7", "10.244.2.8"}


def test_an_endpoint_without_the_port_has_no_srv_record_but_its_address() -> None:
    state = ServiceState()
    state.CopyFrom(DB)
    del state.endpoints[1].ports["sql"]
    made = zone(state)
    assert len(data(made, "_sql._tcp.db.shop.svc.cluster.local", "SRV")) == 1
    assert len(data(made, "db.shop.svc.cluster.local", "A")) == 2


def test_a_headless_service_without_endpoints_does_not_exist() -> None:
    made = zone(DB, ServiceState(namespace="shop", name="db", type="ClusterIP"))
    found = answer(made, "db.shop.svc.cluster.local", "A")
    assert (found.code, found.records, found.zone) == (Code.NXDOMAIN, (), "cluster.local")


def test_an_external_name_is_an_alias_that_somebody_else_must_follow() -> None:
    found = answer(zone(FAR), "far.shop.svc.cluster.local", "AAAA")
    assert found.records == (Record("far.shop.svc.cluster.local", "CNAME", "www.example.com."),)
    assert found.elsewhere == "www.example.com"
    assert answer(zone(FAR), "far.shop.svc.cluster.local", "CNAME").elsewhere == ""


def test_an_alias_within_the_cluster_is_followed_and_one_to_itself_ends() -> None:
    near = ServiceState(
        namespace="shop", name="near", type="ExternalName", external_name="web.default.svc.cluster.local"
    )
    made = zone(WEB, near)
    assert [r.data for r in answer(made, "near.shop.svc.cluster.local", "A").records] == [
        "web.default.svc.cluster.local.",
        "10.96.0.5",
    ]
    near.external_name = "nobody.default.svc.cluster.local"
    made.update(near)
    found = answer(made, "near.shop.svc.cluster.local", "A")
    assert (found.code, len(found.records), found.zone) == (Code.NXDOMAIN, 1, "cluster.local")
    near.external_name = "near.shop.svc.cluster.local"
    made.update(near)
    assert answer(made, "near.shop.svc.cluster.local", "A").code == Code.SERVFAIL


def test_the_schema_version_and_the_zone_itself() -> None:
    made = zone()
    assert data(made, "dns-version.cluster.local", "TXT") == ['"1.1.0"']
    assert data(made, "cluster.local", "NS") == ["ns.dns.cluster.local."]
    assert {r.data for r in answer(made, "cluster.local", "NS").additional} == {"10.96.0.10", "fd00:10:96::a"}
    assert data(made, "ns.dns.cluster.local", "A") == ["10.96.0.10"]
    assert data(made, "cluster.local", "SOA")[0].startswith(
        "ns.dns.cluster.local. hostmaster.cluster.local. "
    )


@pytest.mark.parametrize(
    "name",
    [
        *("cluster.local", "svc.cluster.local", "pod.cluster.local", "dns.cluster.local"),
        *("default.svc.cluster.local", "web.default.svc.cluster.local", "default.pod.cluster.local"),
        *("_tcp.web.default.svc.cluster.local", "_http._tcp.web.default.svc.cluster.local"),
        *("10-1-2-3.default.pod.cluster.local", "96.10.in-addr.arpa", "0.97.10.in-addr.arpa"),
        *("5.0.96.10.in-addr.arpa", "4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa", "0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa"),
    ],
)
def test_a_name_that_exists_has_no_error_where_it_has_no_record_of_the_type(name: str) -> None:
    found = answer(zone(WEB), name, "MX")
    assert (found.code, found.records) == (Code.NOERROR, ())
    assert found.zone == "cluster.local" or found.zone.endswith(".arpa")


@pytest.mark.parametrize(
    "name",
    [
        *("nobody.cluster.local", "shop.svc.cluster.local", "nobody.default.svc.cluster.local"),
        *("a.web.default.svc.cluster.local", "_smtp._tcp.web.default.svc.cluster.local"),
        *("hello.default.pod.cluster.local", "10-1-2-3.a.default.pod.cluster.local", "a.dns.cluster.local"),
        *("6.0.96.10.in-addr.arpa", "x.5.0.96.10.in-addr.arpa", "256.0.96.10.in-addr.arpa"),
        *("z.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa", "00.96.10.in-addr.arpa"),
    ],
)
def test_any_other_name_of_the_cluster_does_not_exist(name: str) -> None:
    assert answer(zone(WEB), name, "A").code == Code.NXDOMAIN


@pytest.mark.parametrize(
    "name",
    [
        *("www.example.com", "local", "notcluster.local", "cluster.local.example.com", "", "10.in-addr.arpa"),
        *("1.0.100.10.in-addr.arpa", "8.8.8.8.in-addr.arpa", "in-addr.arpa", "d.f.ip6.arpa", "arpa"),
    ],
)
def test_names_of_others_are_not_answered_here(name: str) -> None:
    assert zone(WEB).answer(name, "A") is None


def test_an_endpoint_outside_of_the_clusters_ranges_leads_back_too() -> None:
    state = ServiceState(
        namespace="a", name="b", type="ClusterIP", endpoints=[EndpointState(address="192.0.2.1")]
    )
    made = zone(state)
    assert data(made, "1.2.0.192.in-addr.arpa", "PTR") == ["192-0-2-1.b.a.svc.cluster.local."]
    made.remove("a", "b")
    assert made.answer("1.2.0.192.in-addr.arpa", "PTR") is None


def test_a_pods_address_is_in_its_name() -> None:
    made = zone()
    assert data(made, "10-244-1-5.anything.pod.cluster.local", "A") == ["10.244.1.5"]
    assert data(made, "fd00-10-244-1--5.anything.pod.cluster.local", "AAAA") == ["fd00:10:244:1::5"]
    assert data(made, "10-244-1-5.anything.pod.cluster.local", "AAAA") == []


def test_who_was_not_told_of_all_services_denies_none() -> None:
    made = Zone("cluster.local", RANGES, DNS)
    made.update(WEB)
    assert data(made, "web.default.svc.cluster.local", "A") == ["10.96.0.5"]
    assert answer(made, "db.shop.svc.cluster.local", "A").code == Code.SERVFAIL
    assert answer(made, "7.1.244.10.in-addr.arpa", "PTR").code == Code.SERVFAIL


def test_any_gives_one_set_of_records() -> None:
    assert data(zone(WEB), "web.default.svc.cluster.local", "ANY") == ["10.96.0.5"]


def test_a_wrong_address_is_refused_and_changes_nothing() -> None:
    made = zone(WEB)
    wrong = ServiceState(namespace="default", name="web", type="ClusterIP", cluster_ips=["10.96.0.300"])
    with pytest.raises(ValueError, match=r"10\.96\.0\.300"):
        made.update(wrong)
    assert data(made, "web.default.svc.cluster.local", "A") == ["10.96.0.5"]


def test_only_what_changes_counts_the_serial_number_up() -> None:
    made = zone(WEB)
    before = made.serial
    other = ServiceState()
    other.CopyFrom(WEB)
    other.endpoints.add(address="10.244.1.9")
    made.update(other)
    assert made.serial == before
    made.remove("default", "web")
    assert made.serial > before


states = st.builds(
    ServiceState,
    namespace=st.sampled_from(["a", "b"]),
    name=st.sampled_from(["x", "y"]),
    type=st.just("ClusterIP"),
    cluster_ips=st.lists(st.sampled_from(["10.96.0.1", "10.96.0.2", "fd00:10:96::1"]), max_size=2),
    ports=st.just([ServicePortState(name="p", protocol="TCP", port=1)]),
    endpoints=st.lists(
        st.builds(
            EndpointState,
            address=st.sampled_from(["10.244.0.1", "10.244.0.2", "192.0.2.1"]),
            hostname=st.sampled_from(["", "h"]),
            ports=st.just({"p": 2}),
        ),
        max_size=3,
    ),
)
changes = st.lists(st.one_of(states, st.tuples(st.sampled_from("ab"), st.sampled_from("xy"))), max_size=12)


@given(changes)
def test_whatever_came_and_went_the_names_are_those_of_the_services_that_there_are(
    told: list[ServiceState | tuple[str, str]],
) -> None:
    made = zone()
    left: dict[tuple[str, str], ServiceState] = {}
    for item in told:
        if isinstance(item, ServiceState):
            made.update(item)
            left[item.namespace, item.name] = item
        else:
            made.remove(*item)
            left.pop(item, None)
    fresh = zone(*left.values())
    names = {name for one in (made, fresh) for name in (*one._names, *one._below)}
    for name in names:
        for kind in ("A", "AAAA", "SRV", "PTR"):
            ours, theirs = answer_or_none(made, name, kind), answer_or_none(fresh, name, kind)
            assert ours == theirs, (name, kind)


def answer_or_none(made: Zone, name: str, kind: str) -> tuple[object, ...] | None:
    found = made.answer(name, kind)
    return None if found is None else (found.code, set(found.records), set(found.additional), found.zone)
