"""A few episodes as a picture: a column for each class, its support images above, its queries below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsl_cli.data.sampler import Episode, Shape
from fsl_cli.data.store import SPLITS, DataSet
from fsl_cli.data.tasks import sampler
from fsl_cli.data.texts import as_text
from fsl_cli.errors import UserError, shown
from fsl_cli.files import writing
from fsl_cli.pictures import lettering
from fsl_cli.pictures.text_lines import Line, text_lines

CELL = 0.9  # inches, an image and the gap beside it
GAP = 0.1  # of an image
LARGEST = 200  # inches of a side
LETTERS = 15  # of a name that fit above an image


def draw(data: DataSet, out: Path, *, episodes: int, split: str, way: int, shot: int, query: int, seed: int) -> None:
    """Write episodes 0, 1, ... of (seed, split) to `out`, a PNG. Raises UserError when the split cannot give them."""
    if split not in SPLITS:
        raise UserError(f"split={split}: type {', '.join(SPLITS)}. A data set's own split is data.split=...")
    try:
        draws = sampler(data, split, Shape(way, shot, query))
    except UserError as error:  # fsl train has settings for training episodes, fsl data show for all
        raise UserError(re.sub(r"\btrain_(?=(way|shot|query)=)", "", str(error))) from error
    if data.items == "embeddings":
        raise UserError(f"{data.name} has embeddings, of which there is no picture. Type fsl data info embeddings.")
    drawn = [draws.episode(seed, split, index) for index in range(episodes)]
    if data.items == "texts":
        figure = text_episodes(data, split, drawn, f"{data.name} {split}, seed {seed}")
        with writing(out, "Choose another with out=FILE.png."):
            lettering.save(figure, out, bbox_inches="tight")
        return
    rows = shot + query
    grid = (episodes, 1) if way > rows else (1, episodes)
    size = CELL * grid[1] * (way + 1), CELL * grid[0] * (rows + 1)
    if max(size) > LARGEST:
        raise UserError(
            f"The picture would be {size[0]:.0f} x {size[1]:.0f} inches. Type fewer episodes, way or query."
        )
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(*grid, squeeze=False)
    for index, (axis, episode) in enumerate(zip(axes.flat, drawn, strict=True)):
        pixels = canvas(data, split, episode)
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, way, rows + GAP, 0), interpolation="nearest")
        axis.set_yticks([shot / 2, shot + GAP + query / 2], ["support", "query"], fontsize=8)
        names = class_names(data, split, episode.classes)
        axis.set_xticks([label + 0.5 for label in range(way)], [narrow(name) for name in names], fontsize=7)
        axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        axis.set_frame_on(False)
        axis.set_title(f"{data.name} {split}, seed {seed}, episode {index}", fontsize=9)
    with writing(out, "Choose another with out=FILE.png."):
        lettering.save(figure, out, bbox_inches="tight")


def canvas(data: DataSet, part: str, episode: Episode) -> Any:
    """One episode in one array, (height, width, 3) or (height, width): a column for each class, white in between."""
    store, split = data.store, data.splits[part]
    channels, height, width = store.images.shape[1:]
    down, along = height + 1, width + 1  # a white line between them
    shot, query = (max(map(len, images)) for images in (episode.support, episode.query))
    gap = max(1, round(GAP * height))
    pixels = np.full(((shot + query) * down + gap, len(episode.classes) * along, channels), 255, dtype=np.uint8)
    for label, number in enumerate(episode.classes):
        first = store.starts[split.classes[number // split.turns]]
        rows = [*range(len(episode.support[label])), *range(shot, shot + len(episode.query[label]))]
        for row, image in zip(rows, [*episode.support[label], *episode.query[label]], strict=True):
            turned = np.rot90(store.images[first + image], number % split.turns, (1, 2)).transpose(1, 2, 0)
            top, left = row * down + (gap if row >= shot else 0), label * along
            pixels[top : top + height, left : left + width] = turned
    return pixels[..., 0] if channels == 1 else pixels


def text_episodes(data: DataSet, part: str, drawn: Sequence[Episode], title: str) -> Any:  # a figure of Matplotlib
    """Episodes of texts, a line each: its class, whether it is support or query, and what it says."""
    store, split = data.store, data.splits[part]
    lines: list[Line] = []
    for index, episode in enumerate(drawn):
        lines.append(Line(f"{title}, episode {index}", "", "", "black"))
        for number, *sets in zip(episode.classes, episode.support, episode.query, strict=True):
            name, first = store.names[split.classes[number]], store.starts[split.classes[number]]
            for kind, own in zip(("support", "query"), sets, strict=True):
                lines += [Line(name, kind, as_text(store.images[first + each]), "black") for each in own]
    return text_lines(lines)


def narrow(name: str) -> str:
    """A name in lines no wider than the column of its class."""
    return "\n".join(lettering.fit(line, CELL * 0.95, 7) for line in name.split("\n"))


def class_names(data: DataSet, part: str, classes: Sequence[int]) -> list[str]:
    """The name of each class of a split, folder and all, a line for each part; and how far it is turned."""
    split = data.splits[part]
    names = []
    for number in classes:
        lines = [*map(shown, data.store.names[split.classes[number // split.turns]].split("/")[-2:])]
        lines += [f"turned {90 * (number % split.turns)}°"] if split.turns > 1 else []
        names.append("\n".join(lettering.cut(line, LETTERS) for line in lines))
    return names
