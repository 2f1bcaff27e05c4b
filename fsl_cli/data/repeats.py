"""Pictures that are there twice, and classes that repeat others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from fsl_cli.data.decode import File
from fsl_cli.data.several import OfClasses
from fsl_cli.data.store import SPLITS
from fsl_cli.errors import shown

Places = list[tuple[str, str]]  # class and picture


def same_files(classes: Mapping[str, Iterable[File]]) -> list[Places]:
    """Groups of pictures whose files are the same, byte by byte; only files of one size are read."""
    of_size = defaultdict[int, list[tuple[str, File]]](list)
    for name, files in classes.items():
        for file in files:
            of_size[_size(file)].append((name, file))
    found = defaultdict[tuple[object, bytes], Places](list)
    for size, several in of_size.items():
        for name, file in several if len(several) > 1 or size < 0 else ():
            with suppress(OSError, RuntimeError):  # what cannot be read is told by what needs it
                found[file.box, blake2b(file.read(), digest_size=16).digest()].append((name, file.name))
    return [places for places in found.values() if len(places) > 1]


def _size(file: File) -> int:
    """The size in bytes; -1 where only reading tells it, as inside a zip."""
    with suppress(OSError):
        return Path(file.name).stat().st_size
    return -1


def repeat_warnings(groups: Iterable[Places], what: str = "picture") -> Iterator[str]:
    """What groups of equal pictures, or texts, mean for whoever trains on them, a line for each kind."""
    listed = list(groups)
    within = [each for each in listed if len({name for name, _ in each}) < len(each)]
    across = [each for each in listed if len({name for name, _ in each}) > 1]
    if within:
        such = _names(_of_one_class(within[0]))
        yield (
            f"{_count(within, what)} there twice in a class, such as {such}: one may be in the support set and "
            "the other in the query set, and accuracy then says too much. Delete the copies."
        )
    if across:
        yield (
            f"{_count(across, what)} in two classes, such as {_names(across[0])}: no classifier can be right about "
            "both. Delete one of each."
        )


def repeated_classes(data: OfClasses) -> list[tuple[str, str, str]]:
    """Test classes that begin with the picture of a class of another split: (test class, split, class there)."""
    seen = {
        digest: (part, name) for part in SPLITS if part != "test" for name, digest in data.fingerprints(part).items()
    }
    return [(name, *seen[digest]) for name, digest in data.fingerprints("test").items() if digest in seen]


def _count(groups: list[Places], what: str) -> str:
    return f"{len(groups):,} {what}s are" if len(groups) > 1 else f"1 {what} is"


def _of_one_class(group: Places) -> Places:
    """Those of the first class that has several."""
    names = [name for name, _ in group]
    several = next(name for name in names if names.count(name) > 1)
    return [place for place in group if place[0] == several]


def _names(group: Places) -> str:
    """Two of them, of two classes where there are."""
    first = group[0]
    other = next((each for each in group if each[0] != first[0]), group[1])
    return f"{shown(first[1])} and {shown(other[1])}"
