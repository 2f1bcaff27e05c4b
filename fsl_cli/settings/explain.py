"""What is wrong with typed words, and what to type instead: Hydra's errors in plain words."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Sequence
from typing import Any

from fsl_cli.errors import UserError, command
from fsl_cli.settings import other_tools
from fsl_cli.settings.hints import did_you_mean, nearest
from fsl_cli.settings.hydra_conf import composed, hydra_words
from fsl_cli.settings.own_file import take_files
from fsl_cli.settings.registry import choices, dotted_keys, groups, names, settings_of
from fsl_cli.settings.schema import KINDS, PARTS
from fsl_cli.settings.typed import TABLES, for_hydra
from fsl_cli.settings.values import problem
from fsl_cli.settings.words import typed_value

SEVERAL = (
    "Several data sets are typed, data=[omniglot,glyphs], or stand in a file that is named by its path, "
    "experiment=PATH.yaml."
)
KEY = re.compile(r"([+~]{0,2})([\w./@-]+)=?(.*)", re.DOTALL)


def demand_readable(words: Sequence[str], user_dir: str | None = None, sweep: bool = False) -> None:
    """Raises UserError where Hydra could not read a word, or would read several values of which `sweep` is not told."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    known, parser, problems = groups(user_dir), OverridesParser.create(), _hydras_own(words)
    if problems := problems or _apart(words):
        raise UserError("\n".join(problems))
    for word, read in zip(words, for_hydra(take_files(words)[0], sweep), strict=True):
        key, _, value = word.partition("=")
        if form := _form(word):
            problems.append(form)
            continue
        group = key.lstrip("+~")
        taken_away = key.startswith("~") and value.startswith("[")  # of which Hydra takes one name alone
        if group in known and (taken_away or not all(map(_may_be_choice, names(value)))):
            problems.append(no_such_choice(group, value, user_dir))
            continue
        if sweep and key in known and re.fullmatch(r"[\w,-]+", value):
            there = [*choices(key, user_dir), "basic"]
            problems += [no_such_choice(key, each, user_dir) for each in names(value) if each not in there]
        try:
            several = parser.parse_override(read).is_sweep_override()
        except (HydraException, ValueError):
            problems.append(
                f"'{word}' cannot be read as key=value. A value is a word, a number or a list such as [1,2]; other "
                "text stands in quotes of its own, \"key='a, b'\"."
            )
            continue
        if several and not sweep:
            problems.append(f"{word}: several values are a sweep. Type -m for a sweep.")
    if problems:
        raise UserError("\n".join(problems))


def _hydras_own(words: Sequence[str]) -> list[str]:
    """What is wrong with words that are for Hydra's own folders and logs."""
    if "LOCAL_RANK" in os.environ:  # one of several processes, to whose words Lightning adds Hydra's
        return []
    free = ("hydra.launcher.", "hydra.sweeper.", "hydra.searchpath")
    own = [word for word in words if (key := word.lstrip("+~")).startswith("hydra.") and not key.startswith(free)]
    return [f"{word}: fsl makes its folders and logs itself. Type out=FOLDER for another folder." for word in own]


def _apart(words: Sequence[str]) -> list[str]:
    """What is wrong with settings typed as other programs take them: way = 5, --way 5, --way=5."""
    found = []
    for number, word in enumerate(words):
        before, after = (words[at] if 0 <= at < len(words) else "" for at in (number - 1, number + 1))
        if word == "=":
            found.append(f"'{before} = {after}': settings have no blanks inside. Type {command(f'{before}={after}')}.")
        elif re.match(r"--?[A-Za-z]", word):
            key = word.lstrip("-").replace("-", "_")
            key = key if "=" in key or "=" in after or after.startswith("-") else f"{key}={after}"
            found.append(f"'{word}': settings have no dashes. Type {command(key if '=' in key else f'{key}=VALUE')}.")
    return found


