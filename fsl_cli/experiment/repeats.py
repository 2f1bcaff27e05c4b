"""Before anything is trained: does the test ask for what training shows, and are pictures there twice?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsl_cli.data.inspection import duplicates
from fsl_cli.data.layouts import find
from fsl_cli.data.listed import Chosen
from fsl_cli.data.repeats import Places, repeat_warnings, repeated_classes, same_files
from fsl_cli.data.several import DataSets
from fsl_cli.data.store import DataSet
from fsl_cli.data.texts import as_text
from fsl_cli.errors import UserError, shown
from fsl_cli.pictures.console import warn
from fsl_cli.settings.parts import OfData, Part, asked, sets_of
from fsl_cli.settings.schema import OWN, Settings

if TYPE_CHECKING:
    from fsl_cli.experiment.assemble import Data


def demand_new_classes(settings: Settings, data: Data) -> None:
    """Tell of pictures that a folder holds twice. Raises UserError when the test that is asked for repeats a class."""
    if isinstance(data, DataSets):
        for called, own in sets_of(settings.data).items():
            _tell_repeats(own, data.sets[called])
    elif isinstance(data, DataSet):
        _tell_repeats(settings.data, data)
    else:
        return
    repeats = repeated_classes(data) if settings.test and settings.steps else []
    if repeats:
        name, part, other = repeats[0]
        many = f"{len(repeats)} of the {len(data.fingerprints('test'))} test classes"
        raise UserError(
            f"{many} {'are' if len(repeats) > 1 else 'is'} trained or validated on too: "
            f"{name} has the same {data.items[:-1]} as {other} in {part}. Take one of the two away, or "
            "type test=false."
        )


def _tell_repeats(source: Part, data: DataSet) -> None:
    """Tell of pictures that a folder holds twice."""
    if is_folder(source):
        within, across = duplicates(data)
        for line in repeat_warnings((_places(data, rows) for rows in (*within, *across)), data.items[:-1]):
            warn(line)
        if across:
            warn(
                f"{len(across):,} {data.items} are in several splits, so the test asks for what training shows, such "
                f"as {' and '.join(shown(place) for _, place in _places(data, across[0])[:2])}. Delete one of each."
            )


def tell_same_files(data: Part) -> None:
    """Tell of files that a folder of one's own holds twice; nothing is decoded."""
    own = asked(data, OfData)
    if data.target.endswith(OWN[0]) and own.root:
        columns = Chosen(own.file_column, own.label_column, own.on_error == "skip")
        groups = find(own.root, chosen=columns).groups.values()
        classes = {name: [picture.file for picture in own] for group in groups for name, own in group.items()}
        for line in repeat_warnings(same_files(classes)):
            warn(line)


def is_folder(data: Part) -> bool:
    """Whether a data set is a folder of one's own, of pictures or of texts."""
    return data.target.endswith(OWN)


def _places(data: DataSet, rows: list[int]) -> Places:
    """The class of each row of the store, and which of its pictures it is, from 0."""
    starts, names = data.store.starts, data.store.names
    numbers = [int(number) for number in starts.searchsorted(rows, side="right") - 1]
    words = [f": {as_text(data.store.images[row])[:40]}" if data.items == "texts" else "" for row in rows]
    return [
        (names[c], f"{names[c]} number {row - int(starts[c])}{text}")
        for c, row, text in zip(numbers, rows, words, strict=True)
    ]
