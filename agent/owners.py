# SPDX-License-Identifier: Apache-2.0
"""Who owns this node's switch, as every controller says it on a stream of its own.

Each controller that is known (those of the settings, and those that the controllers name) has a connection that is kept
open, a stream WatchOwner on it, and a thread that begins the stream anew when it breaks. So one that is silent delays
nothing at another, and what was true before is not asked for at the moment when it is needed.

The connections are there for the other streams, too (`connection`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import grpc

from agent import channel
from agent.channel import Pause
from agent.ownerwords import Owner, View, Words
from sdn import logs
from sdn.v1 import controller_pb2 as messages
from sdn.v1.controller_pb2_grpc import ControllerStub

__all__ = ["Owner", "Owners", "View"]

log: Final = logs.get("agent.owners")

#: A controller that knows nothing of owners (an older one) is asked again after so long at most.
_WORDLESS_SECONDS: Final = 5.0
#: Ends of a stream that say that nobody is there; any other is an answer.
_NOBODY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.OK,
)


class Owners:
    """Follows all controllers. May be used from any thread."""

    def __init__(self, controllers: Sequence[str], node: str) -> None:
        self._node = node
        self._words = Words(node, controllers)
        self._links: dict[str, _Link] = {}
        self._subscribers: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._ending = False
        #: What is known now; replaced, never changed.
        self.view = self._words.view()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """`changed` is called whenever `view` is another one, in any thread; it must not wait. Before `start`."""
        self._subscribers.append(changed)

    def start(self) -> None:
        with self._lock:
            self._follow()

    def close(self) -> None:
        """End every stream and connection."""
        with self._lock:
            self._ending = True
            links, self._links = self._links, {}
        for link in links.values():
            link.close()
        for link in links.values():
            link.join()

    @contextmanager
    def connection(self, controller: str) -> Iterator[grpc.Channel]:
        """The connection to a controller; to one that is not followed, one for this use. It is closed under the user
        when nobody names the controller any more: calls on it fail then, new ones with ValueError.
        """
        with self._lock:
            link = self._links.get(controller)
        if link is not None:
            yield link.channel
        else:
            with channel.channel(controller) as connection:
                yield connection

    def lost(self, controller: str) -> None:
        """A stream at this controller has ended, or did not come about. Of one that says nothing of owners nothing else
        would tell: it is asked again now. It may be another one than before.
        """
        with self._lock:
            link = self._links.get(controller)
            wordless = self._words.wordless(controller)
        if link is not None and wordless:
            link.again()

    def heard(self, controller: str, word: messages.Owner | None) -> None:
        """A controller has answered; None: it says nothing of owners."""
        with self._lock:
            if controller not in self._links:
                return
            before = self.view.owner
            self._words.heard(controller, word, time.monotonic())
            told = self._follow()
            owner = self.view.owner
        if owner != before:
            log.info(
                "the switch has an owner" if owner.controller else "the switch has no owner",
                controller=owner.controller,
                address=owner.address,
                generation=owner.generation,
                told_by=controller,
            )
        self._tell(told)

    def silent(self, controller: str, why: str) -> None:
        """A controller's stream has ended, or did not come about."""
        with self._lock:
            if controller in self.view.answering:
                log.info("a controller is silent", controller=controller, error=why)
            if controller not in self._links:
                return
            self._words.silent(controller, time.monotonic())
            told = self._follow()
        self._tell(told)

    def _follow(self) -> bool:
        """Make the view and the connections what the words say; whether the view is another one."""
        if self._ending:
            return False
        before, self.view = self.view, self._words.view()
        while unknown := self._links.keys() - set(self.view.known):
            for controller in unknown:
                log.info("a controller is not followed any more", controller=controller)
                self._links.pop(controller).close()
                self._words.silent(controller, time.monotonic())
            # Those that nobody else named are unknown now, too.
            self.view = self._words.view()
        for controller in self.view.known:
            if controller not in self._links:
                self._links[controller] = _Link(self, controller, self._node)
        return self.view != before

    def _tell(self, changed: bool) -> None:
        if changed:
            for subscriber in self._subscribers:
                subscriber()


class _Link:
    """The connection to one controller, and the thread that follows what it says."""

    def __init__(self, owners: Owners, controller: str, node: str) -> None:
        self.channel = channel.channel(controller)
        self._owners = owners
        self._controller = controller
        self._node = node
        self._lock = threading.Lock()
        self._call: grpc.Call | None = None
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"owner-{controller}"[:60], daemon=True)
        self._thread.start()

    def again(self) -> None:
        """Ask again now, if it waits to."""
        self._wake.set()

    def close(self) -> None:
        """End it; from any thread, its own included."""
        with self._lock:
            self._ended = True
            call = self._call
        if call is not None:
            call.cancel()
        self.channel.close()
        self._wake.set()

    def join(self) -> None:
        self._thread.join(timeout=5)

    def _run(self) -> None:
        stub = ControllerStub(self.channel)
        pause, seldom = Pause(), Pause(_WORDLESS_SECONDS, _WORDLESS_SECONDS)
        wordless = False
        while not self._ended:
            began: float | None = None
            self._wake.clear()
            try:
                # Waits for a connection, which gRPC tries to make again and again. Of one that says nothing there is no
                # stream whose end would tell that it is gone: this tells.
                call = stub.WatchOwner(
                    messages.WatchOwnerRequest(node=self._node), wait_for_ready=not wordless
                )
            except ValueError:
                return  # closed meanwhile
            with self._lock:
                self._call = call
                if self._ended:
                    call.cancel()
            code, why = grpc.StatusCode.OK, "the controller ended the stream"
            try:
                for word in call:
                    began = began or time.monotonic()
                    self._owners.heard(self._controller, word)
            except grpc.RpcError as error:
                code, why = channel.code(error), channel.problem(error)
            if self._ended:
                return
            wordless = code not in _NOBODY
            if not wordless:
                self._owners.silent(self._controller, why)
            else:
                log.debug("a controller says nothing of owners", controller=self._controller, error=why)
                self._owners.heard(self._controller, None)
            if began is not None and time.monotonic() - began > channel.SETTLED_SECONDS:
                pause.reset()
            unknown = code is grpc.StatusCode.UNIMPLEMENTED
            self._wake.wait(seldom.next() if unknown else pause.next())
