# SPDX-License-Identifier: Apache-2.0
"""What the switch's connection tracker knows, asked of ovs-vswitchd (`dpctl/dump-conntrack`) and read line by line.

The dump is the same on both datapaths:

    tcp,orig=(src=10.244.1.5,dst=10.96.0.1,sport=40000,dport=80),
    reply=(src=10.244.1.6,dst=10.244.1.5,sport=8080,dport=40000),zone=1,mark=1,protoinfo=(state=ESTABLISHED)
    icmp,orig=(src=10.244.1.5,dst=10.244.1.6,id=7,type=8,code=0),reply=(src=...,id=7,type=0,code=0),zone=1

(the first one on one line, in truth). A protocol is a name or, where ovs-vswitchd has none, its number. A hundred
thousand connections are fifteen megabytes of text; it is read once, from its beginning to its end, and no line is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from agent.vswitchd import Vswitchd
from sdn.pipeline.registers import SERVICE_ZONE

_DATAPATHS: Final = {"netdev": "netdev@ovs-netdev", "system": "system@ovs-system"}
_LINE: Final = re.compile(
    r"^(\w+),orig=\(src=([^,]+),dst=([^,]+),(?:sport|id)=(\d+),(?:dport|type)=(\d+)(?:,code=(\d+))?\),"
    r"reply=\(src=([^,]+),dst=([^,]+),(?:sport|id)=(\d+),(?:dport|type)=(\d+)(?:,code=\d+)?\)(.*)$",
    re.MULTILINE,
)
_MARK: Final = re.compile(r",mark=(\d+)")
#: Closed, and remembered only so that late packets find their way.
_OVER: Final = ("state=TIME_WAIT", "state=CLOSED", "state=CLOSE)", "state=SHUTDOWN_ACK_SENT")


class Tracked(NamedTuple):
    """One line, as texts.

    ICMP has the id of an echo in place of the source's port and the message's type in place of the destination's;
    ``code`` is None for all other protocols.
    """

    protocol: str
    source: str
    destination: str
    source_port: str
    destination_port: str
    code: str | None
    reply_source: str
    reply_destination: str
    reply_source_port: str
    reply_destination_port: str
    rest: str

    @property
    def over(self) -> bool:
        """Whether no packets are expected any more."""
        return any(state in self.rest for state in _OVER)

    @property
    def mark(self) -> int:
        """Its ct_mark."""
        found = _MARK.search(self.rest)
        return int(found[1]) if found else 0


def dump(vswitchd: Vswitchd, datapath: str) -> str:
    """All connections that the pipeline tracks. VswitchdUnavailable, VswitchdRefused.

    datapath   "netdev" or "system"
    """
    return vswitchd.command("dpctl/dump-conntrack", _DATAPATHS[datapath], f"zone={SERVICE_ZONE}")


def parse(text: str) -> Iterator[Tracked]:
    """The connections of a dump; lines that mean nothing are left out."""
    for match in _LINE.finditer(text):
        yield Tracked._make(match.groups())
