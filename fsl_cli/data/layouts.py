"""Which image shows what, in the forms in which people have their own: class folders, split folders, or a table.

A form is recognised by what it means, said in words (`Found.reading`), and what it does not take is said too.
Everything wrong with it is one error.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, NoReturn

from fsl_cli.data.archives import BROKEN, Mounted, archive_of
from fsl_cli.data.decode import first_ten
from fsl_cli.data.left_out import first_five, left_out, some
from fsl_cli.data.listed import Chosen, Finder, Groups, by_table, divided, merged, tables_of, tables_of_last_resort
from fsl_cli.data.names import WEAK, part_of
from fsl_cli.data.places import Folder, Place
from fsl_cli.data.store import SPLITS
from fsl_cli.data.tables import ENDINGS
from fsl_cli.errors import UserError, command

LAYOUT = (
    "It needs a folder per class, such as ROOT/cat/1.jpg, or class folders inside ROOT/train and ROOT/test, "
    "or a table (CSV) with the columns file and label; or a zip or tar of these."
)

UNSORTED = "unsorted pictures"  # the class of pictures that nobody has sorted
ENOUGH = 6  # classes, for two in each split


class Found(NamedTuple):
    """All images, how they were found, and what was left out."""

    groups: Groups
    table: str  # that lists them; "" if their folders tell what they show
    reading: str  # in words, such as "class folders; 8 classes"
    left_out: list[str]


def find(
    root: str | None,
    setting: str = "data.root",
    chosen: Chosen = Chosen(),  # noqa: B008
    unsorted: bool = False,
) -> Found:
    """The images of a folder, a table or an archive, as `setting` names it.

    A table that lies directly in a folder or archive and lists pictures that are there is what counts, whatever folders
    are beside it; other tables mean nothing. With `unsorted`, pictures that lie in no class folders, or in one, are
    of the class `UNSORTED`. Raises UserError.
    """
    if not root:
        raise UserError(f"data=folder needs to know where your images are: type data.root=ROOT. {LAYOUT}")
    try:
        place, table = _open(root, setting)
        tables = [table] if table else tables_of(place, chosen)
        while not tables and _unwrap(place):
            tables = tables_of(place, chosen)
        tables = tables or tables_of_last_resort(place, chosen)
        finder = Finder(place)
        return (
            _by_tables(place, tables, finder, chosen, setting, not table)
            if tables
            else _by_name(place, root, setting, unsorted)
        )
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror or error}.") from error
    except BROKEN as error:
        raise UserError(f"{root} cannot be read ({error}). Copy it again.") from error


def left_out_by(setting: str) -> str:
    """What leaves out what cannot be used, beside the setting that names the place: a data set's, or fsl predict's."""
    return "data.on_error=skip" if setting == "data.root" else "on_error=skip"


def refuse(heading: str, problems: list[str]) -> NoReturn:
    """One UserError for all problems; the first ten are shown."""
    raise UserError("\n  ".join([heading, *first_ten(problems)]))


def _open(root: str, setting: str) -> tuple[Place, str]:
    """The place, and the table in it if `root` names that."""
    path = Path(root).expanduser()
    if path.is_dir():
        return open_folder(path), ""
    state = "is no regular file" if path.exists() else "does not exist"
    if path.is_file():
        if path.suffix.lower() in (*ENDINGS, ".txt"):
            return Folder(path.parent), path.name
        state = "is a file, but no CSV, zip or tar"
        try:
            if place := archive_of(path):
                return place, ""
        except BROKEN as error:  # what a damaged one raises
            state += f" ({error})"
    raise UserError(f"{setting}={root} {state}. Type {setting}=ROOT with a folder, a CSV, a zip or a tar. {LAYOUT}")


def open_folder(path: Path) -> Place:
    """A folder; if there are no pictures but archives in it, these stand for folders."""
    place: Place = Folder(path)
    return place if place.images() else Mounted(path)


def _unwrap(place: Place) -> bool:
    """Enter the one folder that holds all pictures in folders, beside whatever files, if there is one."""
    full = divided(place, "")
    wrapped = len(full) == 1 and not any(map(place.shows, place.loose())) and bool(divided(place, full[0]))
    if wrapped:
        place.enter(full[0])
    return wrapped


def _by_tables(place: Place, tables: list[str], finder: Finder, chosen: Chosen, setting: str, others: bool) -> Found:
    """Images listed by one table, or one for each split; with `others`, all else in the place must be accounted for."""
    problems: list[str] = []
    read = [by_table(place, table, finder, chosen, problems) for table in tables]
    groups = read[0][0]
    columns = read[0][1]
    if len(tables) > 1:
        parts = [part_of(table.rpartition(".")[0]) or "" for table in tables]
        groups = merged([(part, own) for part, (own, _, _) in zip(parts, read, strict=True)])
    if "" not in groups and not problems:
        absent = [part for part in ("train", "test") if not groups.get(part)]
        problems += [f"No line has the split {part}: train and test are needed, val is not." for part in absent]
    problems += in_two(groups)
    if problems:
        missing = any(line.endswith(" is missing.") for line in problems) and not chosen.skip
        skip = f" ({left_out_by(setting)} leaves out what is missing)" if missing else ""
        refuse(f"{place.name(tables[0])} is no list of images yet{skip}:", problems)
    groups = {part: classes for part, classes in groups.items() if classes}
    taken = [picture.file.name for classes in groups.values() for each in classes.values() for picture in each]
    names = [place.name(table) for table in tables]
    lost = left_out(place, taken, names, f"{tables[0]} does not list them") if others else []
    rows = sum(left for _, _, left in read)
    lost += [f"{rows:,} row{'s' * (rows > 1)} of {tables[0]}: listed twice, or not there"] if rows else []
    reading = f"table {', '.join(tables)}, {columns.told()}; {counted(groups)}"
    return Found(groups, names[0], reading, lost)


def counted(groups: Mapping[str, Mapping[str, object]]) -> str:
    """12 classes: 8 train, 4 test"""
    counts = {part: len(classes) for part, classes in groups.items()}
    parts = ", ".join(f"{count:,} {part}" for part, count in counts.items()) if "" not in counts else ""
    return f"{sum(counts.values()):,} classes" + (f": {parts}" if parts else "")


def _by_name(place: Place, root: str, setting: str, unsorted: bool) -> Found:
    """Images by folders. Folders named as splits are splits only if there are several: a class may be called
    train."""
    full = divided(place, "")
    parts = split_folders(full)
    loose = place.images("") if len(full) < 2 else []
    if unsorted and loose:
        return Found(
            {"": {UNSORTED: loose}},
            "",
            f"unsorted pictures; {len(loose):,} of them",
            left_out(place, [each.file.name for each in loose], [], "no pictures"),
        )
    groups = {part: _inner(place, folder) for folder, part in parts.items()} if parts else {"": full}
    found = {
        part: {path.rpartition("/")[2]: place.images(path) for path in groups[part]}
        for part in ("", *SPLITS)
        if part in groups
    }
    problems = _part_problems(place, full, parts) if parts else []
    if not parts and not full:
        problems.append(f"{place.name()} {_without_classes(place, '')}. {LAYOUT}")
    bare = [folder for folder, part in parts.items() if not groups[part]]
    problems += [f"{place.name(folder)} {_without_classes(place, folder)}." for folder in bare]
    shared = in_two(found)
    if parts and (bare or shared or "test" not in found):
        problems += [*shared, _advice(place, parts, found, setting)]
    if problems:
        lines = [] if full else [f"Left out: {line}." for line in left_out(place, [], [], "not in a class folder")]
        refuse(f"{setting}={root} is no data set yet:", [*problems, *lines])
    taken = [picture.file.name for classes in found.values() for each in classes.values() for picture in each]
    lost = [*_empty(place, parts), *left_out(place, taken, [], "outside the class folders")]
    by_part = {part: folder for folder, part in parts.items()}
    folders = ", ".join(by_part[part] for part in SPLITS if part in by_part)
    reading = f"split folders {folders}" if parts else "class folders"
    where = f" in {place.name()}" if place.inside else ""
    return Found(found, "", f"{reading}{where}; {counted(found)}", lost)


def split_folders(folders: list[str]) -> dict[str, str]:
    """The split that each folder is by its name; nothing if they are classes."""
    parts = {folder: part for folder in folders if (part := part_of(folder))}
    strong = {part for folder, part in parts.items() if not any(word in folder.casefold() for word in WEAK)}
    certain = len(parts) == len(folders) or {"train", "test"} <= strong
    return parts if len(set(parts.values())) > 1 and certain else {}


def _part_problems(place: Place, full: list[str], parts: dict[str, str]) -> list[str]:
    problems = []
    for part in SPLITS:
        same = [place.name(folder) for folder in parts if parts[folder] == part]
        if len(same) > 1:
            problems.append(f"{' and '.join(same)} are both {part} by their names: keep one, or rename the other.")
        elif not same and part != "val":
            problems.append(f"{place.name(part)} is missing: train and test are needed, val is not.")
    odd = [place.name(folder) for folder in full if folder not in parts]
    return problems + [f"{path} is none of train, val and test: rename it, or move it away." for path in odd]


def _advice(place: Place, parts: dict[str, str], found: Groups, setting: str) -> str:
    """What to type where split folders cannot be used as they are: the one with most classes, to be divided."""
    part = max(found, key=lambda each: len(found[each]))
    folder = next(each for each in parts if parts[each] == part)
    if setting != "data.root" or not isinstance(place, Folder):
        return "Train, val and test must each have classes of their own: what is tested was never trained on."
    if len(found[part]) >= ENOUGH:
        return f"To have the classes of one folder divided, type {command(f'{setting}={place.name(folder)}')}."
    return "To tell a few classes apart, nothing is trained: type fsl predict run=RUN support=FOLDER query=FOLDER."


def _inner(place: Place, folder: str) -> list[str]:
    """The class folders of a split, which may have wrappers of its own."""
    while True:
        classes = divided(place, folder)
        loose = any(map(place.shows, place.loose(folder)))
        if len(classes) != 1 or loose or not divided(place, classes[0]):
            return classes
        folder = classes[0]


def _without_classes(place: Place, folder: str) -> str:
    loose = len(place.images(folder))
    if not loose:
        return "has no class folders"
    hint = " (fsl train learns from unsorted pictures with pseudo=prototransfer)" if not folder else ""
    return f"has {loose} images but no class folders{hint}"


def _empty(place: Place, parts: dict[str, str]) -> list[str]:
    """The folders in which classes may be, but that have no pictures."""
    above = ["", *parts]
    empty = [place.name(path) for folder in above for path in place.folders(folder) if not place.images(path)]
    return [some(empty, "folder", "without pictures")] if empty else []


def in_two(groups: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The classes that two splits have, as problems."""
    problems = []
    for one, other in combinations(groups, 2):
        both = sorted(groups[one].keys() & groups[other].keys())
        if both:
            problems.append(f"{one} and {other} both have {first_five(both)}: keep a class in one split only.")
    return problems


def split_problems(groups: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Of splits that tell themselves: train and test are needed, and each class is in one of them."""
    if "" in groups or not groups:
        return []
    absent = [part for part in ("train", "test") if not groups.get(part)]
    return [*(f"There is no split {part}: train and test are needed, val is not." for part in absent), *in_two(groups)]
