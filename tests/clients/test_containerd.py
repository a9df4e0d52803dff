# SPDX-License-Identifier: Apache-2.0
"""containerd makes pods on a lab node through the CRI, so that the plugin is called by what calls it in production.

What these tests rely on of containerd 1.6: it executes the plugins in its own network namespace, which is
the node's; it sends the Kubernetes names in CNI_ARGS; DEL comes twice for a pod, the second time without a
namespace; and `ctr` calls DEL when the process and its namespace are gone.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from sdn.lab.lab import Lab
from tests.bench import netns
from tests.bench.cluster import PLUGIN, Node, cluster, listed_pods, node
from tests.bench.cni import REFERENCE
from tests.clients import busybox_image
from tests.clients.containerd import IMAGE, Containerd
from tests.clients.cri import Pod, Runtime

pytestmark = [pytest.mark.root, pytest.mark.lab]

CHAINED = [
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes; on the second one a pod of the lab's own, to talk with."""
    with cluster("rc-cri", nodes=2) as running:
        running.pod_add("far", "there", "node-2")
        yield running


@contextmanager
def containerd(where: Node, *chained: dict[str, Any]) -> Iterator[Containerd]:
    """containerd on a node, with our plugin first in its network configuration list."""
    plugins = [PLUGIN, *(REFERENCE / name for name in ("loopback", "portmap", "bandwidth"))]
    with Containerd(netns=where.netns, conflist=where.conflist(*chained), plugins=plugins) as running:
        yield running


def interfaces(where: Node) -> set[str]:
    with netns.entered(where.netns):
        shown = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True)
    return {link["ifname"] for link in json.loads(shown.stdout)}


def test_a_pod_made_by_containerd_reaches_another_node_is_listed_by_name_and_leaves_nothing(
    lab: Lab,
) -> None:
    here = node(lab, "node-1")
    before = interfaces(here)
    with containerd(here) as runtime_process, Runtime(runtime_process.socket) as runtime:
        pod = Pod("web", namespace="shop", labels={"app": "web"})
        sandbox = runtime.run_pod(pod)
        addresses = runtime.pod_addresses(sandbox)
        assert sorted(ipaddress.ip_address(address).version for address in addresses) == [4, 6]
        assert set(listed_pods(lab)["shop/web"]) == set(addresses)

        container = runtime.run_container(sandbox, pod, IMAGE, ["/bin/sleep", "100000"])
        for address in lab.pod("far").addresses:
            output = runtime.execute(container, "ping", "-c", "3", "-W", "10", address)
            assert output.exit_code == 0, output

        runtime.stop_pod(sandbox)
        runtime.remove_pod(sandbox)
        assert "shop/web" not in listed_pods(lab)
        assert interfaces(here) == before

        again = runtime.run_pod(pod)
        assert len(runtime.pod_addresses(again)) == 2
    assert interfaces(here) == before
    assert "shop/web" not in listed_pods(lab)


def test_in_a_chain_the_pod_has_its_host_port_from_everywhere_and_its_rate_limit(lab: Lab) -> None:
    here = node(lab, "node-1")
    before = interfaces(here)
    with containerd(here, *CHAINED) as runtime_process, Runtime(runtime_process.socket) as runtime:
        pod = Pod(
            "published",
            namespace="shop",
            annotations={
                "kubernetes.io/ingress-bandwidth": "100M",
                "kubernetes.io/egress-bandwidth": "100M",
            },
            host_ports=((8080, 80),),
        )
        sandbox = runtime.run_pod(pod)
        runtime.run_container(sandbox, pod, IMAGE, ["/bin/httpd", "-f", "-p", "80", "-h", "/bin"])
        machine = lab.spec.node(here.name)
        for client in ("node-1", "node-2", "outside", "far"):
            for host in (machine.ipv4, f"[{machine.ipv6}]"):
                with netns.entered(lab.netns(client)):
                    with urllib.request.urlopen(f"http://{host}:8080/busybox", timeout=60) as answer:
                        assert answer.read() == busybox_image.BUSYBOX.read_bytes(), (client, host)
        with netns.entered(here.netns):
            disciplines = subprocess.run(["tc", "qdisc"], capture_output=True, text=True, check=True).stdout
        assert "qdisc tbf" in disciplines
        runtime.stop_pod(sandbox)
        runtime.remove_pod(sandbox)
        assert interfaces(here) == before


def test_ctr_run_cni_gives_a_network_to_a_container_that_is_no_pod(lab: Lab) -> None:
    here = node(lab, "node-1")
    before = interfaces(here)
    with containerd(here) as running:
        far = lab.pod("far").addresses
        script = " && ".join(f"ping -c 3 -W 10 {address}" for address in far)
        printed = running.run_with_cni("box", "/bin/sh", "-c", script)
        assert printed.count(" 0% packet loss") == len(far)
        assert interfaces(here) == before
        assert not any("box" in name for name in listed_pods(lab))


def test_without_a_controller_a_pod_is_refused_with_the_reason_and_made_when_it_is_back(lab: Lab) -> None:
    here = node(lab, "node-1")
    before = interfaces(here)
    with containerd(here) as running, Runtime(running.socket) as runtime:
        pod = Pod("early", namespace="shop")
        lab.stop("controller-1")
        try:
            with pytest.raises(grpc.RpcError, match="no controller confirmed pod shop/early"):
                runtime.run_pod(pod)
            assert runtime.pods() == {}
            assert interfaces(here) == before
        finally:
            lab.start("controller-1")
        lab.wait_ready()
        assert len(runtime.pod_addresses(runtime.run_pod(pod))) == 2
    assert interfaces(here) == before
