# SPDX-License-Identifier: Apache-2.0
"""`sdnctl controllers` as scripts see it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sdn.cli import main
from sdn.v1 import inspection_pb2 as pb
from tests.unit.cli_server import Cluster, serving

Sdnctl = Callable[..., str]

TOLD = pb.ListControllersResponse(
    answered_by="one",
    store_revision=120,
    controllers=[
        pb.ControllerStatus(
            name="one",
            alive=True,
            switches=3,
            preferred=2,
            revision=120,
            lag=0,
            lease_left_ms=3540,
            lease_ms=5000,
            grpc_address="10.0.0.1:6654",
            openflow_target="tcp:10.0.0.1:6653",
            version="1",
        ),
        pb.ControllerStatus(
            name="stuck", alive=True, heard_ms=80, revision=78, lag=42, lease_left_ms=0, lease_ms=5000
        ),
        pb.ControllerStatus(name="silent", alive=True, down_by="one", unanswering=True),
        pb.ControllerStatus(name="older", alive=True, draining=True, heard_ms=90, switches=1),
        pb.ControllerStatus(name="was", switches=2),
    ],
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Cluster, str]]:
    with serving(tmp_path) as found:
        found[0].controllers = TOLD
        yield found


@pytest.fixture
def sdnctl(server: tuple[Cluster, str], capsys: pytest.CaptureFixture[str]) -> Sdnctl:
    def call(*arguments: str) -> str:
        assert main.run(["--server", server[1], "controllers", *arguments]) == 0
        return capsys.readouterr().out

    return call


def test_a_table_has_leases_and_lags_as_far_as_each_says(sdnctl: Sdnctl) -> None:
    head, *rows = (line.split("   ") for line in sdnctl().splitlines())
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert [cell.strip() for cell in head if cell.strip()][:7] == [
        *("NAME", "STATUS", "SWITCHES", "WANTED", "LEASE", "LAG", "HEARD"),
    ]
    assert [row[:7] for row in cells] == [
        ["one", "up", "3", "2", "3.5s", "0", "self"],
        ["stuck", "up", "0", "0", "0.0s", "42", "80 ms"],
        ["silent", "down (found by one)", "0", "0", "?", "?", "<none>"],
        ["older", "draining", "1", "0", "-", "-", "90 ms"],
        ["was", "gone", "2", "0", "-", "-", "<none>"],
    ]


def test_programs_get_what_each_says_and_nothing_that_it_does_not(sdnctl: Sdnctl) -> None:
    value = json.loads(sdnctl("-o", "json"))
    assert value["answered_by"] == "one"
    one, stuck, silent, older, _ = value["controllers"]
    assert (one["lag"], one["lease_left_ms"], one["lease_ms"]) == (0, 3540, 5000)
    assert (stuck["lag"], stuck["lease_left_ms"]) == (42, 0)
    assert silent["unanswering"]
    assert not older["unanswering"]
    assert not {"lag", "lease_left_ms", "lease_ms"} & (silent.keys() | older.keys())
    assert "lag: 42" in sdnctl("-o", "yaml")


def test_whoever_drains_a_controller_is_told_what_there_is_to_be_known(
    server: tuple[Cluster, str], sdnctl: Sdnctl
) -> None:
    assert sdnctl("drain", "one") == "controller/one draining\n"
    assert (server[0].drain.name, server[0].drain.draining) == ("one", True)
    server[0].drain_warning = "nobody takes over"
    assert sdnctl("drain", "one") == "controller/one draining\nwarning: nobody takes over\n"
    assert sdnctl("resume", "one") == "controller/one resumed\n"
    assert not server[0].drain.draining
