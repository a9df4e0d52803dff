# SPDX-License-Identifier: Apache-2.0
"""One port of a client, used for a Service and for the Service's endpoint by its own address.

Used for the endpoint first, both are answered: the switch gives the Service's connection another port. Used for the
Service first, that takes the kernel's datapath, or Open vSwitch 3.1.3 (``_remembered`` in
sdn/pipeline/features/translation.py): labs have neither, so a client may have to ask again, from another port.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab import service_objects as objects
from tests.lab.service_lab import EACH, ServiceLab, serving

SOURCE_PORT = 24100


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServiceLab]:
    with serving("direct") as found:
        yield found


@pytest.mark.parametrize("client", ["client-1", "client-2", "node-1", "web-1"])
@pytest.mark.parametrize(*EACH)
def test_a_port_that_is_used_for_an_endpoint_can_be_used_for_its_service_too(
    cluster: ServiceLab, family: str, transport: str, client: str
) -> None:
    """The endpoint's answers to both are alike but for the client's port, by which the switch tells them apart."""
    endpoint = cluster.lab.pod("web-2").addresses[("IPv4", "IPv6").index(family)]
    with cluster.service("near", objects.both(80, 8080), {"name": "web-2"}) as name, ExitStack() as held:
        ways = [(endpoint, 8080), (cluster.cluster_ip(name, family), 80)]
        conversations = []
        for address, port in ways:
            conversation = cluster.converse(client, address, port, transport, SOURCE_PORT)
            conversations.append(held.enter_context(conversation))
            assert conversation.ask()["name"] == "web-2"
        for _ in range(3):
            assert [one.ask()["name"] for one in conversations] == ["web-2"] * 2


@pytest.mark.parametrize(*EACH)
def test_connections_to_an_endpoint_work_after_many_to_its_service(
    cluster: ServiceLab, family: str, transport: str
) -> None:
    endpoint = cluster.lab.pod("web-2").addresses[("IPv4", "IPv6").index(family)]
    with cluster.service("busy", objects.both(80, 8080), {"name": "web-2"}) as name:
        address = cluster.cluster_ip(name, family)
        assert cluster.answerers("client-1", address, 80, transport, 1500)["web-2"] == 1500
        answers = cluster.ask("client-1", endpoint, 8080, transport, 1500, attempts=8)
        assert {answer.outcome for answer in answers} == {"answered"}
        again = sum(answer.attempts > 1 for answer in answers)
        print(f"{again} of {len(answers)} had to ask from another port")
