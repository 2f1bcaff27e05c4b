"""Composed settings as one YAML to edit, which `experiment=` takes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fsl_cli.errors import command
from fsl_cli.settings.compose import compose, config_files, provenance
from fsl_cli.settings.hydra_conf import composed, hydra_words
from fsl_cli.settings.own_file import KEPT_OUT
from fsl_cli.settings.schema import NAMES, meaning
from fsl_cli.settings.several import sets_typed, words_of

LINE = re.compile(r"( *)([\w.]+):(.*?)(?:  # (.*))?$")
APART = ("experiment", "recipe")  # groups whose settings are written out


def own_yaml(words: Sequence[str], user_dir: str | None, name: str = "my.yaml") -> str:
    """What `words` come to: each setting with its comment, what depends on another as it depends.

    Raises UserError for settings that do not compose.
    """
    from omegaconf import OmegaConf

    data = compose(words, user_dir).values["data"]
    found = composed(hydra_words(words, user_dir))
    typed = {key for key, source in provenance(words, user_dir).items() if not source.endswith(".yaml")}
    values: Any = OmegaConf.to_container(found, resolve=False)
    chosen = {group: pick for group, pick in found.hydra.runtime.choices.items() if group in values}
    if sets := sets_typed(words, user_dir):
        values["data"] = {called: data[called] for called in sets} if len(sets) > 1 else data
        chosen["data"] = [*sets.values()]
    trust = values.get("trust") or []
    beside = f" trust=[{','.join(trust)}]" if trust else ""
    lines = ["# @package _global_", f"# {command('fsl', 'train', f'experiment={name}')}{beside}", "defaults:"]
    lines += [f"  - override /{group}: {_flow(pick)}" for group, pick in chosen.items() if group not in APART]
    settings = {key: value for key, value in values.items() if key not in KEPT_OUT}
    return "\n".join([*lines, "", *_lines(settings, "", _comments(words, user_dir), typed)]) + "\n"


def _lines(node: dict[Any, Any], prefix: str, comments: dict[str, str], typed: set[str]) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for key, value in node.items():
        dotted = f"{prefix}{key}"
        if key == "_target_" and dotted not in typed and not prefix.startswith("logger."):
            continue  # the choice's own; of trackers there may be several, which no default can name
        comment = f"  # {comments[dotted]}" if dotted in comments else ""
        if isinstance(value, dict) and value and all(isinstance(inner, str) for inner in value):
            if inner := list(_lines(value, f"{dotted}.", comments, typed)):
                yield from (f"{indent}{key}:{comment}", *inner)
        else:
            yield f"{indent}{key}: {_flow(value)}{comment}"


def _flow(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def _comments(words: Sequence[str], user_dir: str | None) -> dict[str, str]:
    """What the files of conf/ say at the end of a setting's line, by its dotted key."""
    found = {name: said for name in NAMES if (said := meaning(name))}
    for path, prefix in config_files(words, user_dir):
        found |= {prefix + key: comment for key, comment in _comments_in(path)}
    for called in sets_typed(words, user_dir):
        own = _comments(words_of(called, words, user_dir), user_dir)
        found |= {f"data.{called}.{key[5:]}": comment for key, comment in own.items() if key.startswith("data.")}
    return found


def _comments_in(path: Path) -> Iterator[tuple[str, str]]:
    above: list[tuple[int, str]] = []  # indentation and key of what stands around a line
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := LINE.match(line):
            indent, key = len(match[1]), match[2]
            above = [*(each for each in above if each[0] < indent), (indent, key)]
            if match[4]:
                yield ".".join(name for _, name in above), match[4]
