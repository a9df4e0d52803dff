# SPDX-License-Identifier: Apache-2.0
"""Several controllers' OpenFlow sides in one process, all connected to one real switch."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any

from controller import osken
from controller.addresses import format_address
from controller.changes import Done
from controller.connection import SwitchConnection
from controller.listener import Listener
from controller.listening import listen
from controller.synchronizer import Synchronizer
from sdn.pipeline.flow import Flow, Group
from tests.switch.controllers import set_targets
from tests.switch.ovs import PrivateSwitch, wait_until

PATIENCE = 60.0


class Member:
    """One controller's synchronizer of the switch, and what it has said."""

    def __init__(self, name: str, owned: int | None, serve: Callable[[Member, Any, Any], None]) -> None:
        self.name = name
        self.deposed: list[int] = []
        self.synchronizer = Synchronizer(
            "node-1", owned=owned, on_deposed=lambda _node, generation, _seen: self.deposed.append(generation)
        )
        self.listener = Listener(listen("127.0.0.1:0"), functools.partial(serve, self))

    def submit(self, part: object, entries: Iterable[Flow | Group] | None) -> Callable[[], str | None]:
        """Gives what waits for the answer, and gives it."""
        said = threading.Event()
        answer: list[str | None] = []

        def done(why: str | None) -> None:
            answer.append(why)
            said.set()

        submitted: Done = done
        compiled = None if entries is None else functools.partial(list, entries)
        self.synchronizer.submit(part, compiled, submitted)  # type: ignore[arg-type]

        def wait() -> str | None:
            if not said.wait(PATIENCE):
                raise AssertionError(f"{self.name} was not told of {part}")
            assert len(answer) == 1
            return answer[0]

        return wait

    def put(self, part: object, entries: Iterable[Flow | Group] | None) -> str | None:
        """Wait for the answer."""
        return self.submit(part, entries)()

    def wait_synchronized(self) -> None:
        wait_until(lambda: self.synchronizer.status.synchronized, f"{self.name} to be synchronized")

    def wait_linked(self) -> None:
        wait_until(
            lambda: self.synchronizer.status.linked and self.synchronizer.status.role is not None,
            f"the switch to be connected to {self.name}",
        )

    def unaware(self) -> None:
        """From now on it does not hear that the switch has another master, as one that was stopped."""
        connection = self.synchronizer.connection
        assert connection is not None
        connection.on_role_status = lambda _status: None


class Controllers:
    """Takes the switchboard's place. ``owned`` has for each controller its generation, None: it does not own the
    switch.
    """

    def __init__(self, switch: PrivateSwitch, *owned: int | None) -> None:
        self.switch = switch
        self.members = [
            Member(f"controller-{number}", each, self._serve) for number, each in enumerate(owned, 1)
        ]
        #: Whose a connection is, by the switch's end of it.
        self._whose: dict[str, Member] = {}
        self._of: dict[SwitchConnection, Member] = {}
        accepting = [
            threading.Thread(target=member.listener.accept_forever, daemon=True)
            for member in self.members[1:]
        ]
        first = self.members[0].listener.accept_forever
        self._manager = osken.start(["controller.app"], first, switchboard=self)
        for thread in accepting:
            thread.start()

    def connect(self) -> None:
        """Let the switch connect to all."""
        set_targets(self.switch, [f"tcp:127.0.0.1:{member.listener.port}" for member in self.members])
        for member in self.members:
            member.wait_linked()

    def _serve(self, member: Member, socket: Any, address: Any) -> None:
        self._whose[format_address(address)] = member
        osken.serve_connection(socket, address)

    def connected(self, connection: SwitchConnection) -> None:
        member = self._of[connection] = self._whose[connection.address]
        member.synchronizer.connected(connection)

    def disconnected(self, connection: SwitchConnection) -> None:
        connection.ended()
        self._of.pop(connection).synchronizer.disconnected(connection)

    def close(self) -> None:
        for member in self.members:
            member.listener.close()
            member.synchronizer.stop(close=True)
        wait_until(lambda: not self._of, "the connections to end")
        osken.stop(self._manager)
