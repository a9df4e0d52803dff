# SPDX-License-Identifier: Apache-2.0
"""What a switch really holds, read back in the terms of what it must hold."""

from __future__ import annotations

from collections.abc import Mapping

from controller.connection import SwitchConnection
from controller.desired import Desired, Key
from controller.endpointflows import learn_cookies
from controller.lanes import READING
from controller.repairs import entry_text
from sdn.logs import Logger
from sdn.openflow import (
    canonical_key,
    split_flow_descs,
    split_group_descs,
)
from sdn.pipeline.tables import SESSION_AFFINITY

#: Entries that are named one by one in the log when they are found to be nobody's.
_NAMED = 10
#: Where the cookie stands in a flow's body.
COOKIE = slice(8, 16)


def read_back(connection: SwitchConnection, desired: Desired) -> tuple[dict[Key, bytes], set[Key]]:
    """The entries of a switch, without the flows that it has rightly learned by itself; and the keys of those that
    differ from what is desired.

    ConnectionClosedError, and CodecError when it answers nonsense.
    """
    with READING.kept():
        installed: dict[Key, bytes] = dict(read_groups(connection).items())
        for body in connection.flow_descriptions():
            installed.update(split_flow_descs(body))
    wrong = desired.differing(installed)
    _leave_out_learned(installed, wrong, desired)
    _use_our_keys(installed, wrong, desired)
    return installed, wrong


def read_groups(connection: SwitchConnection) -> dict[int, bytes]:
    """The groups of a switch. ConnectionClosedError, CodecError."""
    groups: dict[int, bytes] = {}
    for body in connection.group_descriptions():
        groups.update(split_group_descs(body))
    return groups


def _leave_out_learned(installed: dict[Key, bytes], wrong: set[Key], desired: Desired) -> None:
    """Take out the flows of table session_affinity whose cookie a desired ``learn`` gives.

    The switch makes and ends them: they are no difference. Others there are nobody's, as in any table.
    """
    learned = [
        key
        for key in wrong
        if isinstance(key, bytes) and key[0] == SESSION_AFFINITY.number and desired.body(key) is None
    ]
    if not learned:
        return
    cookies = {
        cookie for key, body in desired.items() if isinstance(key, bytes) for cookie in learn_cookies(body)
    }
    for key in learned:
        if installed[key][COOKIE] in cookies:
            del installed[key]
            wrong.remove(key)


def _use_our_keys(installed: dict[Key, bytes], wrong: set[Key], desired: Desired) -> None:
    """Know our own flows again where a switch lists the fields of a match in another order.

    Otherwise one and the same flow would be added under our key and removed under the switch's.
    """
    for key in list(wrong):
        if not isinstance(key, bytes) or desired.body(key) is not None:
            continue
        ours = canonical_key(key)
        if ours != key and (body := desired.body(ours)) is not None:
            installed[ours] = installed.pop(key)
            wrong.remove(key)
            if installed[ours] == body:
                wrong.discard(ours)


def report_foreign(log: Logger, foreign: Mapping[Key, bytes]) -> None:
    """Name entries that are nobody's, some of them one by one."""
    for key, body in list(foreign.items())[:_NAMED]:
        log.warning("entry of nobody is removed", entry=entry_text(key, body))
    log.warning("entries of nobody are removed", count=len(foreign))
