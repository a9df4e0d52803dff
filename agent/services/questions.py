# SPDX-License-Identifier: Apache-2.0
"""What a controller asks of the switch's datapath, each question with those who answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.nodesetup.facts import NodeFacts
from agent.services import connections, listing, refreshing
from agent.vswitchd import Vswitchd
from sdn.v1 import controller_pb2 as messages


def answers(
    vswitchd: Vswitchd, facts: Callable[[], NodeFacts], question: messages.ControllerMessage
) -> Iterator[messages.AgentMessage]:
    """The answer to a question, in one message or several; a failure is part of it."""
    if question.HasField("count_connections"):
        counts = connections.answered(vswitchd, facts, question.count_connections)
        yield messages.AgentMessage(connection_counts=counts)
    elif question.HasField("list_connections"):
        for portion in listing.answered(vswitchd, facts, question.list_connections):
            yield messages.AgentMessage(connections=portion)
    elif question.HasField("refresh_datapath"):
        refreshing.refresh(vswitchd, facts)
