"""One test episode as a run sees it, its queries marked right or wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    Drawn = tuple[Tensor, int]  # an image (C, H, W) and its label


CELL = 0.85  # inches, an image with what is written below it


TALL = 1.25  # how much taller than wide it is


GAP = 0.4  # of its width, between support and queries


LARGEST = 200  # inches of a side


RIGHT, WRONG = "#0072b2", "#d55e00"  # told apart by colour-blind eyes too


def draw(support: list[Drawn], query: list[Drawn], probabilities: Tensor, names: list[str], title: str) -> Figure:
    """A row for each class, its support images on the left; `probabilities` (queries, way) tell what was predicted.

    Raises UserError when the picture would be too large.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    shot, longest = (max(Counter(label for _, label in part).values()) for part in (support, query))
    size = CELL * (shot + GAP + longest + 1.3), CELL * TALL * len(names) + 0.7
    if max(size) > LARGEST:
        raise UserError(f"The picture would be {size[0]:.0f} x {size[1]:.0f} inches. Type fewer query, shot or way.")
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    for (image, label), column in zip(support, _columns(support), strict=True):
        _image(axis, image, column, TALL * label)
    first = shot + GAP
    for (image, label), column, row in zip(query, _columns(query), probabilities, strict=True):
        guess = int(row.argmax())
        mark, color, line = ("✓", RIGHT, "-") if guess == label else (f"✗ {guess + 1}", WRONG, "--")
        x, y = first + column, TALL * label
        _image(axis, image, x, y)
        axis.add_patch(Rectangle((x, y), 0.9, 0.9, fill=False, edgecolor=color, linewidth=2, linestyle=line))
        axis.text(x + 0.45, y + 0.95, f"{mark}  {row[guess]:.0%}", color=color, ha="center", va="top", fontsize=7)
    axis.set(xlim=(-0.05, first + longest), ylim=(TALL * len(names), -0.05), aspect="equal")
    numbered = [f"{number}  {name}" for number, name in enumerate(names, 1)]
    axis.set_yticks([TALL * label + 0.45 for label in range(len(names))], numbered, fontsize=7)
    marks = "query: ✓ or ✗ and the class it was taken for" if longest > 4 else "query"
    axis.set_xticks([shot / 2, first + longest / 2], ["support", marks])
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.set_frame_on(False)
    figure.suptitle(title, fontsize=9)
    return figure


def _columns(part: list[Drawn]) -> list[int]:
    """The place of each image among those of its class."""
    counts = Counter[int]()
    columns = []
    for _, label in part:
        columns.append(counts[label])
        counts[label] += 1
    return columns


def _image(axis: Any, image: Tensor, x: float, y: float) -> None:
    """An image (C, H, W) in the cell that begins at (x, y)."""
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    extent = (x, x + 0.9, y + 0.9, y)
    axis.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest", aspect="auto")
