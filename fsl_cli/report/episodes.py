"""The hardest and easiest test episodes of a report, as pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from io import BytesIO
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fsl_cli.errors import UserError, command
from fsl_cli.report.page import HardestAndEasiest, Picture
from fsl_cli.runs.records import Result
from fsl_cli.settings.parts import OfData, Part, asked, offline

if TYPE_CHECKING:
    from fsl_cli.data.store import DataSet
    from fsl_cli.report.rows import Section

EACH = 2  # hardest, and as many easiest
QUERIES = 5  # of a class, in a picture


def hardest_and_easiest(sections: Sequence[Section]) -> list[HardestAndEasiest]:
    """Each section's hardest and easiest episodes; if its data set is not on this machine, what to type to get it."""
    opened: dict[str, Any] = {}  # data sets by their settings, and the reasons of those that cannot be opened
    found = []
    for section in sections:
        try:
            data = _open(section, opened)
            scores = _scores(section)
            order = sorted(scores, key=lambda index: (scores[index], index))
            if section.metric != "accuracy":
                order.reverse()
            hardest, easiest = order[:EACH], [index for index in order[::-1][:EACH] if index not in order[:EACH]]
            found.append(
                HardestAndEasiest(
                    [_picture(data, section, index, "hardest", scores[index]) for index in hardest],
                    [_picture(data, section, index, "easiest", scores[index]) for index in easiest],
                    "",
                )
            )
        except UserError as error:
            found.append(HardestAndEasiest([], [], str(error)))
    return found


def _scores(section: Section) -> dict[int, float]:
    """The metric of each episode, averaged over all rows."""
    columns = [column for row in section.rows for column in row.columns(section.episodes)]
    return dict(zip(section.episodes, map(fmean, zip(*columns, strict=True)), strict=True))


def _open(section: Section, opened: dict[str, Any]) -> DataSet:
    """The data set of a section's episodes. Raises UserError when it is not at hand."""
    from fsl_cli.settings.changed import changed
    from fsl_cli.settings.schema import typed

    test = section.rows[0].tests[0]
    changes = dict(change.split("=", 1) for change in test.outcome.result.changes)
    of_the_data = {key: value for key, value in changes.items() if key.split(".")[0] == "data"}
    tested = typed(changed(test.outcome.run.settings.plain(), of_the_data))
    data = tested.data
    key = json.dumps([data.plain(), test.outcome.result.images], sort_keys=True, default=str)
    if key not in opened:
        try:
            opened[key] = _build(data, tested.data_choice, test.outcome.result)
        except UserError as error:
            opened[key] = error
    if isinstance(opened[key], UserError):
        raise opened[key]
    return opened[key]


def _build(source: Part, choice: str, result: Result) -> DataSet:
    import sys

    from fsl_cli.data.store import DataSet
    from fsl_cli.settings.binding import build, part_problems

    if result.images == "-":
        raise UserError("they are not of images.")
    if result.data_sets:
        raise UserError("each is the mean of one of each data set.")
    problems = list(part_problems("data", source.plain(), []))  # a run's word is not enough to run code
    if problems:
        raise UserError(problems[0])
    if not _at_hand(source, result.images):
        own = asked(source, OfData).root
        root = [f"root={own}"] if own else []
        prepare = command("fsl", "data", "prepare", choice, *root)
        raise UserError(f"these images are not on this machine. Type {prepare}, and report again.")
    with redirect_stdout(sys.stderr):
        data = build(offline(source))
    if isinstance(data, DataSet) and data.items != "images":
        raise UserError(f"they are of {data.items}.")
    if not isinstance(data, DataSet) or data.hash != result.images or data.protocol["split_hash"] != result.split_hash:
        raise UserError(f"{result.data} on this machine is not the one that was tested.")
    return data


def _at_hand(source: Part, images: str) -> bool:
    """Is a store with these images prepared? Nothing is downloaded or decoded for a page."""
    from fsl_cli.data.inspection import prepared, store_record
    from fsl_cli.data.store import cache_folder

    def hashes() -> Iterable[str]:
        for folder in prepared(cache_folder(asked(source, OfData).cache)):
            try:
                yield store_record(folder)["hash"]
            except (OSError, ValueError):
                continue

    return images in hashes()


def _picture(data: DataSet, section: Section, index: int, which: str, score: float) -> Picture:
    from PIL import Image

    from fsl_cli.data.sampler import Shape
    from fsl_cli.data.tasks import sampler
    from fsl_cli.pictures.episodes import canvas, class_names
    from fsl_cli.runs.wording import score_text

    result = section.result
    asked = result.way, result.shot, result.query, result.query_balance, result.unlabelled, result.distractors
    draws = sampler(data, "test", Shape(*asked))
    episode = draws.episode(result.episode_seed, "test", index)
    shown = episode._replace(query=[own[:QUERIES] for own in episode.query])
    picture, buffer = Image.fromarray(canvas(data, "test", shown)), BytesIO()
    kind = "PNG" if picture.mode == "L" else "JPEG"
    picture.save(buffer, kind, quality=88)
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    reached = score_text(section.metric, score, 0).partition(" ±")[0]
    more = max(map(len, episode.query)) - QUERIES
    caption = f"{which}: episode {index}, {reached}" + (f" ({more} more queries a class)" if more > 0 else "")
    names = [name.replace("\n", " ") for name in class_names(data, "test", episode.classes)]
    return Picture(caption, uri, names)
