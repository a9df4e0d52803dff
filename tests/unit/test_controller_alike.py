# SPDX-License-Identifier: Apache-2.0
"""Controllers on one store whose settings differ where they must not: both say so, and so does sdnctl."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import msgspec
import pytest

from controller.ha.presence import member_record
from controller.records import encode, member_key
from controller.settings import ControllerSettings
from controller.store import Put, open_store
from sdn.v1 import inspection_pb2
from tests.ports import unused_port
from tests.switch.controller_process import ROOT, ControllerProcess
from tests.switch.ovs import wait_until
from tests.unit.etcd_process import Etcd

DIFFER = "another controller has other settings"
CLASH = "another controller has this one's peers_address: one of the two is taken for silent"


def settings(**different: object) -> ControllerSettings:
    return ControllerSettings(grpc_address="127.0.0.1:1", **different)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("cluster_ranges", ("10.1.0.0/16",), "10.1.0.0/16"),
        ("node_port_range", "31000-31999", "31000-31999"),
        ("cluster_domain", "other.local", "other.local"),
        ("dns", False, "false"),
        ("load_balancer_ranges", ("203.0.113.0/24",), "203.0.113.0/24"),
    ],
)
def test_what_another_one_has_is_told(setting: str, value: object, text: str) -> None:
    ours, theirs = member_record(settings()), member_record(settings(**{setting: value}))
    assert ours.differing(theirs) == {setting: text}
    assert theirs.differing(ours).keys() == {setting}


def test_what_may_differ_does_not_count() -> None:
    ours = member_record(settings())
    theirs = member_record(settings(name="another", lease_seconds=7.0, log_level="debug"))
    assert ours.differing(theirs) == {}


def test_an_older_build_that_tells_nothing_does_not_differ() -> None:
    ours = member_record(settings())
    assert ours.differing(msgspec.structs.replace(ours, alike={})) == {}
    assert msgspec.structs.replace(ours, alike={}).differing(ours) == {}


def test_one_that_says_it_is_reached_where_this_one_is_is_named() -> None:
    """As when both keep the default: each then takes the other for silent."""
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        address = f"127.0.0.1:{unused_port()}"
        controller = ControllerProcess(store=etcd.url, name="one", peers_address=address)
        stack.callback(controller.close)
        controller.start()
        assert not controller.log(CLASH)
        other = member_record(settings(name="other", peers_address=address))
        store = open_store(etcd.url)
        stack.callback(store.close)
        store.write([Put(member_key("other"), encode(other))])
        wait_until(lambda: bool(controller.log(CLASH)), "the clash to be told")
        (line,) = controller.log(CLASH)
        assert (line["controller"], line["peers_address"]) == ("other", address)


def test_both_say_so_and_so_does_sdnctl() -> None:
    with ExitStack() as stack:
        etcd = stack.enter_context(Etcd())
        one, other = (
            ControllerProcess(
                store=etcd.url,
                name=name,
                cluster_domain=domain,
                peers_address=f"127.0.0.1:{unused_port()}",
            )
            for name, domain in (("one", "cluster.local"), ("other", "other.local"))
        )
        for controller in (one, other):
            stack.callback(controller.close)
            controller.start()
        for controller, told in (
            (one, "other.local, here cluster.local"),
            (other, "cluster.local, here other.local"),
        ):
            wait_until(
                lambda controller=controller: bool(controller.log(DIFFER)), "the difference to be told"
            )  # type: ignore[misc]
            (line,) = controller.log(DIFFER)
            assert line["cluster_domain"] == told
        answer = one.inspection().ListControllers(inspection_pb2.ListControllersRequest(), timeout=60)
        shown = {status.name: dict(status.differing_settings) for status in answer.controllers}
        assert shown == {"one": {}, "other": {"cluster_domain": "other.local"}}
        done = subprocess.run(
            [sys.executable, "-m", "sdn.cli.main", "--server", f"127.0.0.1:{one.grpc_port}", "controllers"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "other has cluster_domain other.local, unlike one" in done.stdout.splitlines()
