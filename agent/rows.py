# SPDX-License-Identifier: Apache-2.0
"""Rows of Open vSwitch's database: which columns are followed, what they hold when nobody has set them, and how a row
is brought to what it must be.

Whatever of a bridge, a port or a controller has an effect is kept, so what is not wanted of it must be unset. Columns
in which ovs-vswitchd reports are not followed but for a few, since each of its changes costs the replica's thread time
that an ADD waits for. `external_ids` are notes, which change nothing: those of br-int and of the agent's own ports are
left to whoever makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: The columns of a table that are settings of it alone, as they are when nobody has set them (ovs-vswitchd.conf.db(5)).
UNSET: Final[Mapping[str, Mapping[str, Any]]] = {
    "Bridge": {
        "auto_attach": [],
        "datapath_type": "",
        "fail_mode": [],
        "flood_vlans": [],
        "flow_tables": {},
        "ipfix": [],
        "mcast_snooping_enable": False,
        "mirrors": [],
        "netflow": [],
        "other_config": {},
        "protocols": [],
        "rstp_enable": False,
        "sflow": [],
        "stp_enable": False,
    },
    "Port": {
        "bond_downdelay": 0,
        "bond_fake_iface": False,
        "bond_mode": [],
        "bond_updelay": 0,
        "cvlans": [],
        "fake_bridge": False,
        "lacp": [],
        "mac": [],
        "other_config": {},
        "protected": False,
        "qos": [],
        "tag": [],
        "trunks": [],
        "vlan_mode": [],
    },
    "Interface": {
        "bfd": {},
        "cfm_mpid": [],
        "ingress_policing_burst": 0,
        "ingress_policing_kpkts_burst": 0,
        "ingress_policing_kpkts_rate": 0,
        "ingress_policing_rate": 0,
        "lldp": {},
        "mac": [],
        "mtu_request": [],
        "ofport_request": [],
        "options": {},
        "other_config": {},
        "type": "",
    },
    "Controller": {
        "connection_mode": [],
        "controller_burst_limit": [],
        "controller_queue_size": [],
        "controller_rate_limit": [],
        "enable_async_messages": [],
        "inactivity_probe": [],
        "local_gateway": [],
        "local_ip": [],
        "local_netmask": [],
        "max_backoff": [],
        "other_config": {},
        "type": [],
    },
}

#: What is followed. Of tables that settings refer to it is enough that their rows are known.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "Open_vSwitch": ("bridges",),
    "Bridge": ("name", "ports", "controller", *UNSET["Bridge"]),
    "Port": ("name", "interfaces", "external_ids", *UNSET["Port"]),
    # By admin_state and mtu ovs-vswitchd tells what was done to the kernel's interface.
    "Interface": ("name", "external_ids", "ofport", "error", "admin_state", "mtu", *UNSET["Interface"]),
    "Controller": ("target", *UNSET["Controller"]),
    "AutoAttach": ("system_name",),
    "Flow_Table": ("name",),
    "IPFIX": ("targets",),
    "Mirror": ("name",),
    "NetFlow": ("targets",),
    "QoS": ("type",),
    "sFlow": ("targets",),
}


def exactly(table: str, **columns: Any) -> dict[str, Any]:
    """All settings of a row that must hold these, and nothing else."""
    return {**UNSET[table], **columns}


def update(row: Any, **columns: Any) -> list[str]:
    """Write those columns of a row that differ. Optional ones read as lists of at most one. Which ones differed, and
    how, for people.
    """
    differed = []
    for column, value in columns.items():
        # A row that was just inserted has no columns to read.
        now = getattr(row, column, None)
        now = dict(now) if isinstance(now, dict) else now
        if now is None or (now != value and now != [value]):
            setattr(row, column, value)
            differed += difference_of(column, now, value)
    return differed


def differences(row: Any, **columns: Any) -> list[str]:
    """How the columns of a row differ from what they must be, for people."""
    found = []
    for column, value in columns.items():
        now = getattr(row, column)
        found += difference_of(column, dict(now) if isinstance(now, dict) else now, value)
    return found


def difference_of(column: str, now: Any, value: Any) -> list[str]:
    """How a column differs from what it must be, for people; of a map only the keys that do."""
    if now in (value, [value]):
        return []
    if not isinstance(now, dict) or not isinstance(value, dict):
        return [f"{column} {_plain(now)}, not {_plain(value)}"]
    return [
        f"{column}:{key} {_plain(now.get(key, []))}, not {_plain(value.get(key, []))}"
        for key in sorted(now.keys() | value.keys())
        if now.get(key) != value.get(key)
    ]


def _plain(value: Any) -> str:
    """A column's value for people: an optional one without its list, a row by its name or id."""
    if isinstance(value, list):
        return ",".join(map(_plain, value)) or "empty"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else str(getattr(value, "uuid", value))
