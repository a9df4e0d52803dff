# SPDX-License-Identifier: Apache-2.0
"""What is made of a switch's log: lines that Open vSwitch 3.1 has written, and the same with what must not be."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.lab import fencing, ownerhistory, switchlog
from tests.lab.fencing import ACCEPTED, EQUAL, IS_SECONDARY, PRIMARY, SECONDARY, STALE, UNANSWERED, Account

RECORDED: Final = (Path(__file__).parent / "recorded_vconn.txt").read_text(encoding="utf-8")
"""One switch, three controllers. 101 is the master, then 102, which sends a bundle and is frozen before it has sent
the commit; 101 takes over; 102 goes on and commits. Later, the master again, 101 flushes.
"""
CONTROLLERS: Final = {
    f"tcp:172.30.0.{number}:6653": f"controller-{number - 100}" for number in (101, 102, 103)
}
OWNERS: Final = {
    41: "controller-1",
    47: "controller-2",
    51: "controller-1",
    55: "controller-2",
    75: "controller-1",
    82: "controller-2",
}
REFUSED: Final = "sent (Success): OFPT_ERROR (OF1.5) (xid=0xd): OFPBRC_IS_SECONDARY"


def told(text: str) -> Account:
    return fencing.account(switchlog.messages(text.splitlines()))


def wrong(text: str, owners: dict[int, str] = OWNERS) -> list[str]:
    return list(fencing.violations(told(text), CONTROLLERS, owners))


def instead(old: str, new: str) -> str:
    """What was recorded, with this instead of that."""
    assert RECORDED.count(old) == 1, old
    return RECORDED.replace(old, new)


def without(*signs: str) -> str:
    """What was recorded without the messages in which one of these stands."""
    records: list[str] = []
    for line in RECORDED.splitlines():
        if line.startswith("2026-"):
            records.append(line)
        else:
            records[-1] += "\n" + line
    return "\n".join(record for record in records if not any(sign in record for sign in signs))


def test_messages_are_read_with_what_is_said_of_them() -> None:
    found = list(switchlog.messages(RECORDED.splitlines()))
    commits = [message for message in found if "type=COMMIT_REQUEST" in message.text and not message.sent]
    assert [(m.connection, m.kind, m.xid) for m in commits] == [
        ("tcp:172.30.0.101:6653", "OFPT_BUNDLE_CONTROL", 0x19),
        ("tcp:172.30.0.102:6653", "OFPT_BUNDLE_CONTROL", 0xD),
    ]
    (error,) = (message for message in found if message.kind == "OFPT_ERROR")
    assert error.text.split("\n")[0] == "OFPBRC_IS_SECONDARY"
    assert error.sent


def test_what_could_not_be_sent_yet_is_no_message() -> None:
    line = "2026-11-27T23:40:20.047Z|00168|vconn|DBG|tcp:1:1: sent (Resource temporarily unavailable): OFPT_HELLO "
    assert list(switchlog.messages([line + "(OF1.5) (xid=0x9):", " version bitmap: 0x06"])) == []


def test_who_is_the_master_and_what_is_refused_is_seen() -> None:
    found = told(RECORDED)
    assert {grant.generation: CONTROLLERS[grant.connection] for grant in found.grants} == OWNERS
    assert found.changes == len(OWNERS) - 1
    assert [(write.connection[-8:-5], write.role, write.answer) for write in found.writes] == [
        ("101", PRIMARY, ACCEPTED),
        ("102", SECONDARY, IS_SECONDARY),
    ]
    assert [refusal.xid for refusal in found.refusals] == [0xD]
    assert [(flush.role, flush.answer) for flush in found.flushes] == [(PRIMARY, ACCEPTED)] * 2
    assert fencing.late_flushes(found) == []
    assert set(found.connected.values()) == {1}
    assert wrong(RECORDED) == []


def test_a_write_that_is_accepted_from_a_former_master_is_told() -> None:
    found = wrong(
        instead(
            REFUSED,
            "sent (Success): OFPT_BUNDLE_CONTROL (OF1.5) (xid=0xd):\n bundle_id=0x9 type=COMMIT_REPLY",
        )
    )
    assert len(found) == 1
    assert "accepted from one that is not the master" in found[0]
    assert "xid 0xd from tcp:172.30.0.102:6653 (secondary)" in found[0]


def test_a_change_of_a_flow_without_an_error_was_accepted() -> None:
    found = wrong(
        without(REFUSED).replace(
            "OFPT_BUNDLE_CONTROL (OF1.5) (xid=0xd):\n bundle_id=0x9 type=COMMIT_REQUEST",
            "OFPT_FLOW_MOD (OF1.5) (xid=0xd): ADD priority=1 actions=drop",
        )
    )
    assert len(found) == 1
    assert "OFPT_FLOW_MOD" in found[0]


def test_a_write_of_one_that_has_asked_for_no_role_is_told_even_if_it_was_not_answered() -> None:
    of_102 = (
        "tcp:172.30.0.102:6653: received: OFPT_ROLE",
        "tcp:172.30.0.102:6653: sent (Success): OFPT_ROLE",
    )
    unanswered = without(*of_102, REFUSED, "(xid=0xe)")
    (found,) = (write for write in told(unanswered).writes if write.connection.startswith("tcp:172.30.0.102"))
    assert (found.role, found.answer) == (EQUAL, UNANSWERED)
    assert any("accepted from one that is not the master" in line for line in wrong(unanswered))


def test_a_secondary_whose_write_was_not_answered_was_refused() -> None:
    assert wrong(without(REFUSED, "(xid=0xe)")) == []


def test_a_generation_of_another_owner_is_told() -> None:
    found = wrong(RECORDED, {**OWNERS, 51: "controller-3"})
    assert found == [
        "2026-11-27T23:40:26.718Z controller-1 became the master with generation 51, which is controller-3's by "
        "the store"
    ]
    assert len(wrong(RECORDED, {})) == len(OWNERS)


def test_a_generation_that_is_given_to_two_is_told() -> None:
    again = RECORDED.replace("generation_id=51", "generation_id=47")
    assert any("after controller-2 with 47" in line for line in wrong(again, {**OWNERS}))


def test_an_older_generation_is_refused_and_must_be() -> None:
    old = RECORDED.replace(
        "(xid=0xd): role=primary generation_id=51", "(xid=0xd): role=primary generation_id=46"
    )
    found = told(old)
    assert [request.generation for request in found.stale] == [46]
    assert any("generation_id=46, not OFPRRFC_STALE" in line for line in found.contradictions)
    refused = old.replace(
        "OFPT_ROLE_REPLY (OF1.5) (xid=0xd): role=primary generation_id=46",
        f"OFPT_ERROR (OF1.5) (xid=0xd): {STALE}",
    )
    assert not any("xid 0xd" in line for line in told(refused).contradictions)


def test_an_answer_that_contradicts_the_rules_is_told() -> None:
    found = wrong(RECORDED.replace("(xid=0xf): role=secondary", "(xid=0xf): role=primary"))
    assert len(found) == 1
    assert "role=primary generation_id=51, not role=secondary generation_id=51" in found[0]


def test_a_new_connection_is_nobodys_master() -> None:
    hello, flush = RECORDED.splitlines()[0], "2026-11-27T23:41:12.617Z|00743|"
    found = told(instead(flush, f"{hello}\n{flush}"))
    assert found.connected["tcp:172.30.0.101:6653"] == 2
    assert [flush.role for flush in fencing.late_flushes(found)] == [EQUAL, EQUAL]


def test_a_flush_of_one_that_is_not_the_master_is_counted() -> None:
    found = told(RECORDED.replace("101:6653: received: NXT_CT_FLUSH", "103:6653: received: NXT_CT_FLUSH"))
    assert [flush.role for flush in fencing.late_flushes(found)] == [SECONDARY, SECONDARY]


def test_a_flush_without_a_question_before_it_is_told() -> None:
    """What was answered before something else was confirmed is of no worth any more."""
    flush = "2026-11-27T23:41:12.618Z|00745|"
    (barrier,) = (line for line in RECORDED.splitlines() if "OFPT_BARRIER_REPLY (OF1.5) (xid=0x1a)" in line)
    found = wrong(instead(flush, f"{barrier}\n{flush}"))
    assert len(found) == 2
    assert all("had not asked whether it is the master" in line for line in found)


def test_owners_are_read_from_what_etcd_tells() -> None:
    line = (
        '{"result":{"header":{"cluster_id":"2492412168555228470","revision":"48"},"events":[{"kv":{"key":'
        '"L3Nkbi9vd25lcnMvbm9kZS0x","create_revision":"13","mod_revision":"27","version":"3","value":'
        '"eyJjb250cm9sbGVyIjoiY29udHJvbGxlci0yIiwiaW5jYXJuYXRpb24iOiI3M2Q3NmRmYS02ZjNmLTQ4N2YtYjY1MS1mYWYyMGY3OGVkYzIi'
        'fQ=="}},{"type":"DELETE","kv":{"key":"L3Nkbi9vd25lcnMvbm9kZS0x","mod_revision":"28"}}]}}\n'
    )
    assert ownerhistory.read(line) == [("node-1", 27, "controller-2")]
    with pytest.raises(ValueError, match="the watch has ended"):
        ownerhistory.read('{"result":{"header":{},"canceled":true,"compact_revision":"7"}}')
    with pytest.raises(ValueError, match="JSON is malformed"):
        ownerhistory.read("Not Found")