def _may_be_choice(value: str) -> bool:
    """Whether Hydra takes a word for text: it has choices of no other kind."""
    if value.lower() in ("null", "true", "false"):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def explain(error: Exception, words: Sequence[str], user_dir: str | None = None) -> UserError:
    """What is wrong with these words, in our words; Hydra's own where we have none."""
    known = groups(user_dir)
    problems = []
    unknown: list[tuple[str, str]] = []
    for word in words:
        if form := _form(word):
            problems.append(form)
            continue
        match = KEY.fullmatch(word)
        sign, key, value = match.groups() if match else ("", word, "")
        key = key.lstrip("/")
        if key in known:
            named = (*choices(key, user_dir), *(("basic",) if key.startswith("hydra/") else ()))
            wrong = [v for v in names(value) or [value] if v not in named and not v.startswith("$")]
            problems += [no_such_choice(key, each, user_dir) for each in wrong]
        elif key == "experiment":
            if not value.endswith((".yaml", ".yml")):
                write = command("fsl", "config", f"to={value}.yaml")
                problems.append(f"{word}: there is no such experiment. {write} writes one.")
        elif whole := next((each for each in TABLES if key.startswith(f"{each}.")), None):
            problems.append(f"{word}: a table is typed whole. Type '{whole}={{0:1,5000:0.1}}'.")
        elif "+" not in sign:
            unknown.append((key, value))
    if unknown:
        problems += _unknown(unknown, words, user_dir)
    if not problems:
        said = " ".join(str(error).split("\n    full_key")[0].split())
        if "${data}" in said and not any("=[" in word for word in words):  # a list in one of the user's files
            return UserError(SEVERAL)
        one = re.match("Could not override '([^']+)'", said)  # by a table with other keys
        problems = [f"{one[1]}: its settings are typed one by one, {one[1]}.NAME=VALUE. See fsl show." if one else said]
    return UserError("\n".join(dict.fromkeys(problems)))


def no_such_choice(group: str, value: str, user_dir: str | None) -> str:
    """What to type in place of a choice that does not exist."""
    there = list(choices(group, user_dir))
    wrong = next((v for v in names(value) if v not in there), value)
    meant = other_tools.choice(group, wrong)
    hint = f" Here: {meant}." if meant else did_you_mean(wrong, there)
    return f"{group}={wrong}: there is no such {group}.{hint} There are {', '.join(there)}."


def _form(word: str) -> str:
    """What is wrong with the form of a word; "" where nothing is."""
    match = KEY.fullmatch(word)
    if match and ("=" in word or word.startswith("~")):
        return ""
    return f"'{word}' is not of the form key=value, such as way=5."


def _unknown(typed: Sequence[tuple[str, str]], words: Sequence[str], user_dir: str | None) -> list[str]:
    """What to type in place of settings that do not exist for the choices that `words` make."""
    chosen, known, targets = accepted(words, user_dir)
    return [_instead(key, value, chosen, known, targets, user_dir) for key, value in typed if key not in known]


def _instead(
    key: str, value: str, chosen: dict[str, str], known: list[str], targets: dict[str, str], user_dir: str | None
) -> str:
    """What to type in place of a setting that there is not; hints for one choice come from that choice alone."""
    part = key.partition(".")[0]
    elsewhere = part in chosen and key in _settings_of_others(part, user_dir)  # another choice's own setting
    if not elsewhere and (said := _neighbour(key, value, [*known, *chosen], targets, user_dir)):
        return said
    meant = other_tools.setting(key) or key  # inner_lr, where the algorithm has none
    group = meant.partition(".")[0]
    inside = "." in meant and group in chosen
    more = [f"+{group}.{name}" for name in _kinds(targets.get(group, ""))] if inside else []
    more = [each for each in more if each[1:] not in known]
    if f"+{key}" in more:
        return f"{key}: {group}={chosen[group]} sets none, but takes one. Type {command(f'+{key}={value}')}."
    where = f" of {group}={chosen[group]}" if inside else ""
    own = [each for each in known if each.startswith("hydra.") == key.startswith("hydra.")]
    near = did_you_mean(key, [*own, *chosen]) or did_you_mean(f"+{key}", more)
    if not near and "." not in meant and (said := _of_parts(key, value, chosen, known, targets, user_dir)):
        return said
    others = _settings_of_others(group, user_dir) if inside else {}
    theirs = meant if meant in others else "" if near else nearest(key, list(others))
    if theirs:
        return f"'{key}' is not a setting{where}; {theirs} is one of {group}={', '.join(others[theirs])}."
    return f"'{key}' is not a setting{where}.{near} See fsl show{f' {group}={chosen[group]}' if inside else ''}."


