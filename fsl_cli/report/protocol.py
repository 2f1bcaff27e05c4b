"""What tells whether two tests may be compared, pair by pair, or stand in one column."""

from __future__ import annotations

from typing import Any

from fsl_cli.errors import UserError, command, setting, typed
from fsl_cli.report.outcome import Outcome
from fsl_cli.runs.jobs import IRRELEVANT, flat
from fsl_cli.runs.records import Result
from fsl_cli.settings.typed import plain_key

# what decides which images an episode consists of, and what is measured
EPISODES = (
    "data", "images", "split", "split_hash", "rotations", "part", "way", "shot", "query", "query_balance",
    "episode_seed", "sampling", "metric",
)  # fmt: skip
# and what else two numbers of one column have in common, as the field means it: whose statistics normalise is the
# method's own affair as long as no query sees another, and how many episodes were met is in the interval
COLUMN = (
    *EPISODES, "unlabelled", "distractors", "inference", "class_rows", "trained_on", "pretrained", "channels", "size",
)  # fmt: skip
# fsl test can change these of a finished run
OF_A_TEST = ("way", "shot", "query", "query_balance", "data", "rotations", "sampling")

Protocol = tuple[tuple[str, Any], ...]


def protocol(result: Result) -> Protocol:
    """What two results of one column have in common; tuples, so that it can be a key."""
    own = {"channels": result.image.channels, "size": result.image.size}
    found = {key: own[key] if key in own else getattr(result, key) for key in COLUMN}
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in found.items())


def demand_same_episodes(a: Outcome, b: Outcome) -> None:
    """Raises UserError where the two did not meet the same episodes; it names the setting to change."""
    differing = [key for key in EPISODES if getattr(a.result, key) != getattr(b.result, key)]
    if not differing:
        return
    facts = "; ".join(
        f"{key} is {typed(getattr(a.result, key))} and {typed(getattr(b.result, key))}" for key in differing
    )
    raise UserError(f"The two tests did not meet the same episodes: {facts}. {_advice(a, b, differing)}")


def _advice(a: Outcome, b: Outcome, differing: list[str]) -> str:
    if differing == ["episode_seed"]:
        return "Test both with one version of fsl: fsl test run=FOLDER."
    if "metric" in differing:
        return "One classifies and the other regresses: choose two runs with the same data=NAME."
    hashes = ("images", "split_hash", *(["split"] if "data" in differing else []))  # follow from the rest
    named = [key for key in differing if key not in hashes]
    if named and set(named) <= set(OF_A_TEST):
        again = command("fsl", "test", f"run={b.run}", *(_word(key, getattr(a.result, key)) for key in named))
        return f"Type {again}, and compare with what that writes."
    settings = _differing_data_settings(a, b) or [_word(key, getattr(a.result, key)) for key in named]
    if settings:
        return f"To compare, train B as A was: fsl train … {command(*settings)}."
    return "The images are other copies, or were changed in between: fsl data verify NAME, and test both again."


def _word(key: str, value: Any) -> str:
    """The setting that leads to this entry of a result."""
    if key == "sampling":
        return f"data.within_alphabet={str(value == 'within_alphabet').lower()}"
    if key == "split" and str(value).startswith("seeded-"):
        return f"data.split_seed={str(value).removeprefix('seeded-')}"
    return setting(f"{'data.' if key in ('split', 'rotations') else ''}{key}", value)


def _differing_data_settings(a: Outcome, b: Outcome) -> list[str]:
    """A's settings of the data set where B was given others; empty where the runs do not tell."""
    try:
        own, other = (flat({"data": each.run.settings.data.plain()}) for each in (a, b))
    except (UserError, KeyError):
        return []
    return [
        setting(key, value)
        for key, value in own.items()
        if key in other and value != other[key] and plain_key(key) not in IRRELEVANT
    ]
