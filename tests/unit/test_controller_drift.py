# SPDX-License-Identifier: Apache-2.0
"""What is made of a switch's word that others have changed it, and how often switches are audited."""

from __future__ import annotations

import struct

import pytest

from controller import drift
from controller.budget import Budget
from controller.drift import Drift
from controller.repairs import KEPT, MAX_TEXT, Kind, Repairs
from sdn import logs
from sdn.openflow import CodecError, FlowEvent, FlowUpdate, flow_image, split_flow_updates
from sdn.pipeline.actions import Output
from sdn.pipeline.flow import Flow
from sdn.pipeline.match import match
from sdn.pipeline.owner import Owner


def update(number: int, event: FlowEvent = FlowEvent.ADDED) -> FlowUpdate:
    flow = Flow(0, number, match(in_port=1), (Output(2),), 5, Owner("Pod", "default", "web"), "test")
    key, body = flow_image(flow)
    return FlowUpdate(event, 0, key, body[:4], body[8:16], body[16:])


class Woken:
    def __init__(self) -> None:
        self.times = 0
        self.drift = Drift(logs.get("test"), self.wake)

    def wake(self) -> None:
        self.times += 1


def test_what_the_connection_itself_has_changed_wakes_nobody() -> None:
    woken = Woken()
    woken.drift.flows([FlowUpdate(FlowEvent.ABBREVIATED)])
    assert (woken.times, woken.drift.waiting()) == (0, False)
    woken.drift.flows([update(1)])
    assert (woken.times, woken.drift.waiting()) == (1, True)


def test_while_a_switch_has_paused_nothing_is_believed_and_then_all_is_read() -> None:
    woken = Woken()
    woken.drift.flows([FlowUpdate(FlowEvent.PAUSED), update(1), update(2, FlowEvent.REMOVED)])
    assert not woken.drift.waiting()
    woken.drift.flows([update(3), FlowUpdate(FlowEvent.RESUMED)])
    assert woken.drift._told.everything
    assert woken.drift._told.flows == {}


def test_more_than_is_kept_is_read_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MOST_TOLD", 10)
    woken = Woken()
    woken.drift.flows(update(number) for number in range(11))
    assert woken.drift._told.everything
    assert woken.drift._told.flows == {}
    assert woken.times == 1


def test_the_last_word_about_a_flow_counts() -> None:
    woken = Woken()
    woken.drift.flows([update(1, FlowEvent.REMOVED), update(2), update(1)])
    assert [told.event for told in woken.drift._told.flows.values()] == [FlowEvent.ADDED] * 2


@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        struct.pack("!HH", 8, 9) + bytes(4),
        struct.pack("!HH", 16, 4),
        struct.pack("!HH", 0, 4) + bytes(4),
        struct.pack("!HH", 8, 1) + bytes(4),
        struct.pack("!HH", 32, 1) + bytes(20) + struct.pack("!HH", 1, 60) + bytes(4),
    ],
)
def test_updates_that_are_malformed_are_named(body: bytes) -> None:
    with pytest.raises(CodecError):
        list(split_flow_updates(body))


def test_a_thousand_switches_are_looked_at_less_often_than_one() -> None:
    budget = Budget(0.05)
    assert 0.9 <= budget.pause("one", 0.01, 1.0) <= 1.1
    for number in range(1000):
        pause = budget.pause(number, 0.01, 1.0)
    assert pause == pytest.approx(10.01 / 0.05, rel=0.11)
    for number in range(1000):
        budget.leave(number)
    budget.leave("never")
    assert budget.pause("one", 0.01, 1.0) < 1.2


def test_the_last_repairs_are_kept_in_words_and_all_are_counted() -> None:
    repairs = Repairs()
    for number in range(30):
        repairs.add(Kind.CHANGED, f"thing {number} " + "x" * 1000, 2)
    assert repairs.count == 60
    last = repairs.last()
    assert [repair.what.split()[1] for repair in last] == [str(number) for number in range(20, 30)]
    assert len(last) == KEPT
    assert all(len(repair.what) == MAX_TEXT and repair.kind == "changed" for repair in last)
