# SPDX-License-Identifier: Apache-2.0
"""What was asked of the replica and is not waited for any more is not answered: nobody is harmed by it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from agent.ovsdb import Ovsdb, OvsdbUnavailable
from tests.switch.ovs import PrivateSwitch, running_switch, wait_until

switch = pytest.fixture(running_switch)


@pytest.fixture
def ovsdb(switch: PrivateSwitch) -> Iterator[Ovsdb]:
    found = Ovsdb(f"unix:{switch.folder}/db.sock")
    found.start()
    wait_until(lambda: found.connected, "the replica")
    yield found
    found.close()


def test_who_has_waited_for_the_replica_too_long_does_not_end_it(
    ovsdb: Ovsdb, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    ovsdb._calls.put(lambda _replica: goes_on.wait())  # type: ignore[arg-type, return-value]
    with monkeypatch.context() as short:
        short.setattr("agent.ovsdb._READ_SECONDS", 0.2)
        with pytest.raises(OvsdbUnavailable, match="did not read the database"):
            ovsdb.read(lambda _replica: None)
    goes_on.set()
    assert ovsdb.read(lambda replica: replica.root() is not None)
