# SPDX-License-Identifier: Apache-2.0
"""What a switch says of its controllers by itself: Open vSwitch's log of every OpenFlow message (module vconn, debug).

The log is written by the one thread that serves all connections, a message when it was received and just before it is
acted upon. So the order of its lines is the order in which the switch has done things, over all its connections. An
answer may stand later than it was given, but stands on its connection in the order in which it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sdn.lab import faults
from sdn.lab.errors import LabError
from sdn.lab.lab import Lab
from sdn.lab.programs import switch_log

_MESSAGE = re.compile(
    r"(?P<when>\S+)\|\d+\|vconn\|DBG\|(?P<connection>\S+): (?:(?P<sent>sent \(Success\))|received): "
    r"(?P<kind>[A-Z0-9_]+)(?: request| reply)? \(OF1\.5\) \(xid=(?P<xid>0x[0-9a-f]+)\):(?P<text>.*)"
)
#: A line of the log, whatever module it is of; the others go on with a message.
_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+\|\d+\|")
#: So many lines of a message are kept: what it is is said in the first ones.
_KEPT = 3


@dataclass(slots=True)
class Message:
    """An OpenFlow message."""

    when: str
    #: As Open vSwitch calls it: the target (`tcp:172.30.0.101:6653`), the same each time it is connected anew; or
    #: `unix#7`.
    connection: str
    #: By the switch; else received by it.
    sent: bool
    #: Without "request" and "reply": OFPT_ROLE_REQUEST, OFPST_FLOW, NXT_CT_FLUSH.
    kind: str
    xid: int
    #: What else is said of it, without the lines after the third.
    text: str


def messages(lines: Iterable[str]) -> Iterator[Message]:
    """The messages of a log, in its order. Those that could not be sent yet are left out: they are logged again."""
    current: Message | None = None
    more = 0
    for line in lines:
        if not _LINE.match(line):
            if current is not None and more:
                current.text += "\n" + line.rstrip("\n")
                more -= 1
            continue
        if current is not None:
            yield current
        current, more = None, _KEPT - 1
        found = _MESSAGE.match(line)
        if found is not None:
            current = Message(
                found["when"],
                found["connection"],
                found["sent"] is not None,
                found["kind"],
                int(found["xid"], 16),
                found["text"].strip(),
            )
    if current is not None:
        yield current


def begin(lab: Lab) -> None:
    """Let every node's switch log all messages from now on, and all controllers connect anew: of each connection the
    beginning is in the log.
    """
    controllers = [machine.name for machine in lab.spec.controller_machines]
    faults.kill_for_good(lab, *controllers)
    for node in lab.spec.node_machines:
        for command in (("vlog/disable-rate-limit", "vconn"), ("vlog/set", "vconn:file:dbg")):
            done = lab.run(node.name, "ovs-appctl", *command)
            if done.returncode != 0:
                raise LabError(f"{node.name}: ovs-appctl {command[0]}: {done.stderr.strip()}")
    for controller in controllers:
        lab.start(controller)


def of_node(lab: Lab, node: str) -> Iterator[Message]:
    """What the node's switch has logged so far."""
    # Names of interfaces and the like may be cut within a character.
    with switch_log(lab.folder, node).open(encoding="utf-8", errors="replace") as lines:
        yield from messages(lines)
