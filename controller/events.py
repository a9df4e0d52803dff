# SPDX-License-Identifier: Apache-2.0
"""Events: what happened to objects, for people to read, in the shape of Kubernetes' Events (v1).

They are kept in memory, the newest :data:`LIMIT`, and lost with the process: nothing is decided by them. One
that is like an earlier one (same object, type, reason and message) is counted there. Owned by the asyncio
thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sdn import logs

log = logs.get("controller.events")

EventType = Literal["Normal", "Warning"]

#: The kind; it can be shown, not declared.
EVENT = "Event"
#: Events that are kept.
LIMIT = 2_000
#: Name of this component, as ``source`` shows it.
SOURCE = "sdn-controller"


@dataclass(slots=True)
class _Happening:
    """One event, and how often it was."""

    namespace: str
    name: str
    kind: str
    object_namespace: str
    object_name: str
    type: EventType
    reason: str
    message: str
    first: datetime
    last: datetime
    count: int = 1


class Events:
    """The newest events."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        #: Told namespace and name of each event that comes, is counted again, or is forgotten.
        self.on_change: Callable[[str, str], None] = lambda _namespace, _name: None
        self._clock = clock
        self._made = 0
        #: In the order of their last time, oldest first.
        self._by_text: OrderedDict[tuple[str, ...], _Happening] = OrderedDict()
        self._by_name: dict[tuple[str, str], _Happening] = {}

    def record(
        self, kind: str, namespace: str, name: str, type: EventType, reason: str, message: str
    ) -> None:
        """Something happened to an object. ``reason`` is one word in CamelCase, for machines; ``message`` a
        sentence, for people.
        """
        key = kind, namespace, name, type, reason, message
        now = self._clock()
        happening = self._by_text.get(key)
        if happening is not None:
            happening.count += 1
            happening.last = now
            self._by_text.move_to_end(key)
        else:
            self._made += 1
            # Kubernetes keeps events of cluster-scoped objects in "default", too.
            happening = _Happening(
                namespace=namespace or "default",
                name=f"{name}.{int(now.timestamp()):x}{self._made:06x}",
                kind=kind,
                object_namespace=namespace,
                object_name=name,
                type=type,
                reason=reason,
                message=message,
                first=now,
                last=now,
            )
            self._by_text[key] = happening
            self._by_name[happening.namespace, happening.name] = happening
        level = log.warning if type == "Warning" else log.info
        level("event", kind=kind, namespace=namespace, name=name, reason=reason, message=message)
        self.on_change(happening.namespace, happening.name)
        while len(self._by_text) > LIMIT:
            _, oldest = self._by_text.popitem(last=False)
            del self._by_name[oldest.namespace, oldest.name]
            self.on_change(oldest.namespace, oldest.name)

    def names(self) -> list[tuple[str, str]]:
        """Namespace and name of every event, the one that happened last at the end."""
        return [(happening.namespace, happening.name) for happening in self._by_text.values()]

    def document(self, namespace: str, name: str) -> dict[str, Any] | None:
        """One event; None when it is not, or no longer, known."""
        happening = self._by_name.get((namespace, name))
        return _document(happening) if happening is not None else None

    def about(self, kind: str, namespace: str, name: str) -> list[dict[str, Any]]:
        """What happened to an object, the newest last."""
        return [
            _document(happening)
            for happening in self._by_text.values()
            if (happening.kind, happening.object_namespace, happening.object_name) == (kind, namespace, name)
        ]


def _document(happening: _Happening) -> dict[str, Any]:
    involved = {"kind": happening.kind, "name": happening.object_name}
    if happening.object_namespace:
        involved["namespace"] = happening.object_namespace
    return {
        "apiVersion": "v1",
        "kind": EVENT,
        "metadata": {"name": happening.name, "namespace": happening.namespace},
        "involvedObject": involved,
        "type": happening.type,
        "reason": happening.reason,
        "message": happening.message,
        "count": happening.count,
        "firstTimestamp": _text(happening.first),
        "lastTimestamp": _text(happening.last),
        "source": {"component": SOURCE},
    }


def _text(moment: datetime) -> str:
    """RFC 3339, in whole seconds, as Kubernetes' Time writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
