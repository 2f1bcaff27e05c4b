"""data=[omniglot,cub]: several data sets in one run. data.omniglot.root=DIR is of one of them, data.size=84 of all.

Hydra would put the files of a list on top of each other. It is told of the first data set alone, whose recipe counts,
and the others are composed beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fsl_cli.errors import UserError, command
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.own_file import words_in
from fsl_cli.settings.registry import choices, names, settings_of
from fsl_cli.settings.typed import PATHS, TEXTS

TARGET = "fsl_cli.data.several.several"
LIST = re.compile(r"\[[^\[\]]*\]")
WORD = re.compile(r"([+~]*)data\.([^=]+)=(.*)", re.DOTALL)
OF_ONE = {key.partition(".")[2] for key in PATHS | TEXTS if key.startswith("data.") and key != "data.cache"}


def sets_typed(words: Sequence[str], user_dir: str | None = None) -> dict[str, str]:
    """What each of several data sets is called -> its file of conf/data; nothing where one is chosen, or none.

    A second of a kind is folder2. Raises UserError for one that there is not.
    """
    words = words_in(words)
    value = next((word[5:] for word in reversed(words) if word.startswith("data=")), "")
    if not LIST.fullmatch(value):
        return {}
    there, found, chosen = choices("data", user_dir), dict[str, str](), names(value)
    if not chosen:
        raise UserError(f"data={value}: which data sets? Type data=[omniglot,glyphs].")
    for number, name in enumerate(chosen):
        if name not in there:
            raise UserError(
                f"data={value}: there is no data set '{name}'.{did_you_mean(name, list(there))} "
                f"There are {', '.join(there)}."
            )
        before = chosen[:number].count(name)
        found[f"{name}{before + 1}" if before else name] = name
    return found


def for_the_first(words: Sequence[str], user_dir: str | None = None) -> list[str]:
    """The words as they are for the first of several data sets alone; all of them where one is chosen, or none.

    Raises UserError for a setting that is none of these data sets', or of more than one of them.
    """
    sets = sets_typed(words, user_dir)
    if not sets:
        return list(words)
    words = words_in(words)
    own = [name_of_setting for word in words if (name_of_setting := _setting(word))]
    for key, value in own:
        _demand_known(key, value, sets, user_dir)
    one = next(iter(sets))
    rest = [word for word in words if not _setting(word) and not word.startswith("data=")]
    return [*rest, *words_of(one, words, user_dir)]


def words_of(called: str, words: Sequence[str], user_dir: str | None = None) -> list[str]:
    """The words that choose one of several data sets, and its settings: data=omniglot data.root=DIR."""
    sets = sets_typed(words, user_dir)
    has = {name: settings_of("data", file, user_dir) for name, file in sets.items()}
    shared, own = [], []
    for word in words_in(words):
        if match := WORD.fullmatch(word):
            sign, key, value = match.groups()
            name, dot, inner = key.partition(".")
            if dot and name in sets:
                own += [f"{sign}data.{inner}={value}"] if name == called else []
            elif f"data.{key}" in has[called] or not any(f"data.{key}" in each for each in has.values()):
                shared.append(f"{sign}data.{key}={value}")
    return [f"data={sets[called]}", *shared, *own]


def joined(
    values: Mapping[str, Any],
    words: Sequence[str],
    user_dir: str | None,
    compose: Callable[[list[str]], dict[str, Any]],
) -> tuple[dict[str, Any], str]:
    """The values with all data sets that the words name in place of the first, and what these are called together.

    `compose` gives the values of other words. The values as they are, and "", where there is one data set. Raises
    UserError as that does.
    """
    sets = sets_typed(words, user_dir)
    if len(sets) < 2:
        return dict(values), ""
    one, *others = sets
    nodes = {one: dict(values["data"])}
    for called in others:
        try:
            nodes[called] = dict(compose(words_of(called, words, user_dir))["data"])
        except UserError as error:
            raise UserError(as_of(called, str(error))) from error
    sizes = [node["size"] for node in nodes.values() if isinstance(node.get("size"), int)]
    for node in nodes.values():
        if "size" in node and sizes:
            node["size"] = max(sizes)
    return {**values, "data": {"_target_": TARGET, **nodes}}, "+".join(sets)


def as_of(called: str, said: str) -> str:
    """A message about data.root as one about data.omniglot.root, where that is what a data set is called."""
    return re.sub(r"\bdata\.(?=\w)", f"data.{called}.", said) if called else said


def first(words: Sequence[str], user_dir: str | None = None) -> str:
    """What the first of several data sets is called, where a setting of it is typed; else ""."""
    called = next(iter(sets_typed(words, user_dir)), "")
    return called if any(word.lstrip("+~").startswith(f"data.{called}.") for word in words) else ""


def typed_again(words: Sequence[str], typed: Sequence[str], user_dir: str | None = None) -> list[str]:
    """The words with those of `typed` for several data sets in place of what `for_the_first` has made of them."""
    if not sets_typed(typed, user_dir):
        return list(words)
    made = set(for_the_first(typed, user_dir)) - set(typed)
    return [*(word for word in words if word not in made), *(w for w in typed if w.startswith("data=") or _setting(w))]


def _setting(word: str) -> tuple[str, str]:
    """omniglot.root and DIR of data.omniglot.root=DIR; of a word that sets nothing of a data set, nothing."""
    match = WORD.fullmatch(word)
    return (match[2], match[3]) if match else ()  # type: ignore[return-value]


def _demand_known(key: str, value: str, sets: dict[str, str], user_dir: str | None) -> None:
    """Raises UserError where data.KEY is no setting of these data sets together."""
    name, dot, inner = key.partition(".")
    called = ", ".join(sets)
    if dot and name not in sets:
        example = command(f"data.{next(iter(sets))}.{inner}={value}")
        raise UserError(f"data.{key}: this run has the data sets {called}.{did_you_mean(name, list(sets))} "
                        f"Type {example}.")  # fmt: skip
    if dot and inner == "size":
        raise UserError(f"data.{key}={value}: all data sets of a run have one size. Type data.size={value}.")
    having = [each for each, file in sets.items() if f"data.{key}" in settings_of("data", file, user_dir)]
    if not dot and key in OF_ONE and len(having) > 1:
        each = " or ".join(command(f"data.{one}.{key}={value}") for one in having)
        raise UserError(f"data.{key}={value}: of which data set? Type {each}.")
