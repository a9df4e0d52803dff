# SPDX-License-Identifier: Apache-2.0
"""Each event is one line of JSON, whatever it carries, and levels change while the process runs."""

import io
import ipaddress
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged in a test, with the root logger given back as it was."""
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    out = io.StringIO()
    logs.setup("info", out)
    yield out
    logs.set_levels("info")
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_an_event_is_one_json_line_with_its_fields(stream: io.StringIO) -> None:
    logs.get("agent.ipam").info(
        "address allocated", node="node-1", count=3, address=ipaddress.IPv4Address("10.0.0.1")
    )
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "agent.ipam",
        "event": "address allocated",
        "node": "node-1",
        "count": 3,
        "address": "10.0.0.1",
    }


def test_line_breaks_stay_inside_the_line(stream: io.StringIO) -> None:
    logs.get("agent").info("two\nlines", text="a\nb")
    assert stream.getvalue().count("\n") == 1
    assert lines(stream)[0]["event"] == "two\nlines"


def test_percent_signs_are_no_format(stream: io.StringIO) -> None:
    logs.get("agent").info("100% of %s")
    assert lines(stream)[0]["event"] == "100% of %s"


def test_a_field_never_hides_what_every_line_has(stream: io.StringIO) -> None:
    logs.get("agent").info("x", event="mine", time=1, level="low", logger="me")
    (line,) = lines(stream)
    assert (line["event"], line["event_"], line["level"], line["level_"]) == ("x", "mine", "info", "low")


def test_bound_fields_are_on_every_event_and_an_events_own_win(stream: io.StringIO) -> None:
    log = logs.get("agent").bind(node="node-1", pod="a/b")
    log.info("x")
    log.bind(pod="c/d").info("y", node="node-2")
    assert [(line["node"], line["pod"]) for line in lines(stream)] == [("node-1", "a/b"), ("node-2", "c/d")]


def test_an_exception_is_one_line_with_its_traceback(stream: io.StringIO) -> None:
    try:
        raise ValueError("not\nthis")
    except ValueError:
        logs.get("agent").exception("pod refused", pod="a/b")
    (line,) = lines(stream)
    assert (line["level"], line["error"]) == ("error", "ValueError: not this")
    assert "test_logs.py" in line["traceback"]


def test_what_json_cannot_hold_is_logged_as_text(stream: io.StringIO) -> None:
    loop: list[object] = []
    loop.append(loop)
    logs.get("agent").info("odd", loop=loop, big=2**80, lone="\ud800", path=Path("/x"), error=OSError("gone"))
    (line,) = lines(stream)
    assert line["logger"].strip("'") == "agent"
    assert "log_problem" in line


def test_what_other_libraries_log_has_the_same_form_from_warning_up(stream: io.StringIO) -> None:
    logging.getLogger("os_ken.base").info("chatter")
    logging.getLogger("os_ken.base").warning("lost %s", "switch")
    (line,) = lines(stream)
    assert (line["level"], line["logger"], line["event"]) == ("warning", "os_ken.base", "lost switch")


def test_levels_change_at_run_time_and_go_back(stream: io.StringIO) -> None:
    ipam, cni = logs.get("agent.ipam"), logs.get("agent.cni")
    ipam.debug("1")
    logs.set_levels("info,agent.ipam=debug")
    assert logs.levels() == "info,agent.ipam=debug"
    ipam.debug("2")
    cni.debug("3")
    logs.set_levels("error")
    ipam.warning("4")
    logs.set_levels("debug,os_ken=info")
    cni.debug("5")
    logging.getLogger("os_ken.hub").info("6")
    logging.getLogger("other").info("7")
    assert [line["event"] for line in lines(stream)] == ["2", "5", "6"]


def test_enabled_tells_whether_a_level_is_written(stream: io.StringIO) -> None:
    log = logs.get("agent")
    assert not log.enabled("debug")
    logs.set_levels("debug")
    assert log.enabled("debug")


@pytest.mark.parametrize(
    "text", ["loud", "", "info,", "info,debug", "=debug", "info,a=b", "info,a=debug,a=info", "a="]
)
def test_a_wrong_level_is_refused_and_changes_nothing(stream: io.StringIO, text: str) -> None:
    logs.set_levels("warning")
    with pytest.raises(ValueError, match=r".+"):
        logs.set_levels(text)
    assert logs.levels() == "warning"
    logs.get("agent").info("x")
    assert lines(stream) == []


def test_a_closed_stream_does_not_disturb_who_logs(stream: io.StringIO) -> None:
    stream.close()
    logs.get("agent").info("into the void")


@given(
    fields=st.dictionaries(
        st.text(max_size=8), st.none() | st.integers() | st.floats() | st.text() | st.binary()
    )
)
def test_any_fields_make_one_json_line(fields: dict[str, object]) -> None:
    record = logging.LogRecord("agent", logging.INFO, "", 0, "event", (), None)
    record.sdn_fields = fields
    text = logs._JsonLines().format(record)
    assert "\n" not in text
    assert set(json.loads(text)) >= {"time", "level", "logger", "event"}
