"""Reading those words after a verb that Hydra does not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.typed import is_text


def settings(verb: str, words: Sequence[str], defaults: dict[str, str]) -> dict[str, str]:
    """The verb's settings, typed as key=value, on top of `defaults`. Raises UserError for others."""
    typed = dict(split_word(word, f"{next(iter(defaults))}=…") for word in words)
    unknown = [key for key in typed if key not in defaults]
    if unknown:
        near = did_you_mean(unknown[0], list(defaults))
        raise UserError(f"'{unknown[0]}' is not a setting of fsl {verb}.{near} It takes {', '.join(defaults)}.")
    return {**defaults, **typed}


def split_word(word: str, example: str = "way=20") -> tuple[str, str]:
    """key=value -> (key, value). Raises UserError for a word of another form."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UserError(f"'{word}' is not of the form key=value, such as {example}.")
    return key, value


def demand_no_choice(run: str, chosen: Sequence[str]) -> None:
    """Raises UserError where parts are chosen for a run, which has its own."""
    if run and chosen:
        raise UserError(f"run={run} has a head and a backbone of its own: leave out {' '.join(chosen)}.")


def chosen_words(words: Sequence[str], groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those words that choose something of these groups, such as backbone=timm and backbone.name=…, and the others."""
    chosen = [word for word in words if word.partition("=")[0].partition(".")[0] in groups and "=" in word]
    return chosen, [word for word in words if word not in chosen]


def yes_or_no(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f"{key}={text} is neither true nor false. Type {key}=true.")
    return text == "true"


def one_of(key: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise UserError(
            f"{key}={text}: type {(' or ').join(f'{key}={each}' for each in choices)}.{did_you_mean(text, choices)}"
        )
    return text


def typed_value(key: str, text: str) -> Any:
    """A typed value, read as `fsl train` does: 1e-3 is a number."""
    if is_text(key):
        return None if text == "null" else text
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore[call-overload,index]
    except YAMLError as error:
        raise UserError(f"{key}={text} cannot be read as a value. Put it into quotes: \"{key}='{text}'\".") from error
