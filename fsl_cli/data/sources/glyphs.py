"""Glyphs: invented handwritten characters, drawn here in a second or two; needs no download.

A class is two to four strokes, smooth arcs through three random points each. A drawing of it moves the points
a little, slants, stretches and shifts the whole, and takes its own pen. The random numbers are the bytes of
SHAKE-128 over (seed, class) and the arithmetic is +, -, *, / and sqrt only, which IEEE 754 rounds alike
everywhere: the same bytes on every machine, and class 42 is the same however many classes are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import shake_128
from itertools import islice
from typing import Any, Literal

import numpy as np

from fsl_cli.data.copies import divided
from fsl_cli.data.store import DataSet, Images, cache_folder, open_store
from fsl_cli.errors import UserError
from fsl_cli.ranges import Natural

Numbers = np.ndarray[Any, np.dtype[np.floating[Any]]]

HAND = 1  # raise it when what is drawn changes: older caches are then left alone
STROKES, DOTS = 4, 32  # strokes of a glyph at most; dots in a stroke
SHORTEST = 0.5  # distance between the ends of a stroke, of the 1 x 1 square in which a class is invented
BOW = 0.5  # how far a stroke bends away from the line between its ends, at most, in such distances
JOINED = 0.5  # share of the strokes that begin on the one before
HEIGHT = 0.6  # the longer side of a glyph, in image heights
JITTER = 0.10  # how far a drawing moves each point, at most, in longer sides
SLANT = 0.30  # how far it slants, turns and stretches: the change of each entry of the identity matrix
SHIFT = 0.08  # how far off centre it is, in longer sides
PEN, PEN_RANGE = 0.036, 0.3  # radius in image heights; how far a pen differs from it, as a share


def glyphs(
    train_classes: int = 1000,
    val_classes: int = 100,
    test_classes: int = 200,
    drawings: int = 20,
    size: int = 28,
    seed: Natural = 0,
    rotations: Literal["none", "train", "all"] = "none",
    cache: str | None = None,
) -> DataSet:
    """`drawings` images, (1, size, size) with ink 255 on paper 0, of each class: train first, then val, then test.

    `rotations` makes the quarter turns of each glyph classes of their own, in the training split or in all three.
    Raises UserError when there would be nothing to draw.
    """
    counts = {"train": train_classes, "val": val_classes, "test": test_classes}
    given = {**{f"{part}_classes": count for part, count in counts.items()}, "drawings": drawings, "size": size}
    wrong = [f"data.{name}={value}" for name, value in given.items() if value < 1]
    if wrong:
        raise UserError(f"{', '.join(wrong)}: there would be nothing to draw. Type 1 or more.")

    def drawn() -> Iterable[tuple[str, Images]]:
        for number in range(sum(counts.values())):
            yield f"glyph {number:04d}", draw(seed, number, drawings, size)

    recipe = {"hand": HAND, "classes": sum(counts.values()), "drawings": drawings, "size": size, "seed": seed}
    store = open_store(cache_folder(cache), "glyphs", recipe, drawn)
    names = iter(store.names)
    lists = {part: list(islice(names, count)) for part, count in counts.items()}
    return divided("glyphs", store, "seeded", lists, rotations)._replace(ink=True)


def draw(seed: int, number: int, drawings: int, size: int) -> Images:
    """Class `number`, (drawings, 1, size, size), ink 255 on paper 0; fewer drawings are the first of more."""
    rows, columns = 1 + drawings, 7 + STROKES * 6  # the class, then each drawing: 7 numbers for all, 6 a stroke
    raw = shake_128(f"glyphs/{seed}/{number}".encode()).digest(8 * rows * columns)
    uniform = (np.frombuffer(raw, dtype="<u8") / 2.0**64).reshape(rows, columns)
    strokes = 2 + int(uniform[0, 0] * (STROKES - 1))
    arcs = _arcs(uniform[0, 7:].reshape(-1, 6)[:strokes])
    hand = 2 * uniform[1:] - 1  # -1..1
    arcs = arcs + JITTER * hand[:, 7:].reshape(drawings, -1, 3, 2)[:, :strokes]  # (drawings, strokes, 3, 2)
    a, b, c, d, e, f, pen = (hand[:, i, None, None] for i in range(7))
    x, y = arcs[..., 0], arcs[..., 1]
    x, y = (1 + SLANT * a) * x + SLANT * b * y + SHIFT * e, (1 + SLANT * c) * y + SLANT * d * x + SHIFT * f
    return _ink(HEIGHT * _curve(x), HEIGHT * _curve(y), PEN * (1 + PEN_RANGE * pen), size)


def _arcs(uniform: Numbers) -> Numbers:
    """A class as arcs, from (strokes, 6) numbers: begin, middle and end of each, (strokes, 3, 2) in -0.5..0.5."""
    arcs = np.empty((len(uniform), 3, 2))
    for i, (join, bow, *ends) in enumerate(uniform):
        begin, end = np.array(ends).reshape(2, 2)
        if i and join < JOINED:  # at the end, the middle or the beginning of the stroke before
            begin = arcs[i - 1, 2 - int(3 * join / JOINED)]
        along = end - begin
        along *= max(1.0, SHORTEST / np.sqrt(along[0] * along[0] + along[1] * along[1]))
        bow = 2 * BOW * (bow - 0.5)
        arcs[i] = begin, begin + along / 2 + bow * along[::-1] * (1, -1), begin + along
    low, high = arcs.min((0, 1)), arcs.max((0, 1))
    centred: Numbers = (arcs - (low + high) / 2) / (high - low).max()
    return centred


def _curve(points: Numbers) -> Numbers:
    """One coordinate of the parabolas through three points, (drawings, strokes, 3) -> (drawings, strokes * DOTS)."""
    t = np.arange(DOTS) / (DOTS - 1)
    p, q, r = (points[..., i, None] for i in range(3))
    curve = (2 * t - 1) * (t - 1) * p + 4 * t * (1 - t) * q + t * (2 * t - 1) * r  # (drawings, strokes, DOTS)
    dots: Numbers = curve.reshape(len(points), -1)
    return dots


def _ink(x: Numbers, y: Numbers, pen: Numbers, size: int) -> Images:
    """Antialiased lines along the dots (x, y), (drawings, dots) each, drawn with the round `pen`, (drawings, 1, 1)."""
    pixel = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    dx, dy = ((pixel - dots.T[:, :, None].astype(np.float32)) ** 2 for dots in (x, y))  # (dots, drawings, size)
    nearest = np.full((len(pen), size, size), np.inf, dtype=np.float32)  # squared distance to the curve
    for across, down in zip(dx, dy, strict=True):
        np.minimum(nearest, across[:, None, :] + down[:, :, None], out=nearest)
    ink = np.clip((pen - np.sqrt(nearest)) * size + 0.5, 0, 1)
    images: Images = (ink * 255 + 0.5).astype(np.uint8)[:, None]
    return images
