"""python scripts/house_picture.py: docs/pictures/house.svg, the rooms of fsl_cli/ and their arrows, from its imports.

With --count [PACKAGE], prints the files, functions, arrows, floors and circles of fsl_cli/, or of another copy of it.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles

import networkx
from house import FLOOR, PACKAGE, circles, file_arrows, modules, room_arrows

PICTURE = PACKAGE.parent / "docs" / "pictures" / "house.svg"
FOR_ALL = 1  # floors from the ground up that nearly every room imports from: no arrow is drawn to them
ROW = 5  # of their rooms side by side
WIDTH, HEIGHT = 1000, 104  # of the picture, and of a floor: pixels
BOX = 184, 78  # a room
STYLE = """
text { font: 13px sans-serif; text-anchor: middle; fill: #222 }
.name { font-weight: bold; font-size: 15px }
.house { fill: white }
.floor { fill: #f3f4f8 }
.folder { fill: #dde6fd; stroke: #5368b0 }
.file { fill: #e9e9e9; stroke: #999 }
.arrow { fill: none; stroke: #5368b0; stroke-width: 1.5; marker-end: url(#tip) }
.tip { fill: #5368b0 }
"""
Way = tuple[str, ...]  # an arrow's rooms, and on each floor that it passes a place of its own


def picture() -> str:
    """The house as SVG: a band a floor, a box a room; of the arrows, those that no longer way already implies."""
    rooms = set(FLOOR)
    top = max(FLOOR.values())
    ground = sorted(name for name in rooms if FLOOR[name] < FOR_ALL)
    level = {name: top - FLOOR[name] for name in rooms}  # from the top
    level |= {name: top - FOR_ALL + 1 + i // ROW for i, name in enumerate(ground)}
    bands = range(max(level.values()) + 1)
    arrows = networkx.transitive_reduction(room_arrows().subgraph(rooms))
    drawn = sorted((a, b) for a, b in arrows.edges if FLOOR[b] >= FOR_ALL)
    ways = [(a, *(f"{a} {b} {i}" for i in range(level[a] + 1, level[b])), b) for a, b in drawn]
    level |= {place: level[way[0]] + i for way in ways for i, place in enumerate(way)}
    x = across([sorted(name for name in level if level[name] == i) for i in bands], ways)
    total = HEIGHT * len(bands)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}">',
        f"<style>{STYLE}</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path class="tip" d="M0 0L8 4L0 8Z"/></marker>',
        f'<rect class="house" width="{WIDTH}" height="{total}"/>',
        *map(band, bands),
        *(arrow([(x[place], level[place]) for place in way]) for way in ways),
        *(line for name in sorted(rooms) for line in box(name, x[name], level[name])),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def band(floor: int) -> str:
    return f'<rect class="floor" y="{floor * HEIGHT + 3}" width="{WIDTH}" height="{HEIGHT - 6}" rx="8"/>'


def across(floors: list[list[str]], ways: Sequence[Way]) -> dict[str, float]:
    """How far from the left each place stands: near what it has arrows to and from, so that these seldom cross."""
    above, below = defaultdict(list), defaultdict(list)
    for upper, lower in (pair for way in ways for pair in pairwise(way)):
        above[lower].append(upper)
        below[upper].append(lower)
    x: dict[str, float] = {}

    def spread(floor: list[str]) -> None:
        x.update((name, WIDTH * (i + 0.5) / len(floor)) for i, name in enumerate(floor))

    for floor in floors:
        spread(floor)
    for near, order in 4 * [(below, floors[::-1]), (above, floors)]:
        for floor in order:
            floor.sort(key=lambda name: mean([x[other] for other in near[name]] or [x[name]]))
            spread(floor)
    return x


def arrow(points: Sequence[tuple[float, int]]) -> str:
    """A line from the foot of its first room, straight through each floor that it passes, to the top of its last."""
    (start, first), *between, (end, last) = points
    gap = (HEIGHT - BOX[1]) / 2
    stops = [(start, (first + 1) * HEIGHT - gap)]
    for x, floor in between:
        stops += [(x, floor * HEIGHT + gap), (x, (floor + 1) * HEIGHT - gap)]
    stops.append((end, last * HEIGHT + gap))
    bends = [  # leaving and arriving upright
        f"C{x:.0f} {y + gap:.0f} {to:.0f} {down - gap:.0f} {to:.0f} {down:.0f}"
        for (x, y), (to, down) in pairwise(stops)
    ]
    return f'<path class="arrow" d="M{start:.0f} {stops[0][1]:.0f}{"".join(bends)}"/>'


def box(name: str, x: float, floor: int) -> Iterator[str]:
    """A room: its name, and what it is in the first words of its docstring."""
    folder = (PACKAGE / name).is_dir()
    source = PACKAGE / name / "__init__.py" if folder else PACKAGE / f"{name}.py"
    about = re.split(r"[.:;]", ast.get_docstring(ast.parse(source.read_text())) or "")[0]
    kind, title = ("folder", f"{name}/") if folder else ("file", f"{name}.py")
    left, top = x - BOX[0] / 2, floor * HEIGHT + (HEIGHT - BOX[1]) / 2
    yield f'<rect class="{kind}" x="{left:.0f}" y="{top:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="6"/>'
    yield f'<text class="name" x="{x:.0f}" y="{top + 20:.0f}">{title}</text>'
    for i, line in enumerate(textwrap.wrap(about, 27)):
        yield f'<text x="{x:.0f}" y="{top + 38 + 15 * i:.0f}">{escape(line)}</text>'


def count(package: Path) -> Iterator[str]:
    """A line each: sizes first, then how the parts hang together."""
    files = [path.read_text() for path in modules(package).values()]
    sizes = [len(text.splitlines()) for text in files]
    functions = [
        node.end_lineno - node.lineno + 1
        for text in files
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    between, rooms = file_arrows(package), room_arrows(package)
    yield f"{len(files)} files of {sum(sizes)} lines: {spread(sizes)}"
    yield f"{len(functions)} functions: {spread(functions)}"
    yield f"{len(rooms)} rooms, {len([name for name in rooms if (package / name).is_dir()])} of them folders"
    yield f"{len(rooms.edges)} arrows between rooms, {len(between.edges)} between files"
    chain = networkx.dag_longest_path_length(networkx.condensation(rooms)) + 1
    yield f"{chain} floors: the longest way down through rooms"
    yield f"{len(circles(rooms))} circles of rooms, {len(circles(between))} of files"
    for circle in circles(rooms) + circles(between):
        yield f"  {', '.join(circle)}"


def spread(sizes: list[int]) -> str:
    return f"median {median(sizes):.0f} lines, ninth decile {quantiles(sizes, n=10)[-1]:.0f}, longest {max(sizes)}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--count"]:
        print(*count(Path(sys.argv[2]).resolve() if sys.argv[2:] else PACKAGE), sep="\n")
    else:
        PICTURE.write_text(picture())
