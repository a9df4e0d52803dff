# SPDX-License-Identifier: Apache-2.0
"""Random partitions of what controls a cluster: controllers, etcd members, and the ways from controllers to nodes.

Nodes are never cut from each other, nor from the outside: whatever happens to their controllers, packets must go on.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sdn.lab.partitions import Cut
from sdn.lab.spec import LabSpec

#: Seconds for which a partition lasts before the next one takes its place: most of them, and one of so many. Longer
#: ones are noticed by the controllers even after false alarms, which make them wait.
_SHORT, _LONG, _LONG_OF = (0.2, 1.6), (2.0, 4.5), 8
#: One of so many times all is whole for some seconds, that switches may be given back.
_WHOLE, _WHOLE_OF = (4.0, 8.0), 25


@dataclass(frozen=True, slots=True)
class Partition:
    """What is cut at one time; nothing: all is whole."""

    cuts: tuple[Cut, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.cuts)) or 'whole'} for {self.seconds:.2f} s"


class Storm:
    """The same for the same lab and the same random numbers."""

    def __init__(self, spec: LabSpec, rng: random.Random) -> None:
        self._rng = rng
        self._controllers = [machine.name for machine in spec.controller_machines]
        self._members = [machine.name for machine in spec.store_machines]
        self._nodes = [machine.name for machine in spec.node_machines]
        self._kinds: tuple[Callable[[], list[Cut]], ...] = (
            self._controller_alone,
            self._controller_from_its_like_and_the_store,
            self._controller_from_its_like_and_the_store,
            self._controller_from_its_like,
            self._controller_that_does_not_hear_its_switches,
            self._controller_that_does_not_hear_its_switches,
            self._controller_whose_writes_come_late,
            self._controller_whose_writes_come_late,
            self._controller_from_the_store,
            self._controller_from_some_nodes,
            self._pair,
            self._one_way,
            self._one_way,
            self._unheard,
            self._member_alone,
            self._split,
        )

    def next(self) -> Partition:
        """One kind of partition, or two at once; now and then none."""
        if self._rng.randrange(_WHOLE_OF) == 0:
            return Partition((), self._rng.uniform(*_WHOLE))
        count = 1 + (self._rng.random() < 0.4)
        cuts = [cut for kind in self._rng.choices(self._kinds, k=count) for cut in kind()]
        seconds = self._rng.uniform(*(_LONG if self._rng.randrange(_LONG_OF) == 0 else _SHORT))
        return Partition(tuple(dict.fromkeys(cuts)), seconds)

    def _controller(self) -> str:
        return self._rng.choice(self._controllers)

    @staticmethod
    def _but(names: Sequence[str], one: str) -> list[str]:
        return [name for name in names if name != one]

    def _controller_alone(self) -> list[Cut]:
        return [Cut(self._controller())]

    def _controller_from_its_like_and_the_store(self) -> list[Cut]:
        """It reaches its switches all the same."""
        one = self._controller()
        return [Cut(one, other) for other in (*self._but(self._controllers, one), *self._members)]

    def _controller_that_does_not_hear_its_switches(self) -> list[Cut]:
        """What it writes arrives, and it is told neither that, nor by anybody that it was deposed."""
        found = self._controller_from_its_like_and_the_store()
        return found + [Cut(node, found[0].one, one_way=True) for node in self._nodes]

    def _controller_whose_writes_come_late(self) -> list[Cut]:
        """It is replaced meanwhile."""
        found = self._controller_from_its_like_and_the_store()
        return found + [Cut(found[0].one, node, one_way=True) for node in self._nodes]

    def _controller_from_its_like(self) -> list[Cut]:
        one = self._controller()
        return [Cut(one, other) for other in self._but(self._controllers, one)]

    def _controller_from_the_store(self) -> list[Cut]:
        one = self._controller()
        return [Cut(one, member) for member in self._members]

    def _controller_from_some_nodes(self) -> list[Cut]:
        one = self._controller()
        return [
            Cut(one, node) for node in self._rng.sample(self._nodes, self._rng.randint(1, len(self._nodes)))
        ]

    def _two(self) -> list[str]:
        """Two that are not both nodes."""
        one = self._rng.choice(self._controllers + self._members)
        others = self._controllers + self._members + (self._nodes if one in self._controllers else [])
        pair = [one, self._rng.choice(self._but(others, one))]
        self._rng.shuffle(pair)
        return pair

    def _pair(self) -> list[Cut]:
        one, other = self._two()
        return [Cut(one, other)]

    def _one_way(self) -> list[Cut]:
        one, other = self._two()
        return [Cut(one, other, one_way=True)]

    def _unheard(self) -> list[Cut]:
        """A controller hears everybody, and nobody hears it; or the other way round."""
        one, says = self._controller(), self._rng.random() < 0.5
        others = (*self._but(self._controllers, one), *self._members, *self._nodes)
        return [Cut(*((other, one) if says else (one, other)), one_way=True) for other in others]

    def _member_alone(self) -> list[Cut]:
        return [Cut(self._rng.choice(self._members))]

    def _split(self) -> list[Cut]:
        """Controllers and members in two halves that do not hear each other. All reach all nodes."""
        everybody = self._controllers + self._members
        half = set(self._rng.sample(everybody, len(everybody) // 2))
        return [
            Cut(*pair)
            for pair in itertools.combinations(everybody, 2)
            if (pair[0] in half) != (pair[1] in half)
        ]
