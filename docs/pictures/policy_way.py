# SPDX-License-Identifier: Apache-2.0
"""Draws policy_way.svg: the tables in which policies are asked, and who passes by them.

    python docs/pictures/policy_way.py            writes the picture beside this file
    python docs/pictures/policy_way.py --check    writes nothing; fails where the file differs from this

The tables' names come from the declared pipeline, so that the picture cannot name one that is not there.
"""

import sys
from pathlib import Path
from xml.sax.saxutils import escape

sys.path.insert(0, str(Path(__file__).parents[2]))

from sdn.pipeline.tables import table_named

WIDTH, HEIGHT = 1010, 470
INK, QUIET, LINE = "#1b2733", "#5b6b7a", "#8899a8"
COLOURS = {"asked": "#1f6feb", "answer": "#1a7f37", "denied": "#b3261e"}
WIDE, HIGH = 148, 74
COLUMNS = tuple(12 + 164 * place for place in range(6))
TOP, MIDDLE, BOTTOM = 70, 185, 300
HALF = HIGH // 2


def text(x: int, y: int, words: str, colour: str = QUIET, size: int = 12, anchor: str = "middle") -> str:
    """One line."""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def box(column: int, y: int, title: str, *lines: str, fill: str = "#edf7ef") -> str:
    """Somebody at the ends, or a table."""
    x = COLUMNS[column]
    return "\n".join(
        [
            f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="7" fill="{fill}" stroke="{LINE}"/>',
            text(x + WIDE // 2, y + 24, title, INK, 13),
            *(text(x + WIDE // 2, y + 43 + 16 * number, line) for number, line in enumerate(lines)),
        ]
    )


def table(name: str, column: int, y: int, *lines: str) -> str:
    """A table by its declared name. KeyError when there is none."""
    declared = table_named(name)
    return box(column, y, f"{declared.number} {declared.name}", *lines, fill="#eef4ff")


def arrow(kind: str, *points: tuple[int, int]) -> str:
    """A line through the points with its head at the last one."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2" '
        f'marker-end="url(#{kind})"/>'
    )


def right(kind: str, column: int, y: int) -> str:
    """From a box to the next one in its row."""
    return arrow(kind, (COLUMNS[column] + WIDE, y + HALF), (COLUMNS[column + 1], y + HALF))


def left(kind: str, column: int, y: int) -> str:
    """From a box to the one before it in its row."""
    return arrow(kind, (COLUMNS[column], y + HALF), (COLUMNS[column - 1] + WIDE, y + HALF))


def to_denial() -> list[str]:
    """From each table that denies, above and below."""
    parts = []
    for column, edge in ((3, 20), (4, 74), (5, 128)):
        end = COLUMNS[4] + edge
        start = COLUMNS[column] + (110 if column == 3 else 74 if column == 4 else 38)
        up, down = MIDDLE - 22, MIDDLE + HIGH + 22
        parts.append(arrow("denied", (start, TOP + HIGH), (start, up), (end, up), (end, MIDDLE)))
        parts.append(arrow("denied", (start, BOTTOM), (start, down), (end, down), (end, MIDDLE + HIGH)))
    return parts


def draw() -> str:
    """The whole picture as SVG text."""
    heads = "\n".join(
        f'<marker id="{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0,0 L10,5 L0,10 z" fill="{colour}"/></marker>'
        for kind, colour in COLOURS.items()
    )
    beside = COLUMNS[5] + WIDE + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="14">',
        "<title>The tables of one switch in which policies are asked</title>",
        f"<defs>\n{heads}\n</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        box(0, TOP, "who sends", "pod, other node,", "node, outside"),
        table("conntrack", 1, TOP, "to a Service, or an", "answer: translated"),
        table("load_balancing", 2, TOP, "the endpoint", "is chosen"),
        table("egress_admin", 3, TOP, "tier Admin", "of the pod that sends"),
        table("egress_policy", 4, TOP, "NetworkPolicies", "of the pod that sends"),
        table("egress_baseline", 5, TOP, "tier Baseline", "of the pod that sends"),
        table("bridging", 2, MIDDLE, "answers pass by,", "unless marked denied"),
        table("denial", 4, MIDDLE, "dropped; a known", "connection is marked"),
        table("ingress_admin", 5, BOTTOM, "tier Admin", "of the pod it is for"),
        table("ingress_policy", 4, BOTTOM, "NetworkPolicies", "of the pod it is for"),
        table("ingress_baseline", 3, BOTTOM, "tier Baseline", "of the pod it is for"),
        table("presence", 2, BOTTOM, "is there such a pod", "on this node?"),
        table("source_translation", 1, BOTTOM, "remembered by", "the tracker"),
        box(0, BOTTOM, "whom it is for", "pod, node, outside,", "other node: by tunnel"),
        *(right("asked", column, TOP) for column in range(5)),
        arrow("asked", (beside - 24, TOP + HIGH), (beside - 24, BOTTOM)),
        *(left("asked", column, BOTTOM) for column in range(5, 0, -1)),
        # Past egress.
        arrow(
            "asked",
            (COLUMNS[2] + WIDE // 2, TOP),
            (COLUMNS[2] + WIDE // 2, TOP - 28),
            (beside, TOP - 28),
            (beside, BOTTOM + HALF),
            (COLUMNS[5] + WIDE, BOTTOM + HALF),
        ),
        text(
            COLUMNS[2] + WIDE // 2 + 10,
            TOP - 36,
            "from other nodes, whose switch has asked for egress",
            anchor="start",
        ),
        arrow("answer", (COLUMNS[2] + WIDE // 2, TOP + HIGH), (COLUMNS[2] + WIDE // 2, MIDDLE)),
        *to_denial(),
        *(
            part
            for x, kind, words in (
                (30, "asked", "in the direction in which the connection began"),
                (400, "answer", "answers: the tracker knows them"),
                (700, "denied", "denied"),
            )
            for part in (
                f'<line x1="{x}" y1="430" x2="{x + 34}" y2="430" stroke="{COLOURS[kind]}" stroke-width="2"/>',
                text(x + 42, 434, words, COLOURS[kind], anchor="start"),
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
