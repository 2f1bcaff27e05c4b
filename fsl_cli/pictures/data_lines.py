"""What fsl data info prints of a data set, line by line."""

from __future__ import annotations

from typing import Any

from fsl_cli.data.inspection import bytes_text, shape_words


def info_lines(found: dict[str, Any]) -> list[str]:
    """The lines that say for people what `summary` found."""
    items = found["items"]
    lines = [
        f"{found['name']}: {found['classes']:,} classes, {found['images']:,} {shape_words(items, *found['shape'])}",
        f"{items:<13}  {bytes_text(found['bytes'])}, hash {found['hash']}",
        f"store          {found['store']}",
        *([f"read as        {found['reading']}"] if found["reading"] else []),
        f"split          {found['split']} ({found['split_hash']}), rotations={found['rotations']}",
    ]
    for part, split in found["splits"].items():
        turned = f", {split['classes'] * split['turns']:,} with their quarter turns" if split["turns"] > 1 else ""
        lines.append(
            f"  {part:<5}        {split['classes']:,} classes{turned}, {split['images']:,} {items}; "
            f"{items} of a class: min {split['min']}, median {split['median']:g}, max {split['max']}"
        )
    if items == "images":
        lines.append(f"normalised by  mean {_numbers(found['mean'])}, standard deviation {_numbers(found['std'])}")
    odd = [f"{name} has {count}" for name, count in found["odd_classes"].items()]
    lines.append(f"odd classes    {_some(odd, ', ') or 'none'}")
    for where, mark in (("across_splits", "ACROSS SPLITS"), ("within_a_split", "within a split")):
        groups = found[f"duplicates_{where}"]
        serious = f": the splits share these {items}" if where == "across_splits" and groups else ""
        lines.append(f"duplicates     {mark}: {_counted(groups, items)}{serious}")
        lines += [f"  {text}" for text in _some([_places(group) for group in groups], "\n").splitlines()]
    lines.append(f"skipped files  {len(found['skipped']) or 'none'}")
    lines += [f"  {text}" for text in _some(found["skipped"], "\n").splitlines()]
    kinds = len(found["left_out"])
    lines.append(f"left out       {f'{kinds} kinds of files' if kinds > 1 else 'files' if kinds else 'nothing'}")
    return lines + [f"  {text}" for text in found["left_out"]]


def _counted(groups: list[Any], items: str) -> str:
    if not groups:
        return "none"
    mixed = sum(len({place["class"] for place in group}) > 1 for group in groups)
    return f"{len(groups):,} {items} occur {sum(map(len, groups)):,} times, {mixed:,} of them in several classes"


def _places(group: list[dict[str, Any]]) -> str:
    return " = ".join(f"{place['split']}/{place['class']} no. {place['image']}" for place in group[:4])


def _some(texts: list[str], between: str) -> str:
    return between.join(texts[:5] + ([f"and {len(texts) - 5:,} more"] if len(texts) > 5 else []))


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
