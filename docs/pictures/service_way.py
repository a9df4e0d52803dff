# SPDX-License-Identifier: Apache-2.0
"""Draws service_way.svg: the tables that a connection to a Service meets, forward and back.

    python docs/pictures/service_way.py            writes the picture beside this file
    python docs/pictures/service_way.py --check    writes nothing; fails where the file differs from this

The tables' names come from the declared pipeline, so that the picture cannot name one that is not there.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdn.pipeline.tables import table_named

WIDTH, HEIGHT = 1000, 470
INK, QUIET, LINE = "#1b2733", "#5b6b7a", "#8899a8"
FIRST, KNOWN, REFUSED = "#1f6feb", "#1a7f37", "#b3530a"
COLOURS = {"first": FIRST, "known": KNOWN, "refused": REFUSED}
WIDE, HIGH = 170, 74


def text(x: int, y: int, words: str, colour: str = QUIET, size: int = 12, anchor: str = "middle") -> str:
    """One line."""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def box(x: int, y: int, title: str, *lines: str, fill: str = "#ffffff") -> str:
    """A table, or somebody at the ends."""
    return "\n".join(
        [
            f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="7" fill="{fill}" stroke="{LINE}"/>',
            text(x + WIDE // 2, y + 24, title, INK, 14),
            *(text(x + WIDE // 2, y + 43 + 16 * number, line) for number, line in enumerate(lines)),
        ]
    )


def table(name: str, x: int, y: int, *lines: str) -> str:
    """A table by its declared name. KeyError when there is none."""
    declared = table_named(name)
    return box(x, y, f"{declared.number} {declared.name}", *lines, fill="#eef4ff")


def arrow(kind: str, *points: tuple[int, int]) -> str:
    """A line through the points with its head at the last one."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2" '
        f'marker-end="url(#{kind})"/>'
    )


def draw() -> str:
    """The whole picture as SVG text."""
    heads = "\n".join(
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0,0 L10,5 L0,10 z" fill="{colour}"/></marker>'
        for kind, colour in COLOURS.items()
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="14">',
        "<title>The way of a connection to a Service through the tables of one switch</title>",
        f"<defs>\n{heads}\n</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        box(20, 170, "client", "pod, node, outside", fill="#edf7ef"),
        table("untranslation", 220, 60, "answers to a", "translated source"),
        table("conntrack", 220, 170, "known connections", "are translated here"),
        table("load_balancing", 420, 170, "first packets: which", "Service, which group"),
        table("session_affinity", 420, 290, "what the switch learned", "of this client"),
        table("endpoint", 620, 290, "destination becomes", "the endpoint's"),
        table("source_translation", 620, 170, "source, where the answer", "would not come back"),
        table("bridging", 810, 170, "then routing, delivery:", "an ordinary packet"),
        box(810, 60, "endpoint", "pod, node, other node", fill="#edf7ef"),
        box(420, 20, "sdn-controller", "answers RST or", "port unreachable", fill="#f3f6f9"),
        arrow("first", (190, 198), (220, 198)),
        arrow("first", (390, 198), (420, 198)),
        arrow("first", (505, 244), (505, 290)),
        arrow("first", (590, 327), (620, 327)),
        arrow("first", (705, 290), (705, 244)),
        arrow("known", (190, 220), (220, 220)),
        arrow("known", (390, 220), (420, 220)),
        arrow("known", (590, 207), (620, 207)),
        arrow("known", (790, 207), (810, 207)),
        arrow("known", (895, 170), (895, 134)),
        arrow("known", (305, 134), (305, 170)),
        arrow("refused", (505, 170), (505, 94)),
        text(515, 140, "no endpoint is left", REFUSED, anchor="start"),
        *(
            part
            for x, kind, words in (
                (40, "first", "first packet: an endpoint is chosen"),
                (330, "known", "all others, both directions: the tracker translates"),
                (690, "refused", "refused at once"),
            )
            for part in (
                f'<line x1="{x}" y1="440" x2="{x + 34}" y2="440" stroke="{COLOURS[kind]}" stroke-width="2"/>',
                text(x + 42, 444, words, COLOURS[kind], anchor="start"),
            )
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE = Path(__file__).with_suffix(".svg")
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(draw(), encoding="utf-8")
    elif not PICTURE.exists() or PICTURE.read_text(encoding="utf-8") != draw():
        sys.exit(
            f"{PICTURE.name} is not what its script draws; run: python docs/pictures/{Path(__file__).name}"
        )
