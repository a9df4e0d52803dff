# SPDX-License-Identifier: Apache-2.0
"""What every daemon of ours does alike: settings, logs, signals, uncaught exceptions, state folders, the end.

    def serve(config: AgentSettings, stop: daemon.Stop) -> None:
        folder = daemon.private_folder(config.state_dir)      # 0700, ours
        with daemon.hold(folder):                             # refuses a second daemon on the same state
            server = start(...)
            stop.ready("serving")                             # READY=1 for the service manager, a log line
            stop.wait()                                       # until SIGTERM or SIGINT
            server.close()                                    # forwarding is never touched by the end

    def main() -> int:                                        # the console script
        return daemon.run("sdn-agent", AgentSettings, serve)

asyncio fits in as `asyncio.run(main_task(config, stop))` inside `serve`, with `await stop.wait_async()`.

Signals: SIGTERM and SIGINT set `stop`, and a second SIGINT ends the process at once; SIGHUP reads the
settings again and applies `log_level` (other changes are named in the log: they need a restart); SIGUSR2
writes every thread's stack to stderr. They are taken up by a thread of their own, so a busy or blocked main
thread delays none of them.

An exception that nobody caught, in whichever thread, is one log line with its traceback in a field, and ends
the process with code 1: a daemon that has lost a thread must not go on half alive, and the supervisor's
restart disturbs nothing that forwards. Exit codes: 0 asked to end, 1 failed, 2 wrong settings.
"""

import asyncio
import faulthandler
import fcntl
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, TypeVar

from sdn import logs, notify, settings
from sdn.version import VERSION

UMASK: Final = 0o027
"""Files of a daemon are readable by its group at most, sockets usable by its group at most."""

log: Final = logs.get("sdn.daemon")

S = TypeVar("S", bound=settings.Settings)


class StartError(Exception):
    """The daemon cannot start, for a reason that an operator can mend; one log line, no traceback."""


class Stop:
    """Whether, and why, this daemon is to end. Safe to use from every thread; set once, never cleared."""

    def __init__(self, announce: Callable[[str], None] = lambda reason: None) -> None:
        """`announce` is told the reason before anybody else learns that the end has come."""
        self._announce = announce
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.reason = ""
        self.exit_code = 0

    def set(self, reason: str, exit_code: int = 0) -> None:
        """Ask the daemon to end. The first reason stays; a failure's exit code wins over 0."""
        with self._lock:
            self.exit_code = self.exit_code or exit_code
            if self._event.is_set():
                return
            self.reason = reason
            self._announce(reason)
            self._event.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether the daemon is to end."""
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the daemon is to end, at most `timeout` seconds; True if it is."""
        return self._event.wait(timeout)

    async def wait_async(self) -> None:
        """Wait, inside an event loop, until the daemon is to end."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            # The loop may have been closed between the waiting and the signal; then nobody waits any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        self.on_stop(wake)
        await done.wait()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Call this once when the daemon is to end, at once if that is so already. It must not block."""
        with self._lock:
            if not self._event.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def ready(self, status: str = "") -> None:
        """Start-up is complete: tell the service manager and the log."""
        notify.ready(status)
        log.info("ready", status=status)


