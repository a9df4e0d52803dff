# SPDX-License-Identifier: Apache-2.0
"""What happened to objects, as people are told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controller.events import LIMIT, Events


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_an_event_has_the_shape_of_kubernetes_events() -> None:
    events = Events(Clock())
    events.record("Service", "shop", "web", "Warning", "AllocationFailed", "no address is left")
    (event,) = events.about("Service", "shop", "web")
    name = event["metadata"].pop("name")
    assert name.startswith("web.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "shop"},
        "involvedObject": {"kind": "Service", "namespace": "shop", "name": "web"},
        "type": "Warning",
        "reason": "AllocationFailed",
        "message": "no address is left",
        "count": 1,
        "firstTimestamp": "2030-01-02T03:04:05Z",
        "lastTimestamp": "2030-01-02T03:04:05Z",
        "source": {"component": "sdn-controller"},
    }
    assert events.document("shop", name) is not None
    assert events.document("default", name) is None


def test_an_event_of_a_cluster_scoped_object_is_in_the_default_namespace() -> None:
    events = Events()
    events.record("Node", "", "node-1", "Normal", "Ready", "yes")
    ((namespace, name),) = events.names()
    assert namespace == "default"
    document = events.document(namespace, name)
    assert document is not None
    assert document["involvedObject"] == {"kind": "Node", "name": "node-1"}


def test_what_happens_again_is_counted_and_is_the_newest() -> None:
    clock = Clock()
    told: list[str] = []
    events = Events(clock)
    events.on_change = lambda _namespace, name: told.append(name)
    events.record("Service", "shop", "web", "Warning", "A", "first")
    events.record("Service", "shop", "web", "Warning", "B", "second")
    clock.now += timedelta(minutes=1)
    events.record("Service", "shop", "web", "Warning", "A", "first")
    events.record("Service", "shop", "other", "Warning", "A", "first")
    seen = events.about("Service", "shop", "web")
    assert [(event["reason"], event["count"]) for event in seen] == [("B", 1), ("A", 2)]
    assert seen[1]["firstTimestamp"] == "2030-01-02T03:04:05Z"
    assert seen[1]["lastTimestamp"] == "2030-01-02T03:05:05Z"
    assert told[0] == told[2]
    assert len(set(told)) == 3


def test_only_the_newest_events_are_kept() -> None:
    events = Events()
    gone: list[bool] = []
    events.on_change = lambda *name: gone.append(events.document(*name) is None)
    for number in range(LIMIT + 5):
        events.record("Pod", "default", f"p-{number}", "Normal", "Here", "here")
    assert len(events.names()) == LIMIT
    assert sum(gone) == 5
    assert events.about("Pod", "default", "p-4") == []
    assert len(events.about("Pod", "default", "p-5")) == 1
    assert len({name for _, name in events.names()}) == LIMIT
