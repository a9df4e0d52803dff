# SPDX-License-Identifier: Apache-2.0
"""The wires between the machines of a lab: one Linux bridge in a namespace of its own, one veth pair a machine.

Every machine has `eth0` with one IPv4 and one IPv6 address. `outside` has no route to any pod: what comes from a pod
untranslated it cannot answer. It is also the default gateway of the nodes, with addresses of the documentation ranges
behind it, as the internet would be.

Checksums are computed by the senders in the `netdev` datapath: there Open vSwitch reads eth0 through AF_PACKET, and
drops what a veth hands over with the checksum still to be filled in.
"""

from __future__ import annotations

from sdn.lab import namespaces
from sdn.lab.command import ip_batch, run
from sdn.lab.spec import FAR_V4, FAR_V6, UNDERLAY_V4, UNDERLAY_V6, LabSpec, Machine

BRIDGE = "underlay0"


def build(spec: LabSpec) -> None:
    """Make all namespaces but the pods', and connect them."""
    for name in spec.namespaces:
        namespaces.add(name)
    # The bridge forwards frames; it has no business of its own on the network.
    namespaces.sysctl(
        spec.underlay_netns,
        {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"},
    )
    cables = [
        f"link add name {machine.port} mtu {spec.mtu} netns {spec.underlay_netns} type veth"
        f" peer name eth0 mtu {spec.mtu} netns {machine.netns}"
        for machine in spec.machines
    ]
    ip_batch(cables)
    ports = [f"link set {machine.port} master {BRIDGE} up" for machine in spec.machines]
    ip_batch(
        [
            f"link add {BRIDGE} mtu {spec.mtu} type bridge stp_state 0 mcast_snooping 0",
            *ports,
            f"link set {BRIDGE} up",
        ],
        spec.underlay_netns,
    )
    for machine in spec.machines:
        _configure(spec, machine)


def _configure(spec: LabSpec, machine: Machine) -> None:
    if spec.datapath == "netdev":
        run(["ip", "netns", "exec", machine.netns, "ethtool", "-K", "eth0", "tx", "off"])
        run(["ip", "netns", "exec", spec.underlay_netns, "ethtool", "-K", machine.port, "tx", "off"])
    lines = [
        "link set eth0 up",
        f"address add {machine.ipv4}/{UNDERLAY_V4.prefixlen} dev eth0",
        # Without duplicate address detection: nobody else can have it, and daemons bind to it at once.
        f"address add {machine.ipv6}/{UNDERLAY_V6.prefixlen} dev eth0 nodad",
    ]
    if machine == spec.outside:
        lines += [f"address add {FAR_V4}/32 dev lo", f"address add {FAR_V6}/128 dev lo nodad"]
    elif machine in spec.node_machines:
        lines += [f"route add default via {spec.outside.ipv4}", f"route add ::/0 via {spec.outside.ipv6}"]
    ip_batch(lines, machine.netns)