def run(
    prog: str,
    cls: type[S],
    serve: Callable[[S, Stop], None],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run a daemon until it is asked to end or fails; returns its exit code.

    Must be called in the main thread, since only that one may set signal handlers. SystemExit for `--help`,
    `--version` and wrong settings. `argv` and `environ` are the process's own unless given.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    variables = os.environ if environ is None else environ
    config = settings.load(cls, prog, arguments, variables)
    logs.setup(config.log_level)
    os.umask(UMASK)
    # At once, not when all is put away: the service manager then knows that the rest is meant.
    stop = Stop(lambda reason: _announce_end(prog, reason))
    _catch_uncaught(stop)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    reload = _Reload(prog, cls, arguments, variables, config)
    _take_signals(stop, reload)
    log.info("starting", program=prog, version=VERSION, pid=os.getpid(), settings=_shown(config))
    try:
        serve(config, stop)
    except StartError as problem:
        log.critical("cannot start", program=prog, error=str(problem))
        stop.set("cannot start", exit_code=1)
    except Exception:  # the last line of defence: said in one line, then the process ends
        log.exception("failed", program=prog)
        stop.set("an exception ended it", exit_code=1)
    stop.set("its work is done")
    log.info("ended", program=prog, reason=stop.reason, exit_code=stop.exit_code)
    return stop.exit_code


def _announce_end(prog: str, reason: str) -> None:
    notify.stopping(reason)
    log.info("ending", program=prog, reason=reason)


def _shown(config: settings.Settings) -> dict[str, str]:
    return {name: str(getattr(config, name)) for name in config.__struct_fields__}


# --- signals ------------------------------------------------------------------------------------------------


class _Reload:
    """SIGHUP: reads the settings again, applies the log level, and names what else would need a restart."""

    def __init__(
        self,
        prog: str,
        cls: type[settings.Settings],
        argv: Sequence[str],
        environ: Mapping[str, str],
        config: settings.Settings,
    ) -> None:
        self._prog = prog
        self._cls = cls
        self._argv = argv
        self._environ = environ
        self._running = config

    def __call__(self) -> None:
        notify.reloading()
        try:
            fresh = settings.read(self._cls, self._prog, self._argv, self._environ)
        except settings.SettingsError as problem:
            log.error("settings not reloaded", program=self._prog, error=str(problem))
        else:
            logs.set_levels(fresh.log_level)
            changed = [
                name
                for name in fresh.__struct_fields__
                if name != "log_level" and getattr(fresh, name) != getattr(self._running, name)
            ]
            log.info("settings reloaded", program=self._prog, log_level=fresh.log_level, need_restart=changed)
        notify.ready()


def _take_signals(stop: Stop, reload: Callable[[], None]) -> None:
    """Route the signals to a thread.

    Python's own handlers run in the main thread, between two of its bytecodes: there they could deadlock on a
    lock that the main thread holds, or wait for ever behind a blocking call into C.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _noted)

    def dispatch() -> None:
        while numbers := os.read(reader, 64):
            for number in numbers:
                if number == signal.SIGHUP:
                    reload()
                elif number == signal.SIGTERM or (number == signal.SIGINT and not stop.is_set()):
                    stop.set(signal.Signals(number).name)
                elif number == signal.SIGINT:
                    log.warning("interrupted twice, ending at once")
                    os._exit(130)

    threading.Thread(target=dispatch, name="signals", daemon=True).start()


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has carried the number already; a handler must exist for that to happen."""


# --- uncaught exceptions ------------------------------------------------------------------------------------


def _catch_uncaught(stop: Stop) -> None:
    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return
        name = args.thread.name if args.thread is not None else ""
        log.critical("a thread ended by an exception", thread=name, **_described(args.exc_value))
        stop.set(f"thread {name} failed", exit_code=1)

    def in_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("ended by an exception", **_described(error.with_traceback(trace)))

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        log.error("an exception could not be raised", where=repr(args.object), **_described(args.exc_value))

    threading.excepthook = in_thread
    sys.excepthook = in_main
    sys.unraisablehook = unraisable


def _described(error: BaseException | None) -> dict[str, str]:
    if error is None:
        return {}
    return {"error": logs.error_text(error), "traceback": "".join(traceback.format_exception(error))}


# --- folders ------------------------------------------------------------------------------------------------


def private_folder(path: Path) -> Path:
    """A state folder that only this daemon may look into (0700), made with its parents where missing."""
    return _folder(path, 0o700)


def shared_folder(path: Path) -> Path:
    """A folder, such as that of sockets, which the daemon's group may enter too (0750)."""
    return _folder(path, 0o750)


def _folder(path: Path, mode: int) -> Path:
    try:
        # Parents such as /var/lib/sdn are everybody's to pass through, whatever our umask is.
        previous = os.umask(0o022)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=mode, exist_ok=True)
        finally:
            os.umask(previous)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise StartError(
                f"folder {path} belongs to uid {found.st_uid}, not to this daemon's uid {os.geteuid()}"
            )
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)
    except FileExistsError:
        raise StartError(f"folder {path} cannot be made: it, or a part of its path, is a file") from None
    except OSError as problem:
        raise StartError(f"folder {path} cannot be used: {problem.strerror or problem}") from None
    return path


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep a state folder for this process alone while the context lasts; StartError if another one holds it.

    The kernel drops the lock when the process ends, however it ends, so nothing is left to clean up.
    """
    path = folder / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise StartError(f"file {path} cannot be used: {problem.strerror or problem}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise StartError(
                f"state folder {folder} is in use by process {holder}; two daemons must not share one"
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as problem:
            # A full disk. The lock is what counts; the number is only for the words of whoever finds it taken.
            log.warning("the state folder does not name its holder", folder=folder, error=str(problem))
        yield
    finally:
        os.close(handle)
