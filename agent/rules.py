# SPDX-License-Identifier: Apache-2.0
"""Rules of policy routing, as `ip rule` has them: which routing table is asked for packets with a mark."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink.rtnl.fibmsg import fibmsg

from agent.netlink import PROTO_SDN, Ask, Netlink

_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_EXCL, _CREATE = 0x200, 0x400
_TO_TABLE: Final = 1  # FR_ACT_TO_TBL


@dataclass(frozen=True)
class Rule:
    """`ip [-6] rule add fwmark MARK/MARK lookup TABLE pref PREFERENCE protocol 88`. `version`: 4 or 6."""

    version: int
    mark: int
    table: int
    preference: int


def add(rule: Rule) -> Ask:
    return Ask(f"add {rule}", _RTM_NEWRULE, _CREATE | _EXCL, _body(rule), (errno.EEXIST,))


def delete(rule: Rule) -> Ask:
    return Ask(f"delete {rule}", _RTM_DELRULE, 0, _body(rule), (errno.ENOENT,))


def ours(node: Netlink) -> set[Rule]:
    """The rules that this agent made."""
    found = set()
    for version in (4, 6):
        body = fibmsg()
        body["family"] = _family(version)
        for message in node.dump("list rules", _RTM_GETRULE, body, fibmsg):
            if message.get_attr("FRA_PROTOCOL") != PROTO_SDN:
                continue
            table = message.get_attr("FRA_TABLE") or message["table"]
            mark, preference = message.get_attr("FRA_FWMARK") or 0, message.get_attr("FRA_PRIORITY") or 0
            found.add(Rule(version, int(mark), int(table), int(preference)))
    return found


def _body(rule: Rule) -> Any:
    body = fibmsg()
    body["family"] = _family(rule.version)
    body["table"] = rule.table if rule.table < 256 else 0
    body["action"] = _TO_TABLE
    body["attrs"] = [
        ("FRA_PRIORITY", rule.preference),
        ("FRA_FWMARK", rule.mark),
        ("FRA_FWMASK", rule.mark),
        ("FRA_TABLE", rule.table),
        ("FRA_PROTOCOL", PROTO_SDN),
    ]
    return body


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)
