# SPDX-License-Identifier: Apache-2.0
"""Draining a controller through another one: it is done or it is not, and whoever asked is told which."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest

from controller.records import MemberRecord, decode, member_key
from controller.store import Entry, Store, open_store
from tests.switch.controller_process import ROOT, ControllerProcess
from tests.switch.ovs import wait_until
from tests.unit.etcd_process import Etcd
from tests.unit.two_processes import controllers, drain, two_controllers


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as found:
        yield found


@pytest.fixture(scope="module")
def both(etcd: Etcd) -> Iterator[tuple[ControllerProcess, ControllerProcess]]:
    # So that no lease ends while the store is silent.
    with two_controllers(etcd, lease_seconds="60") as found:
        yield found


def entry_of(store: Store, name: str) -> Entry:
    entry = store.get(member_key(name))
    assert entry is not None
    return entry


def test_one_whose_store_does_not_answer_says_so_and_does_not_drain(
    etcd: Etcd, both: tuple[ControllerProcess, ControllerProcess]
) -> None:
    one, other = both
    store = open_store(etcd.url)
    before = entry_of(store, "other").revision
    etcd.pause(0)
    try:
        with pytest.raises(grpc.RpcError) as told:
            drain(one, "other")
    finally:
        etcd.resume(0)
    assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    assert told.value.details().startswith("Controller other: store etcd://")
    # Written again, whatever has become of what was asked of the store before.
    wait_until(lambda: entry_of(store, "other").revision > before, "its record to be written")
    assert not decode(MemberRecord, entry_of(store, "other")).draining
    wait_until(lambda: not controllers(other)["other"].draining, "it to be as it was")
    store.close()


def test_whoever_drains_the_last_one_is_told_that_nobody_takes_over(
    both: tuple[ControllerProcess, ControllerProcess],
) -> None:
    one, other = both
    assert drain(one, "other") == ""
    wait_until(lambda: controllers(one)["other"].draining, "the other to drain")
    assert drain(other, "one").startswith("no other controller can take over now: Controller one keeps")
    wait_until(lambda: controllers(one)["one"].draining, "both to drain")
    assert drain(one, "other", False) == drain(one, "one", False) == ""
    wait_until(lambda: not any(status.draining for status in controllers(one).values()), "both to be back")
    with pytest.raises(grpc.RpcError) as told:
        drain(one, "another")
    assert told.value.code() is grpc.StatusCode.NOT_FOUND


def test_one_that_is_alone_drains_with_a_warning() -> None:
    with ControllerProcess(name="alone") as alone:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "sdn.cli.main", "--server", f"127.0.0.1:{alone.grpc_port}"),
                *("controllers", "drain", "alone"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        said, warning = done.stdout.splitlines()
        assert said == "controller/alone draining"
        assert warning.startswith("warning: no other controller can take over now")
        wait_until(lambda: controllers(alone)["alone"].draining, "it to drain")
