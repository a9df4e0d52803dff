# SPDX-License-Identifier: Apache-2.0
"""The node's audit log: whole lines, files of a bounded size, and nothing lost that is not counted."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.audit import LOG_EVERY, MOST_WAITING, AuditLog, RotatedFile
from sdn import logs
from sdn.v1 import types_pb2


def record(number: int, suppressed: int = 0) -> types_pb2.VerdictRecord:
    made = types_pb2.VerdictRecord(
        node="node-1",
        policy="NetworkPolicy/shop/web",
        rule="ingress[0]",
        tier="NetworkPolicy",
        direction="ingress",
        action="deny",
        protocol="TCP",
        source="10.244.2.9",
        source_port=number,
        destination="10.244.1.5",
        destination_port=80,
        destination_pod="shop/web-1",
        suppressed=suppressed,
    )
    made.time.FromMicroseconds(1_769_850_902_123_456)
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def numbers(*paths: Path) -> list[int]:
    return [line["sourcePort"] for path in paths for line in lines(path)]


def test_a_verdict_is_one_object_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log" / "audit.log"
    log = AuditLog(path, 1 << 20, 5)
    log.start()
    log.put([record(1, suppressed=3)])
    log.close()
    assert path.read_text().count("\n") == 1
    assert lines(path) == [
        {
            "time": "2026-01-31T09:15:02.123456Z",
            "node": "node-1",
            "policy": "NetworkPolicy/shop/web",
            "rule": "ingress[0]",
            "tier": "NetworkPolicy",
            "direction": "ingress",
            "action": "deny",
            "staged": False,
            "protocol": "TCP",
            "source": "10.244.2.9",
            "sourcePort": 1,
            "sourcePod": "",
            "destination": "10.244.1.5",
            "destinationPort": 80,
            "destinationPod": "shop/web-1",
            "suppressed": 3,
        }
    ]
    assert path.stat().st_mode & 0o777 == 0o640


def test_everything_that_waits_is_written_at_the_end(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", 1 << 24, 1)
    log.put(map(record, range(5000)))
    log.start()
    log.close()
    assert numbers(tmp_path / "audit.log") == list(range(5000))


def test_what_has_no_room_is_counted_in_the_next_that_has(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", 1 << 26, 1)
    log.put(map(record, range(MOST_WAITING)))
    log.put([record(60000, suppressed=4), record(60001)])
    log.start()
    # As soon as one has room again.
    while not (tmp_path / "audit.log").exists():
        os.sched_yield()
    log.put([record(60002, suppressed=1)])
    log.close()
    written = lines(tmp_path / "audit.log")
    assert len(written) == MOST_WAITING + 1
    assert [line["suppressed"] for line in written if line["suppressed"]] == [5 + 1 + 1]
    assert written[-1]["sourcePort"] == 60002


@pytest.mark.parametrize("files", [1, 2, 4])
def test_a_full_file_is_set_aside(tmp_path: Path, files: int) -> None:
    path = tmp_path / "audit.log"
    file = RotatedFile(path, 1000, files)
    for number in range(100):
        file.write(f'{{"sourcePort":{number:_>80}}}\n'.replace("_", " ").encode())
    file.close()
    kept = [path] + [path.with_name(f"audit.log.{number}") for number in range(1, files)]
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert all(0 < each.stat().st_size <= 1000 for each in kept)
    found = numbers(*reversed(kept))
    assert found == list(range(100))[-len(found) :]
    assert len(found) > 8 * (files - 1)


def test_a_restarted_agent_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for number in (1, 2):
        log = AuditLog(path, 1 << 20, 2)
        log.start()
        log.put([record(number)])
        log.close()
    assert numbers(path) == [1, 2]


def test_a_torn_line_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text('{"time":"2026-01')
    file = RotatedFile(path, 1000, 2)
    file.write(b"{}\n")
    assert path.read_text() == '{"time":"2026-01\n{}\n'


def test_a_file_that_was_moved_or_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    file = RotatedFile(path, 1000, 2)
    file.write(b"1\n")
    path.rename(tmp_path / "elsewhere")
    file.write(b"2\n")
    path.unlink()
    file.write(b"3\n")
    assert (path.read_text(), (tmp_path / "elsewhere").read_text()) == ("3\n", "1\n")


@contextmanager
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {folder}") != 0:
        pytest.fail("needs root: mounts a file system of its own")
    try:
        yield folder
    finally:
        os.system(f"umount {folder}")


@pytest.mark.root
def test_a_full_disk_leaves_whole_lines_and_is_told_once_a_minute(tmp_path: Path) -> None:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logs._JsonLines())
    logging.getLogger("agent.audit").addHandler(handler)
    now = 0.0
    try:
        with small_disk(tmp_path) as folder:
            ballast = folder / "ballast"
            ballast.write_bytes(bytes(60 * 1024))
            path = folder / "audit.log"
            log = AuditLog(path, 1 << 20, 2, lambda: now)
            log.start()
            for number in range(60):
                log.put([record(number)])
                settle(log)
            written = numbers(path)
            assert 0 < len(written) < 60
            assert written == list(range(len(written)))
            assert path.read_bytes().endswith(b"\n")
            now += LOG_EVERY
            log.put([record(60, suppressed=2)])
            settle(log)
            ballast.unlink()
            log.put([record(61)])
            log.close()
            assert numbers(path) == [*written, 61]
            assert lines(path)[-1]["suppressed"] == 60 - len(written) + 1 + 2
    finally:
        logging.getLogger("agent.audit").removeHandler(handler)
    told = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["event"] for line in told] == ["verdicts of policies are not written"] * 2
    assert "No space left" in told[0]["error"]


def settle(log: AuditLog) -> None:
    """Wait until nothing waits and the writer sleeps."""
    done = threading.Event()
    while not done.is_set():
        with log._condition:
            if not log._records and log._condition._waiters:  # type: ignore[attr-defined]
                done.set()
        os.sched_yield()


def test_an_impossible_place_disturbs_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit.log", 1 << 20, 2)
    log.start()
    for number in range(1000):
        log.put([record(number)])
    log.close()
    assert not log._thread.is_alive()
