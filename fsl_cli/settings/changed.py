"""A finished run's configuration with other values, for a test."""

from __future__ import annotations

import copy
from typing import Any

from fsl_cli.errors import UserError, command
from fsl_cli.settings import other_tools
from fsl_cli.settings.compose import compose
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.words import typed_value

# the settings at the root that a test depends on
OF_A_TEST = (
    "way", "shot", "query", "query_balance", "unlabelled", "distractors", "episodes", "classes", "norm", "calibrate",
)  # fmt: skip
GROUPS = {"data", "trainer", "attack"}  # of which another can be chosen
IDLE = ("backbone.weights", "backbone.frozen")  # of a network that is trained, or before it is
PARTS_OF_A_TEST = {*GROUPS, "algo", "backbone", "augment"}  # augment: of a backbone that is fine-tuned


def changed(saved: dict[str, Any], given: dict[str, str], user_dir: str | None = None) -> dict[str, Any]:
    """The run's configuration with other values; `data=NAME` puts that data set's settings in place of the run's."""
    values = copy.deepcopy(saved)
    if given.get("attack") == "null":
        values["attack"] = None
    for group in (key for key in GROUPS if given.get(key, "null") != "null"):
        if group == "data" and _is_set(saved["data"].get(given["data"])):  # one of the run's own, as that has it
            values["data"], values["choices"]["data"] = copy.deepcopy(saved["data"][given["data"]]), given["data"]
            continue
        found = compose([f"{group}={given[group]}"], user_dir)
        values[group], values["choices"][group] = found.values[group], found.choices[group]
        nodes = [values[group], *filter(_is_set, values[group].values())] if group == "data" else []
        for each in (own for own in nodes if "size" in own):  # that which the run's backbone was built for
            each["size"] = saved["image"]["size"]
    for key, text in given.items():
        if key in GROUPS:
            continue
        part = key.partition(".")[0]
        if key in IDLE or part in values.keys() - {*OF_A_TEST, *PARTS_OF_A_TEST, "choices"}:
            raise UserError(
                f"{key}={text} has no effect on a test. A test takes {', '.join(OF_A_TEST)}, data, attack and algo."
            )
        node: Any = values
        path = key.split(".")
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or path[-1] not in node or path[0] == "choices":
            raise UserError(f"'{key}' is not a setting of this run.{_meant(key, values)}")
        if isinstance(node[path[-1]], dict):
            raise UserError(
                f"{key}={text}: a run keeps its {key}. Train another: {command('fsl', 'train', f'{key}={text}')}"
            )
        node[path[-1]] = typed_value(key, text)
    backbone = values.get("backbone")
    idle = [key for key in given if key.startswith("augment.")]
    if idle and not (isinstance(backbone, dict) and backbone.get("finetune")):
        raise UserError(
            f"{idle[0]}={given[idle[0]]} has no effect on a test in which nothing is fine-tuned. Leave it out, or type "
            "backbone.finetune=50 too."
        )
    if isinstance(backbone, dict) and "norm" in backbone:  # what result.json says is what was used
        if "norm" in given:
            backbone["norm"] = values["norm"]
        _demand_norm(saved["backbone"]["norm"], backbone["norm"])
        values["norm"] = backbone["norm"]
    return values


def _is_set(node: Any) -> bool:
    """Whether a value of a data set is one of several data sets."""
    return isinstance(node, dict) and "_target_" in node


def _demand_norm(trained: str, asked: str) -> None:
    """Raises UserError where the weights of a training with one norm mean nothing under the other."""
    of_images = ("support", "transductive")  # statistics of the images at hand need no averages of the training
    allowed = [trained, *(mode for mode in of_images if mode != trained and trained in ("running", *of_images))]
    if asked not in allowed:
        raise UserError(
            f"norm={asked}: this run was trained with norm={trained}, whose tests take norm={' or '.join(allowed)}. "
            f"Train another: {command('fsl', 'train', f'norm={asked}')}"
        )


def _meant(key: str, values: dict[str, Any]) -> str:
    """What was probably meant, of what a test of this run takes."""
    parts = {part: node for part, node in values.items() if isinstance(node, dict) and part not in ("choices", "image")}
    sets = [name for name, node in values["data"].items() if _is_set(node)]
    if sets and key.startswith("data.") and key.count(".") == 1:
        return f" Of one of its data sets it is data.{sets[0]}.{key.partition('.')[2]}."
    if key.startswith("attack.") and not values.get("attack"):
        return " Choose the attack first: attack=pgd."
    known = [*OF_A_TEST, *sorted(GROUPS), *_leaves(parts)]
    setting = other_tools.setting(key)
    return f" Here it is {setting}." if setting in known else did_you_mean(key, known)


def _leaves(node: dict[str, Any], prefix: str = "") -> list[str]:
    here = [prefix + key for key in node]
    return here + [
        leaf for key, sub in node.items() if isinstance(sub, dict) for leaf in _leaves(sub, f"{prefix}{key}.")
    ]
