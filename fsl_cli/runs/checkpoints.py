"""Reading checkpoints: a whole learner's weights, or a backbone's for another algorithm to begin with."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.errors import UserError

RUNNING = ("mean", "var")  # a norm's running averages, which only mode `running` has


def load_weights(path: Path, learner: nn.Module) -> int:
    """Put a checkpoint's weights into `learner` and return its step.

    Raises UserError when it cannot be read, or is of another algorithm or network.
    """
    checkpoint = read_checkpoint(path)
    try:
        learner.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not fit this algorithm and backbone: {reason[:300]}") from error
    return int(checkpoint["global_step"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Raises UserError when it is missing, damaged, or holds more than data."""
    if not path.exists():
        raise UserError(
            f"{path} is missing: either the run was not validated yet, and can be resumed, or the file was lost."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: it is damaged, or holds more than data and could run code.") from error
    except Exception as error:  # damaged files make torch raise nearly anything: KeyError, IndexError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged: {reason}. Copy it again, or train again.") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "global_step"} <= checkpoint.keys():
        raise UserError(f"{path} is not a checkpoint of fsl. Copy it again, or train again.")
    return checkpoint


def load_backbone(path: Path, learner: nn.Module) -> None:
    """Put the backbone of a checkpoint, of whatever algorithm, into `learner`.

    A backbone without running averages leaves the checkpoint's alone. Raises UserError that names the layers which
    are missing or of another shape.
    """
    theirs = _backbone_weights(read_checkpoint(path)["state_dict"])
    [backbone] = [module for module in learner.modules() if isinstance(module, Backbone)][:1]
    own = backbone.state_dict()
    extra = [name for name in theirs if name not in own and name.rpartition(".")[2] not in RUNNING]
    problems = [
        *(f"{name} is missing" for name in own if name not in theirs),
        *(f"{name} has no place" for name in extra),
        *(
            f"{name} is {tuple(theirs[name].shape)}, here {tuple(value.shape)}"
            for name, value in own.items()
            if name in theirs and theirs[name].shape != value.shape
        ),
    ]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(
            f"init: the backbone of {path} does not fit this one: {'; '.join(problems[:5])}{more}. "
            "Choose the backbone, norm and data set of that run."
        )
    backbone.load_state_dict({name: theirs[name] for name in own})


def _backbone_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """algorithm.backbone.convs.0.weight, or algorithm.net.backbone. ... -> convs.0.weight."""
    parts = (name.partition("backbone.") for name in state)
    return {rest: state[before + dot + rest] for before, dot, rest in parts if dot}