def _of_parts(
    key: str, value: str, chosen: dict[str, str], known: list[str], targets: dict[str, str], user_dir: str | None
) -> str:
    """For a name without its part, such as momentum: which parts take it, or have a choice that has it."""
    from fsl_cli.settings.binding import LATER

    for part, target in targets.items():
        if key in _kinds(target) and key not in LATER[part] and f"{part}.{key}" not in known:
            whose = f"{part}={chosen[part]}" if part in chosen else part
            return f"{key}: {whose} sets none, but takes one. Type {command(f'+{part}.{key}={value}')}."
    found = [
        f"{there} is one of {part}={', '.join(choices)}"
        for part in chosen
        if "/" not in part
        for there, choices in _settings_of_others(part, user_dir).items()
        if there == f"{part}.{key}"
    ]
    return f"'{key}' is not a setting; {'; '.join(found)}." if found else ""


def _kinds(target: str) -> dict[str, Any]:
    """What something of fsl's or torch's own takes, as `+group.name` may add it, and what each may be."""
    from fsl_cli.settings.binding import hints

    module, _, attribute = target.rpartition(".")
    if not module.startswith(("fsl_cli.", "torch.")):  # whose import may run anything
        return {}
    try:
        found = getattr(importlib.import_module(module), attribute)
        return {name: hints(found).get(name) for name in inspect.signature(found).parameters}
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}


def _neighbour(key: str, value: str, known: Sequence[str], targets: dict[str, str], user_dir: str | None) -> str:
    """`lr: here optim.lr. Type optim.lr=0.01.`, for another tool's word; "" where that would not be accepted."""
    meant = other_tools.setting(key)
    if meant == "backbone" and value in choices("algo", user_dir):  # model=maml
        meant = "algo"
    if meant in groups(user_dir):
        there = choices(meant, user_dir)
        advice = f"Type {meant}={value}." if value in there else no_such_choice(meant, value, user_dir)
    else:
        other = other_tools.choice(meant, value)
        advice = f"Type {other}." if other else _typed_there(meant, value, targets) if value else ""
    if meant in known:
        return f"{key}: here {meant}. {advice}".rstrip()
    return f"{key}: here {said}" if (said := other_tools.sentence(key)) else ""


def _typed_there(key: str, value: str, targets: dict[str, str]) -> str:
    """`Type optim.lr=0.01.`, or what that setting may be where this value is none for it."""
    group, _, name = key.rpartition(".")
    kind = _kinds(targets.get(group, "")).get(name) if group else KINDS.get(key)
    try:
        wrong = problem(typed_value(key, value), kind) if kind else ""
    except UserError:
        return ""
    return f"{key}={value}: {wrong}" if wrong else f"Type {command(f'{key}={value}')}."


def accepted(words: Sequence[str], user_dir: str | None) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """The choices that `words` make, as far as there are such; every setting that these have; what each builds."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    known = groups(user_dir)
    chosen = [
        word
        for word in words
        if (key := word.partition("=")[0]) == "experiment"
        or (key in known and set(names(word.partition("=")[2])) <= set(choices(key, user_dir)) and "," not in word)
    ]
    try:
        found = composed(hydra_words(chosen, user_dir))
    except HydraException:
        found = composed([])
    keys = list(dotted_keys(OmegaConf.to_container(found)))
    keys += [f"hydra.{key}" for key in dotted_keys(OmegaConf.to_container(found.hydra))]
    made = {group: str(name) for group, name in found.hydra.runtime.choices.items() if group in found}
    nodes = {name: OmegaConf.to_container(found[name]) for name in PARTS if found[name] is not None}
    return made, keys, {name: str(node.get("_target_", "")) for name, node in nodes.items() if isinstance(node, dict)}


def _settings_of_others(group: str, user_dir: str | None) -> dict[str, list[str]]:
    """The dotted settings that any choice of a group has, and which ones have it."""
    found: dict[str, list[str]] = {}
    for name in choices(group, user_dir):
        for key in settings_of(group, name, user_dir):
            if key.startswith(f"{group}."):
                found.setdefault(key, []).append(name)
    return found
