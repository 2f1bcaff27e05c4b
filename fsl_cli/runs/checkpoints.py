"""Checkpoints: a whole learner's weights, or a backbone's for another algorithm to begin with."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.weights import fit, listed, misfits, read_torch
from fsl_cli.errors import UserError
from fsl_cli.files import make_folder, replacing


def load_weights(path: Path, learner: nn.Module) -> int:
    """Put a checkpoint's weights into `learner` and return its step.

    Raises UserError when it cannot be read, is of another algorithm or network, or has a weight that is no number.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    try:
        learner.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        reason = listed(misfits(learner.state_dict(), state, only=True)) or " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} does not fit this algorithm and backbone: {reason}. Leave out what makes another network of the "
            "run's, or copy the checkpoint again."
        ) from error
    for name, value in learner.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{path} is damaged: {name} is not finite (NaN). Copy it again, or train again.")
    return int(checkpoint["global_step"])


def write_weights(path: Path, learner: nn.Module) -> None:
    """A checkpoint of a learner that no training has changed."""
    make_folder(path.parent)
    write_torch(path, {"state_dict": learner.state_dict(), "global_step": 0})


def write_torch(path: Path, content: Any) -> None:
    """What torch.save makes of `content`, whole or not at all. Raises OSError where the disk is full."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        kept = _Writer(file)
        try:
            torch.save(content, kept)  # type: ignore[arg-type]
        except RuntimeError:  # which is all that torch says of a disk
            raise kept.error or RuntimeError from kept.error
        file.flush()
        os.fsync(file.fileno())  # else a machine that goes down may keep the name and lose the content


class _Writer(io.RawIOBase):
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Raises UserError when it is missing, damaged, or holds more than data."""
    if not path.exists():
        raise UserError(
            f"{path} is missing: either the run was not validated yet, and can be resumed, or the file was lost."
        )
    checkpoint = read_torch(path, "Copy it again, or train again")
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    tensors = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) and not value.is_complex() for name, value in state.items()
    )
    if not tensors or type(checkpoint.get("global_step")) is not int:
        raise UserError(f"{path} is not a checkpoint of fsl. Copy it again, or train again.")
    return checkpoint


def load_backbone(path: Path, learner: nn.Module) -> None:
    """Put the backbone of a checkpoint, of whatever algorithm, into `learner`.

    A backbone without running averages leaves the checkpoint's alone. Raises UserError that names the layers which
    are missing or of another shape.
    """
    theirs = _backbone_weights(read_checkpoint(path)["state_dict"])
    [backbone] = [module for module in learner.modules() if isinstance(module, Backbone)][:1]
    fit(backbone, theirs, f"init: the backbone of {path} does not fit this one", only=True)


def _backbone_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """algorithm.backbone.convs.0.weight, or algorithm.net.backbone. ... -> convs.0.weight."""
    parts = (name.partition("backbone.") for name in state)
    return {rest: state[before + dot + rest] for before, dot, rest in parts if dot}
