"""Typed words as Hydra's grammar reads them: a path or a text stays what it is, whatever characters it has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# Settings that are paths, and others that are text. A test holds them against the annotations of all that conf/ names.
PATHS = {
    "out", "init", "teacher", "data.root", "data.labels", "data.class_rows", "data.cache",
    "backbone.weights", "backbone.file", "pseudo.run",
}  # fmt: skip
TEXTS = {
    "time", "backbone.name", "backbone.tag", "backbone.templates",
    "data.name", "data.file_column", "data.label_column", "data.text_column",
    "algo.frozen",
    "hydra.sweeper.study_name", "hydra.sweeper.storage", "logger.tensorboard.name", "logger.tensorboard.version",
    "logger.mlflow.experiment_name", "logger.mlflow.tracking_uri", "logger.wandb.project", "logger.comet.project",
}  # fmt: skip
TABLES = {"schedule.table"}  # a table that is typed takes the place of a recipe's; Hydra would add one to the other
# commas in these part nothing without -m
COLUMNS = {"data.file_column", "data.label_column", "data.text_column", "backbone.templates"}
SWEEPS = re.compile(r"(choice|glob|shuffle|sort|range|interval|tag)\(.*\)", re.DOTALL)


def for_hydra(words: Sequence[str], sweep: bool = False) -> list[str]:
    """The words, those that are paths or text in quotes where Hydra needs them.

    With `sweep`, commas part the values of a sweep; those of a path only where each part is there and the whole is
    not.
    """
    return [_word(word, sweep) for word in words]


def whole_tables(words: Sequence[str]) -> list[str]:
    """The words, each table in the place of what is there."""
    found = []
    for word in words:
        key, _, value = word.partition("=")
        key, value = key.lstrip("+"), value.strip()
        found += [f"{key}=null", f"+{key}={value}"] if key in TABLES and value.startswith("{") else [word]
    return found


def tables_as_typed(words: Sequence[str]) -> list[str]:
    """What `whole_tables` has made of words, as they were."""
    tables = {word.lstrip("+") for word in words if word.startswith(tuple(f"+{key}={{" for key in TABLES))}
    made = {f"{table.partition('=')[0]}=null" for table in tables}
    return [word.lstrip("+") if word.lstrip("+") in tables else word for word in words if word not in made]


def quoted(text: str) -> str:
    """A text as a quoted value of Hydra's grammar."""
    inner = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", inner) + "'"


def is_text(key: str) -> bool:
    """Whether a setting's value is a path or a text, also where it looks like a number."""
    return plain_key(key) in PATHS | TEXTS


def plain_key(key: str) -> str:
    """data.root of data.omniglot.root, which is of one of several data sets; other keys without a plus."""
    return re.sub(r"^data\.\w+\.(?=\w+$)", "data.", key.lstrip("+"))


def _word(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if not equals or not is_text(key) or value in ("", "null") or _is_quoted(value):
        return word
    is_path = plain_key(key) in PATHS
    if is_path and _there(value):
        return f"{key}={quoted(value.replace('${', chr(92) + '${'))}"
    if sweep and SWEEPS.fullmatch(value):
        return word
    parts = value.split(",")
    several = sweep and all(map(_there, parts)) if is_path else sweep or plain_key(key) not in COLUMNS
    if len(parts) > 1 and several:
        return f"{key}={','.join(map(quoted, parts))}"
    return f"{key}={quoted(value)}"


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] in "'\"" and value[-1] == value[0] and not _there(value)


def _there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, or no path at all
        return False
