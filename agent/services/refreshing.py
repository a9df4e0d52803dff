# SPDX-License-Identifier: Apache-2.0
"""Makes the datapath forget what it has cached, where Open vSwitch cannot be trusted to bring it up to date.

The userspace datapath takes "change the actions of this flow" by the flow's key and not by its identity, before Open
vSwitch 3.1.3 and 3.2.1 (its commit "dpif-netdev: Fix dpif_netdev_flow_put."). When two cached flows overlap, which
happens when one was made before and one after a change of the pipeline, the wrong one is changed, and the other goes on
as it was for as long as packets use it: what policies deny since then is not denied. After it has forgotten all, each
flow costs one look at the pipeline, and no packet is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from agent.nodesetup.facts import NodeFacts
from agent.vswitchd import Vswitchd, VswitchdRefused, VswitchdUnavailable
from sdn import logs

log = logs.get("agent.refreshing")

_VERSION: Final = re.compile(r"\) (\d+)\.(\d+)\.(\d+)")
#: First versions that bring their flows up to date rightly; all minor versions after the last do.
_FIXED: Final = ((3, 1, 3), (3, 2, 1))


def refresh(vswitchd: Vswitchd, facts: Callable[[], NodeFacts]) -> None:
    """Let the datapath forget its cached flows if it must. A switch that does not answer has none, or is gone on about
    by others.
    """
    if facts().datapath != "netdev":
        return
    try:
        if not trustworthy(vswitchd.command("version")):
            vswitchd.command("revalidator/purge")
    except (VswitchdUnavailable, VswitchdRefused) as problem:
        log.warning("datapath not refreshed", error=str(problem))


def trustworthy(version: str) -> bool:
    """Whether an ovs-vswitchd brings cached flows up to date, by what it says of its version; False where that says
    nothing.
    """
    found = _VERSION.search(version)
    if found is None:
        return False
    number = tuple(map(int, found.groups()))
    return any(number[:2] == fixed[:2] and number >= fixed for fixed in _FIXED) or number[:2] > _FIXED[-1][:2]
