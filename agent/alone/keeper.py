# SPDX-License-Identifier: Apache-2.0
"""Keeps an image of br-int on disk, and puts it back when the switch has lost everything and no controller is there.

**Keeping.** Controllers change a switch by atomic bundles alone, each of which makes it all that it must be. So once a
controller has confirmed the node's full state, whatever the switch holds at any moment is right, until it is started
anew. It is read when it has changed (the switch tells, `sdn.openflow.notices`), has been quiet for a moment, and again
only after a pause that grows with what reading costs: what many pods and policies change in a row is read once. A
reading during which it was changed tells nothing, and the next one comes sooner. What was confirmed last is read when
the agent ends, too. What a full disk refuses is tried again, and held in memory until.
What is changed while no controller is there is nobody's, and put right by nobody: from then on nothing is kept before a
controller has confirmed the full state again.

**Putting back.** A switch without any flow or group is one that was just started, or made. Controllers have a moment to
connect and to write it, a longer one while one of them has the agent's stream. Then everything is written, in one
bundle, if it still is empty. A controller may have connected meanwhile, have found the switch empty or written it
already, and would not know what was put over that: all connections of controllers are made anew, and the first thing
that a controller does with a new one is to compare. So what is put back lasts until a controller says otherwise, and no
longer.

What the switch has learned itself (which endpoint a client had last) is not kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.alone.image import ImageError, ImageFile, SwitchImage, UnreadError, UnwrittenError
from agent.alone.switch import LocalSwitch, RefusedError
from agent.management import LocalSwitchError
from agent.vswitchd import VswitchdRefused, VswitchdUnavailable
from sdn import logs
from sdn.openflow import CodecError

log: Final = logs.get("agent.alone")

#: How long an empty switch waits for controllers: when none has the agent's stream, and when one has.
ALONE_SECONDS: Final = 0.5
ATTENDED_SECONDS: Final = 5.0
#: Without a change for so long, the switch is read; or so long after the first change.
_QUIET_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 5.0
#: Reading may take a fortieth of the time.
_PAUSE_FACTOR: Final = 40.0
#: Less of a pause is made when it was changed meanwhile; twice as much each time that it was in a row.
_CHANGED_FACTOR: Final = 2.0
#: When the agent ends it is read so long until it was not changed meanwhile: less than `close` waits.
_LAST_SECONDS: Final = 4.0
#: A reading that fails may have waited for long, and costs no longer a pause than this.
_UNREAD_SECONDS: Final = 60.0
#: After a disk has refused an image, it is tried again no sooner.
_DISK_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 0.1


class Keeper:
    """See the module. A thread of its own."""

    def __init__(
        self,
        folder: Path,
        socket: Path,
        *,
        datapath_id: Callable[[], int],
        attended: Callable[[], bool],
        confirmed: Callable[[], bool],
        reconnect: Callable[[], object],
    ) -> None:
        """`socket` is the bridge's management socket. `attended`: a controller has the agent's stream; `confirmed`: it
        has confirmed everything, too. `reconnect` lets all controllers of the switch connect anew.
        """
        self._file = ImageFile(folder)
        self._socket = socket
        self._datapath_id = datapath_id
        self._attended = attended
        self._confirmed = confirmed
        self._reconnect = reconnect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch-image", daemon=True)
        #: What was said last and is not said again.
        self._told = ""
        #: What should be on disk, which has not taken it.
        self._unwritten: SwitchImage | None = None
        #: When the switch may be read again, whichever connection it was read on.
        self.not_before = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End it; what the switch holds then is kept, if that takes no longer than this waits."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with LocalSwitch(self._socket) as switch:
                    self._told = ""
                    _Following(self, switch).run(self._stop)
            except (LocalSwitchError, CodecError) as problem:
                self._tell("the switch cannot be followed", problem)
            self._stop.wait(_RETRY_SECONDS)
        self.write_again()

    def _tell(self, what: str, problem: Exception) -> None:
        text = f"{what}: {problem}"
        if text != self._told:
            self._told = text
            log.info(what, error=str(problem))

    # --- for the following

    def grace(self) -> float:
        """How long an empty switch waits for a controller."""
        return ATTENDED_SECONDS if self._attended() else ALONE_SECONDS

    def trusted(self) -> bool:
        """Whether what the switch holds now was confirmed by a controller."""
        return self._confirmed()

    def save(self, switch: LocalSwitch) -> bool:
        """Read the switch and keep what it holds; False when it was changed meanwhile, or the disk has not taken it.
        LocalSwitchError, CodecError.
        """
        began = time.monotonic()
        image = switch.read(self._datapath_id())
        if image is None:
            return False
        if not image.flows:
            return True
        read = time.monotonic()
        former, self._unwritten = self._unwritten, None
        try:
            if self._file.save(image):
                log.debug(
                    "kept what the switch holds",
                    flows=len(image.flows),
                    groups=len(image.groups),
                    read_seconds=round(read - began, 4),
                    written_seconds=round(time.monotonic() - read, 4),
                )
        except UnwrittenError as problem:
            self._unwritten = image
            if former is None:
                log.warning(
                    "what the switch holds is not on disk yet", file=str(self._file.path), error=str(problem)
                )
            return False
        except ImageError as problem:
            log.warning("what the switch holds cannot be kept", file=str(self._file.path), error=str(problem))
        return True

    def write_again(self) -> None:
        """What the disk has not taken, as it was, if there is any."""
        if self._unwritten is None:
            return
        try:
            self._file.save(self._unwritten)
        except UnwrittenError as problem:
            log.debug("what the switch held is not on disk yet", error=str(problem))
        except ImageError as problem:
            log.warning("what the switch held cannot be kept", file=str(self._file.path), error=str(problem))
        else:
            self._unwritten = None

    @property
    def disk_refuses(self) -> bool:
        """Whether the disk has not taken what was to be kept last."""
        return self._unwritten is not None

    def put_back(self, switch: LocalSwitch) -> None:
        """Write what was kept into an empty switch. LocalSwitchError, CodecError."""
        image = self._kept()
        if image is None or not switch.is_empty():
            return
        began = time.monotonic()
        try:
            switch.write(image)
        except RefusedError as problem:
            log.error("the switch refused what it held before", error=str(problem))
            return
        finally:
            self._compare_anew()
        log.warning(
            "no controller is there: the switch got back what it held",
            flows=len(image.flows),
            groups=len(image.groups),
            seconds=round(time.monotonic() - began, 4),
        )

    def _kept(self) -> SwitchImage | None:
        try:
            # What is on disk may be older than what was to be there.
            image = self._unwritten or self._file.load()
        except UnreadError as problem:
            # No descriptor is free, for one: the switch stays empty until it can be read.
            raise LocalSwitchError(f"what it held cannot be read: {problem}") from None
        except ImageError as problem:
            log.warning("what the switch held is lost", file=str(self._file.path), error=str(problem))
            return None
        if image is not None and image.datapath_id != self._datapath_id():
            log.warning(
                "what was kept is another switch's",
                file=str(self._file.path),
                datapath_id=f"{image.datapath_id:016x}",
            )
            return None
        return image

    def _compare_anew(self) -> None:
        try:
            self._reconnect()
        except (VswitchdRefused, VswitchdUnavailable) as problem:
            log.warning("controllers do not connect anew", error=str(problem))


class _Following:
    """One connection to the switch: from its start, or the agent's, to its end."""

    def __init__(self, keeper: Keeper, switch: LocalSwitch) -> None:
        self._keeper = keeper
        self._switch = switch
        now = time.monotonic()
        self._began = now
        self._empty = switch.is_empty()
        #: Whether all that the switch is known to hold was confirmed: nothing has changed since without a controller.
        self._trusted = False
        #: When the first change came that is not on disk, and the last one; None: all is.
        self._first: float | None = now
        self._last = now
        #: The next pause after a reading during which the switch was changed.
        self._changed_factor = _CHANGED_FACTOR

    def run(self, stop: threading.Event) -> None:
        """Until the end. LocalSwitchError, CodecError."""
        while not stop.is_set():
            self._look()
            now = time.monotonic()
            if self._empty:
                if now - self._began >= self._keeper.grace():
                    self._keeper.put_back(self._switch)
                    self._empty = False
                continue
            self._trusted = self._trusted or self._keeper.trusted()
            if self._trusted and self._due(now):
                self._save(now)
            elif self._keeper.disk_refuses and not self._trusted and now >= self._keeper.not_before:
                # It was confirmed when it was read, whatever the switch holds now.
                self._keeper.write_again()
                self._keeper.not_before = now + _DISK_SECONDS
        self._save_last()

    def _save_last(self) -> None:
        """The next agent may find the switch started anew, and no controller."""
        until = time.monotonic() + _LAST_SECONDS
        while True:
            self._look()
            if not self._trusted or self._empty or self._first is None:
                return
            if self._keeper.save(self._switch) or self._keeper.disk_refuses or time.monotonic() >= until:
                return

    def _look(self) -> None:
        """Note that the switch has changed; waits a moment for that."""
        if self._switch.changed(_LOOK_SECONDS):
            self._trusted = self._trusted and self._keeper.trusted()
            self._last = time.monotonic()
            self._first = self._first or self._last
            self._empty = self._empty and self._switch.is_empty()

    def _due(self, now: float) -> bool:
        if self._first is None or now < self._keeper.not_before:
            return False
        return now - self._last >= _QUIET_SECONDS or now - self._first >= _LONGEST_SECONDS

    def _save(self, began: float) -> None:
        pause, longest = _PAUSE_FACTOR, _UNREAD_SECONDS
        try:
            if self._keeper.save(self._switch):
                self._first = None
                self._changed_factor = _CHANGED_FACTOR
            elif not self._keeper.disk_refuses:
                pause = min(pause, self._changed_factor)
                self._changed_factor = 2 * pause
            longest = math.inf
        finally:
            # When it fails, the next connection holds to it.
            now = time.monotonic()
            self._keeper.not_before = now + min(pause * (now - began), longest)
            if self._keeper.disk_refuses:
                self._keeper.not_before = max(self._keeper.not_before, now + _DISK_SECONDS)
