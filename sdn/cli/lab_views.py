# SPDX-License-Identifier: Apache-2.0
"""How a lab, its processes and who reaches whom are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sdn.cli import output
from sdn.cli.output import NONE, DataFormat

if TYPE_CHECKING:
    from sdn.lab.lab import Lab
    from sdn.lab.matrix import Reach

#: More sources than this, and a square table helps nobody.
_MATRIX_LIMIT = 16


def show_labs(form: DataFormat) -> None:
    """One line a lab."""
    from sdn.lab.lab import labs

    states = [lab.state() for lab in labs()]
    if form is not DataFormat.TABLE:
        _as_data(
            [{"name": s.name, "state": s.state, "created": s.created, "folder": s.folder} for s in states],
            form,
        )
    elif states:
        output.table(
            ("NAME", "STATE", "NODES", "PODS", "ENCAPSULATION", "DATAPATH", "CREATED"),
            [
                (
                    *(s.name, s.state, str(s.spec.nodes), str(len(s.pods))),
                    *(s.spec.encapsulation, s.spec.datapath, s.created),
                )
                for s in states
            ],
        )
    else:
        output.progress("no labs; `sdnctl lab up` makes one")


def show_status(lab: Lab, form: DataFormat) -> None:
    """Machines, processes and pods."""
    import msgspec

    state = lab.state()
    if form is not DataFormat.TABLE:
        _as_data(msgspec.to_builtins(state), form)
        return
    spec = state.spec
    output.line(
        f"lab {state.name} is {state.state}: {spec.nodes} nodes, {spec.encapsulation}, {spec.datapath}, "
        f"MTU {spec.mtu}, {' and '.join(spec.cluster_ranges)}; {state.folder}"
    )
    output.heading("Processes")
    output.table(
        ("NAME", "STATE", "PID", "UP", "NETNS", "SOCKETS"),
        [
            (
                *(p.name, p.state, str(p.pid or NONE), output.age(p.uptime) if p.pid else NONE, p.namespace),
                " ".join(f"{what}={where}" for what, where in p.sockets.items()),
            )
            for p in state.processes
        ],
    )
    output.heading("Machines")
    output.table(
        ("NAME", "NETNS", "ADDRESSES"),
        [(m.name, m.netns, output.joined(m.addresses)) for m in state.machines],
    )
    output.heading("Pods")
    if state.pods:
        output.table(
            ("NAMESPACE", "NAME", "NODE", "ADDRESSES", "NETNS", "CONTAINER"),
            [
                (p.namespace, p.name, p.node, output.joined(p.addresses), p.netns, p.container_id[:12])
                for p in state.pods
            ],
        )
    else:
        output.line(f"none; `sdnctl lab pod add NAME --name {state.name}` makes one")


def show_reaches(reaches: Sequence[Reach], form: DataFormat) -> None:
    """Who reaches whom: a square if it fits, then the figures, then what does not work."""
    import msgspec

    failed = [reach for reach in reaches if not reach.reachable]
    if form is not DataFormat.TABLE:
        _as_data(
            {
                "summary": {"tried": len(reaches), "reachable": len(reaches) - len(failed)},
                "results": [msgspec.to_builtins(reach) for reach in reaches],
            },
            form,
        )
        return
    if not reaches:
        output.line("no pods yet; `sdnctl lab pod add NAME` makes one")
        return
    if len({reach.source for reach in reaches}) <= _MATRIX_LIMIT:
        _square(reaches)
        output.line("")
    _figures(reaches)
    output.line("")
    for reach in failed[:40]:
        why = f" ({reach.error})" if reach.error else ""
        output.line(f"no answer: {reach.source} to {reach.destination}, {reach.family} {reach.address}{why}")
    if len(failed) > 40:
        output.line(f"... and {len(failed) - 40} more")
    output.line(f"{len(reaches) - len(failed)} of {len(reaches)} ways work")


def _square(reaches: Sequence[Reach]) -> None:
    """Rows reach columns; "46" is yes in both families, a "-" stands for a no."""
    cells: dict[tuple[str, str], dict[str, bool]] = {}
    for reach in reaches:
        cells.setdefault((reach.source, reach.destination), {})[reach.family] = reach.reachable
    names = list(dict.fromkeys(reach.source for reach in reaches))
    pods = [name for name in names if "/" in name]
    order = [*pods, *sorted(name for name in names if "/" not in name)]
    one_namespace = len({name.partition("/")[0] for name in pods}) == 1
    rows = []
    for source in order:
        row = [_short(source) if one_namespace else source]
        for destination in order:
            found = cells.get((source, destination), {})
            marks = [
                sign if found[family] else "-"
                for family, sign in (("ipv4", "4"), ("ipv6", "6"))
                if family in found
            ]
            row.append("".join(marks) or ("·" if source == destination else ""))
        rows.append(row)
    output.table(("FROM \\ TO", *(_short(name) for name in order)), rows, gap=1)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _figures(reaches: Sequence[Reach]) -> None:
    from sdn.lab.matrix import KINDS

    rows = []
    for kind in KINDS:
        tried = [reach for reach in reaches if reach.kind == kind]
        if tried:
            cells = []
            for family in ("ipv4", "ipv6"):
                answers = [reach.reachable for reach in tried if reach.family == family]
                cells.append(f"{sum(answers)} of {len(answers)}" if answers else NONE)
            rows.append([kind, *cells])
    output.table(("WAY", "IPV4", "IPV6"), rows)


def _as_data(value: Any, form: DataFormat) -> None:
    (output.as_json if form is DataFormat.JSON else output.as_yaml)(value)
