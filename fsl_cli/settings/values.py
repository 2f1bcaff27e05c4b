"""Does a value, as YAML has it, fit an annotation? Types and ranges, and the words for what is wrong."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fsl_cli.ranges import Range

Option = tuple[Any, Range | None]  # one of the types that a value may have, and the range of its numbers
LISTS = (list, tuple, Sequence)
LARGEST = 2**63 - 1  # of whole numbers: what an index of torch holds


def problem(value: Any, kind: Any) -> str:
    """What is wrong with a value from YAML for this annotation, "" if nothing is.

    A whole number without a range is a count, so at least 1; no number is NaN or infinite. Types that YAML cannot
    write always pass.
    """
    options = list(_options(kind))
    fitting = [(each, bounds) for each, bounds in options if _fits(value, each)]
    if not fitting:
        return f"must be {_type_names(options)}, not {type(value).__name__} {value!r}."
    wrong = [_out_of_range(value, each, bounds) for each, bounds in fitting]
    return min(wrong, key=len)  # "" where one of them admits it


def _options(kind: Any, bounds: Range | None = None) -> Iterator[Option]:
    """The members of a union that YAML can write, such as float of `float | Tensor`; all when there are none."""
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        yield from _options(kind, next((note for note in notes if isinstance(note, Range)), bounds))
    elif get_origin(kind) in (Union, types.UnionType):
        members = [option for member in get_args(kind) for option in _options(member, bounds)]
        plain = [option for option in members if _writable(option[0])]
        yield from plain or members
    else:
        yield kind, bounds


def _writable(kind: Any) -> bool:
    return kind in (int, float, bool, str, type(None)) or get_origin(kind) is not None


def words(kind: Any) -> str:
    """What a value may be: `a whole number, at least 1, or all`."""
    found: dict[str, None] = {}
    for each, bounds in _options(kind):
        ranged = f", {bounds or Range(least=1)}" if each is int else f", {bounds}" if each is float and bounds else ""
        found[f"{_name(each)}{ranged}"] = None
    return " or ".join(found)


def fits(value: Any, kind: Any) -> bool:
    """Whether the type of a value is one that an annotation allows, whatever its range."""
    return any(_fits(value, each) for each, _ in _options(kind))


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(kind))
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float)
    if kind in (int, bool, str, type(None)):
        return isinstance(value, kind)
    if origin is dict:
        keys, entries = get_args(kind) or (Any, Any)
        return isinstance(value, dict) and all(fits(key, keys) and fits(value[key], entries) for key in value)
    if origin in LISTS:
        inner = [each for one in get_args(kind) if one is not Ellipsis for each, _ in _options(one)]
        return isinstance(value, list) and all(any(_fits(each, one) for one in inner) or not inner for each in value)
    return True


def _out_of_range(value: Any, kind: Any, bounds: Range | None) -> str:
    """must be at least 1, where a number of the value is not."""
    usual = Range() if _has_float(kind) else Range(least=1)
    for number in _numbers(value):
        if isinstance(number, int) and abs(number) > LARGEST:
            return f"must be a number of at most 19 digits, not one of {len(str(abs(number)))}."
        found = bounds or usual
        if not found.admits(number):
            return f"must be {found}."
    return ""


def _has_float(kind: Any) -> bool:
    return kind is float or any(_has_float(each) for each in get_args(kind))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> Iterator[int | float]:
    if _number(value):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)


def _type_names(options: list[Option]) -> str:
    return " or ".join(dict.fromkeys(_name(kind) for kind, _ in options))


def _name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    several = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts"}
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) in LISTS:
        members = (each for one in get_args(kind) if one is not Ellipsis for each, _ in _options(one))
        inner = dict.fromkeys(map(several.get, members))
        return f"a list of {' or '.join(map(str, inner))}" if inner and None not in inner else "a list"
    if get_origin(kind) is dict:
        return (
            "a table of whole numbers and numbers, such as '{0:1,5000:0.1}'"
            if get_args(kind) == (int, float)
            else "a table"
        )
    return names.get(kind, str(kind))
