# SPDX-License-Identifier: Apache-2.0
"""Draws way_of_the_data.svg: who tells whom what, from a pod's creation to its packets.

    python docs/pictures/way_of_the_data.py            writes the picture beside this file
    python docs/pictures/way_of_the_data.py --check    writes nothing; fails where the file differs from this

Only text and arithmetic: positions are given in pixels of a fixed canvas, so that a change shows as a readable diff.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1000, 600
INK, QUIET, LINE = "#1b2733", "#5b6b7a", "#8899a8"
INTENT, FACTS, PACKETS = "#1f6feb", "#b3530a", "#1a7f37"
ARROWS = {"intent": INTENT, "facts": FACTS, "packets": PACKETS}


def box(
    x: int, y: int, w: int, h: int, title: str, *lines: str, fill: str = "#ffffff", bold: bool = True
) -> str:
    """A part of the system, its name on top and what it does below it."""
    weight = ' font-weight="600"' if bold else ""
    middle = y + h / 2 - 8.5 * len(lines) + 5
    parts = [
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="7" fill="{fill}" stroke="{LINE}"/>',
        f'<text x="{x + w / 2:g}" y="{middle:g}" text-anchor="middle"{weight} fill="{INK}">{escape(title)}</text>',
    ]
    parts += [
        f'<text x="{x + w / 2:g}" y="{middle + 17 * (number + 1):g}" text-anchor="middle" font-size="12" '
        f'fill="{QUIET}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return "\n".join(parts)


def room(x: int, y: int, w: int, h: int, title: str, at_bottom: bool = False) -> str:
    """A machine, with parts inside; its name stands where no line crosses."""
    return (
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="10" fill="#f3f6f9" stroke="{LINE}" '
        f'stroke-dasharray="5 4"/>\n'
        f'<text x="{x + 14}" y="{y + h - 14 if at_bottom else y + 22}" font-weight="600" '
        f'fill="{QUIET}">{escape(title)}</text>'
    )


def arrow(kind: str, *points: tuple[int, int], both: bool = False) -> str:
    """A line through the points with its head at the last one (and at the first)."""
    path = " ".join(f"{x},{y}" for x, y in points)
    start = f' marker-start="url(#{kind})"' if both else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{ARROWS[kind]}" stroke-width="2"'
        f'{start} marker-end="url(#{kind})"/>'
    )


def label(x: int, y: int, text: str, kind: str, anchor: str = "start") -> str:
    """What goes along an arrow, in the arrow's colour."""
    return f'<text x="{x}" y="{y}" font-size="12" text-anchor="{anchor}" fill="{ARROWS[kind]}">{escape(text)}</text>'


def draw() -> str:
    """The whole picture as SVG text."""
    heads = "\n".join(
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0,0 L10,5 L0,10 z" fill="{colour}"/></marker>'
        for kind, colour in ARROWS.items()
    )
    legend = "\n".join(
        f'<line x1="{x}" y1="578" x2="{x + 34}" y2="578" stroke="{ARROWS[kind]}" stroke-width="2"/>\n'
        + label(x + 42, 582, text, kind)
        for x, kind, text in (
            (40, "intent", "intent: what should be"),
            (260, "facts", "facts: what is"),
            (430, "packets", "packets: no controller on their way"),
        )
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        + f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="14">',
        "<title>The way of the data: from the creation of a pod to its packets</title>",
        f"<defs>\n{heads}\n</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        box(40, 40, 130, 70, "sdnctl", "see, explain, apply"),
        box(
            290,
            30,
            460,
            90,
            "sdn-controller",
            "model → compiler → desired flows → synchronizer",
            fill="#eef4ff",
        ),
        box(860, 40, 110, 70, "store", "SQLite, etcd"),
        room(30, 190, 600, 350, "node-1"),
        room(670, 190, 300, 350, "node-2, node-3, ...", at_bottom=True),
        box(55, 235, 150, 60, "container runtime", "containerd, CRI-O"),
        box(55, 345, 150, 60, "sdn-cni", "the CNI plugin"),
        box(290, 290, 150, 70, "sdn-agent", "addresses, links, ports", fill="#eef4ff"),
        box(470, 430, 140, 80, "Open vSwitch", "br-int", fill="#edf7ef"),
        box(55, 445, 115, 50, "pod", "10.244.1.5"),
        box(195, 445, 115, 50, "pod", "fd00:10:244:1::6"),
        box(690, 430, 130, 80, "Open vSwitch", "br-int", fill="#edf7ef"),
        box(860, 445, 90, 50, "pod"),
        box(690, 290, 130, 70, "sdn-agent", fill="#eef4ff"),
        arrow("intent", (170, 75), (290, 75), both=True),
        label(230, 66, "gRPC", "intent", "middle"),
        arrow("intent", (750, 75), (860, 75), both=True),
        label(805, 66, "write, watch", "intent", "middle"),
        arrow("intent", (560, 120), (560, 430)),
        label(568, 150, "OpenFlow 1.5", "intent"),
        arrow("intent", (720, 120), (720, 160), (880, 160), (880, 395), (755, 395), (755, 430)),
        label(780, 152, "OpenFlow 1.5", "intent"),
        arrow("intent", (130, 295), (130, 345)),
        label(138, 325, "executes", "intent"),
        arrow("intent", (205, 375), (250, 375), (250, 335), (290, 335)),
        label(214, 393, "unix socket", "intent"),
        arrow("intent", (400, 360), (400, 470), (470, 470)),
        label(408, 420, "OVSDB", "intent"),
        arrow("facts", (365, 290), (365, 120), both=True),
        label(373, 150, "gRPC: attachments,", "facts"),
        label(373, 166, "“programmed” back", "facts"),
        arrow("facts", (700, 290), (700, 120), both=True),
        arrow("packets", (252, 495), (252, 520), (530, 520), (530, 510), both=True),
        arrow("packets", (112, 495), (112, 529), (555, 529), (555, 510), both=True),
        arrow("packets", (610, 470), (690, 470), both=True),
        label(650, 488, "Geneve", "packets", "middle"),
        arrow("packets", (820, 470), (860, 470), both=True),
        legend,
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    PICTURE = Path(__file__).with_suffix(".svg")
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(draw(), encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != draw():
        sys.exit(
            f"{PICTURE.name} is not what its script draws; run: python docs/pictures/{Path(__file__).name}"
        )
