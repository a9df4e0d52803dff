# SPDX-License-Identifier: Apache-2.0
"""What ``learn`` makes of a packet: a flow for the packets after it."""

from __future__ import annotations

from collections.abc import Sequence

from sdn.pipeline.actions import Learn
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match


def learned_flow(action: Learn, values: Sequence[int], teacher: Flow) -> Flow:
    """The flow that a packet with these values makes by an action of ``teacher``; it belongs to the same owner.

    A field that the packet has not is 0 in it. What the flow's match implies (``ip_src`` means IPv4) is filled in, as a
    switch does.
    """
    terms = {
        each.field.name: values[each.field.order] if each.value is None else each.value
        for each in action.match
    }
    return Flow(
        action.table,
        action.priority,
        match(**terms),
        action.load,
        action.cookie,
        teacher.owner,
        f"learned: {teacher.why}",
        action.idle_timeout,
        action.hard_timeout,
    )
