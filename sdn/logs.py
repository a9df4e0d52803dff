# SPDX-License-Identifier: Apache-2.0
"""Structured logs: one JSON object on one line of stderr for each event.

    log = logs.get("agent.ipam")
    log.info("address allocated", node="node-1", pod="default/web", address="10.244.1.5")

    {"time":"2026-01-31T09:15:02.123456Z","level":"info","logger":"agent.ipam","event":"address allocated",
     "node":"node-1","pod":"default/web","address":"10.244.1.5"}                          (one line, in truth)

An event is a constant text, so that it can be counted and searched; what varies goes into fields. Names of
fields are the same everywhere: `node`, `pod` (namespace/name), `object` (Kind/namespace/name), `duration_ms`,
`error`. Values that JSON does not know (addresses, paths, exceptions) are written as their text.
`log.exception(...)`, inside an `except` block, adds `error` and `traceback`. `log.bind(node="node-1")` gives
a logger that adds the same fields to every event.

What other libraries log through Python's `logging` comes out in the same form, from level warning up; a
daemon calls `setup()` once at its start.

Levels are `debug`, `info`, `warning`, `error`, `critical`. A level *specification*, as in `--log-level`, is
one level for our own loggers, then levels for single ones and for other libraries, by prefix of the logger's
name:

    info                       our loggers at info, libraries at warning
    info,agent.ipam=debug      as before, and agent.ipam at debug
    debug,os_ken=info          ours at debug, os_ken's at info

`set_levels()` changes all of it at run time, atomically: a specification with an error raises ValueError,
changes nothing.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Final

import msgspec

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
"""Names of levels as they are written and read, least severe first."""

_NAMES: Final = {number: name for name, number in LEVELS.items()}
_OWN: Final = ("sdn", "agent", "controller", "cni")
_RESERVED: Final = frozenset(("time", "level", "logger", "event"))
_FIELDS: Final = "sdn_fields"  # the attribute under which a LogRecord carries the fields

_lock: Final = threading.Lock()
_specification = "info"
_named: set[str] = set()  # loggers whose level the current specification set


class Logger:
    """Writes events under one name. Made by `get`; cheap, immutable, safe in every thread."""

    __slots__ = ("_bound", "_logger")

    def __init__(self, logger: logging.Logger, bound: Mapping[str, object]) -> None:
        self._logger = logger
        self._bound = bound

    def bind(self, **fields: object) -> "Logger":
        """The same logger, which adds these fields to each event; an event's own fields win."""
        return Logger(self._logger, {**self._bound, **fields})

    def enabled(self, level: str) -> bool:
        """Whether events of this level are written; ask before computing an expensive field."""
        return self._logger.isEnabledFor(LEVELS[level])

    def debug(self, event: str, /, **fields: object) -> None:
        """For someone who hunts a fault in this component; never on for long."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Something an operator may want to know later: the normal course of things."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Not as asked for, and handled: work goes on."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Something that was asked for was not done; someone should look."""
        self._write(logging.ERROR, event, fields)

    def critical(self, event: str, /, **fields: object) -> None:
        """The daemon cannot go on."""
        self._write(logging.CRITICAL, event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """An error, with the exception that is being handled and its traceback."""
        self._write(logging.ERROR, event, fields, exc_info=True)

    def _write(self, level: int, event: str, fields: Mapping[str, object], exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            merged = {**self._bound, **fields}
            self._logger.log(level, "%s", event, exc_info=exc_info, extra={_FIELDS: merged})


class _JsonLines(logging.Formatter):
    """A LogRecord, ours or another library's, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in getattr(record, _FIELDS, {}).items():
            line[f"{name}_" if name in _RESERVED else name] = value
        if record.exc_info and record.exc_info[1] is not None:
            line.setdefault("error", error_text(record.exc_info[1]))
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        try:
            return _encode(line)
        except (TypeError, ValueError, UnicodeError, RecursionError) as problem:
            # A log line must never be the reason why work fails: write every field as plain text.
            texts = {name: repr(value) for name, value in line.items()}
            return _encode({**texts, "log_problem": error_text(problem)})


def _encode(line: Mapping[str, object]) -> str:
    return msgspec.json.encode(line, enc_hook=_as_text).decode()


def _as_text(value: object) -> object:
    if isinstance(value, BaseException):
        return error_text(value)
    return str(value)


def error_text(error: BaseException) -> str:
    """An exception as one line, `ValueError: what it says`, for the field `error`."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def get(name: str) -> Logger:
    """The logger of a component, named as its module is: `agent.ipam`, `controller.synchronizer`."""
    return Logger(logging.getLogger(name), {})


def setup(levels: str = "info", stream: IO[str] | None = None) -> None:
    """Send all that is logged in this process to `stream` (stderr) as JSON lines, and set the levels.

    Replaces whatever handlers the root logger had. ValueError if `levels` is no level specification.
    """
    parse_levels(levels)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_JsonLines())
    # A full disk or a closed stderr must not turn into tracebacks in the middle of the daemon's work.
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    logging.getLogger().handlers[:] = [handler]
    set_levels(levels)


def parse_levels(specification: str) -> dict[str, str]:
    """A level specification as levels by logger name; the plain level stands under the empty name.

    ValueError, which names the part at fault, if it is none.
    """
    levels: dict[str, str] = {}
    for part in specification.split(","):
        name, equals, level = (text.strip() for text in part.strip().rpartition("="))
        level = level.lower()
        if level not in LEVELS:
            raise ValueError(f"{level!r} is no log level; use one of {', '.join(LEVELS)}")
        if equals and not name:
            raise ValueError(f"{part.strip()!r} names no logger; write NAME=LEVEL")
        if name in levels:
            raise ValueError(
                f"two levels for {name!r}" if name else "two levels for all loggers; write NAME=LEVEL"
            )
        levels[name] = level
    levels.setdefault("", "info")
    return levels


def set_levels(specification: str) -> None:
    """Apply a level specification from now on; what it does not name goes back to the default.

    ValueError, with nothing changed, if it is no specification.
    """
    global _specification
    levels = parse_levels(specification)
    base = levels.pop("")
    wanted = dict.fromkeys(_OWN, base) | levels
    with _lock:
        for name in _named - wanted.keys():
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger().setLevel(max(logging.WARNING, LEVELS[base]))
        for name, level in wanted.items():
            logging.getLogger(name).setLevel(LEVELS[level])
        _named.clear()
        _named.update(wanted)
        _specification = specification


def levels() -> str:
    """The level specification in force."""
    return _specification
