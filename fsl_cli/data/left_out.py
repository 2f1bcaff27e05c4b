"""The files of a place that were not used, in words: nothing is left out silently."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fsl_cli.data.formats import ending, hint
from fsl_cli.data.places import Place


def left_out(place: Place, taken: Iterable[str], tables: Iterable[str], because: str) -> list[str]:
    """A line for each kind of file that was not taken, with how many there are and one of them.

    `taken` are the names of files that were, `tables` those of tables that were read; `because` says why pictures
    were not.
    """
    shown = {path for path in place.files if place.shows(path)}
    known = {*taken, *tables, *(line.rpartition(": ")[0] for line in place.odd)}  # `shows` adds the large ones
    unused = {path: picture.file.name for path, picture in place.files.items() if picture.file.name not in known}
    pictures = [name for path, name in unused.items() if path in shown]
    others = defaultdict[str, list[str]](list)
    for path, name in unused.items():
        if path not in shown:
            others[ending(path)].append(name)
    lines = [some(pictures, "picture", because)] if pictures else []
    for kind, names in sorted(others.items(), key=lambda item: (-len(item[1]), item[0])):
        about = hint(kind)
        reason = f"cannot be decoded here: {about}" if about else "no pictures"
        lines.append(some(names, f"{kind} file" if kind else "file without ending", reason))
    lines += [some(place.outside, "file", "beside the folder that holds the rest")] if place.outside else []
    lines += [some(place.odd, "file or folder", "cannot be read")] if place.odd else []
    lines += [some(place.junk, "hidden file or folder", "left by a system or program")] if place.junk else []
    return lines


def first_five(names: Sequence[str]) -> str:
    """a, b, c, d, e and 3 more"""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def some(names: list[str], kind: str, because: str) -> str:
    """12 .txt files, such as k0/notes.txt: no pictures"""
    files = f"1 {kind}, {names[0]}" if len(names) == 1 else f"{len(names):,} {_plural(kind)}, such as {names[0]}"
    return f"{files}: {because}"


def _plural(kind: str) -> str:
    if kind.endswith("file or folder"):
        return kind.replace("file or folder", "files or folders")
    return kind.replace("file", "files", 1) if "file" in kind else f"{kind}{'es' if kind.endswith('s') else 's'}"
