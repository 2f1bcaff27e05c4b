"""Weights from a file: safetensors, or what torch.save made of a state dict. Nothing in a file is run."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsl_cli.errors import UserError

State = Mapping[str, Tensor]
NESTED = ("state_dict", "model_state_dict", "model", "teacher", "net")  # where checkpoints keep their weights
RUNNING = ("mean", "var")  # a norm's running averages, which only mode `running` has
SHOWN = 5  # layers in a message


def put_weights(net: nn.Module, path: Path, classifier: Sequence[str] = ()) -> None:
    """Put the weights of a file into a network, of whatever object around it they were saved.

    Layers of the file outside of the network, and those called `classifier`, are left alone. Raises UserError that
    names the layers which are missing or of another shape.
    """
    fit(net, part_for(read_weights(path), net), f"backbone.weights={path}: does not fit this network", classifier)


def fit(net: nn.Module, theirs: State, wrong: str, classifier: Sequence[str] = (), only: bool = False) -> None:
    """Put these weights into a network; `only`: they are of such a network and of nothing else.

    Raises UserError, which begins with `wrong`, as `put_weights` does.
    """
    own = net.state_dict()
    if problems := misfits(own, theirs, classifier, only):
        raise UserError(
            f"{wrong}: {listed(problems)}. Choose the backbone, with its settings, norm and image size, that they were "
            "saved from."
        )
    net.load_state_dict({name: theirs.get(name, value) for name, value in own.items()})


def listed(problems: Sequence[str]) -> str:
    """The first of what `misfits` found, for a message; "" where it found nothing."""
    more = f", and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def misfits(own: State, theirs: State, classifier: Sequence[str] = (), only: bool = False) -> list[str]:
    """Which of a network's own layers these weights lack or shape otherwise, and which have no place there.

    Unless `only`, what lies outside of its modules is somebody else's: a classifier, a projection. Nor are a norm's
    running averages missed by a network without them.
    """
    rooms = {name.partition(".")[0] for name in own}
    outside = tuple(f"{name}." for name in classifier if name)

    def unknown(name: str) -> bool:
        last = name.rpartition(".")[2]
        known = name in own or (not only and (name.partition(".")[0] not in rooms or name.startswith(outside)))
        return not known and last not in RUNNING and last != "num_batches_tracked"

    return [
        *(f"{name} is missing" for name in own if name not in theirs and not name.endswith("num_batches_tracked")),
        *(f"{name} has no place" for name in theirs if unknown(name)),
        *(
            f"{name} is {tuple(theirs[name].shape)}, here {tuple(value.shape)}"
            for name, value in own.items()
            if name in theirs and theirs[name].shape != value.shape
        ),
    ]


def part_for(state: State, net: nn.Module) -> dict[str, Tensor]:
    """The part of a state dict that belongs to this network: module.encoder.conv1.weight -> conv1.weight."""
    own = net.state_dict()
    first = next(iter(own), "")
    places = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    prefix = max(places, key=lambda place: sum(place + name in state for name in own), default="")
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. Raises UserError when it is missing, damaged, or holds more than data."""
    if not path.is_file():
        raise UserError(f"backbone.weights={path}: there is no such file.")
    content = _safetensors(path) if path.suffix == ".safetensors" else read_torch(path, "Copy it again")
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)} if _named(content) else {}
    if not found:
        inside = f"a {type(content).__name__}" if not isinstance(content, dict) else ", ".join(map(str, content))[:80]
        raise UserError(
            f"backbone.weights={path}: holds no weights, but {inside or 'nothing'}. "
            "Save them with torch.save(net.state_dict(), FILE)."
        )
    return found


def read_torch(path: Path, advice: str) -> Any:
    """What torch.save wrote. Raises UserError, which ends in `advice` where the file is damaged."""
    try:
        demand_stored(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: it is damaged, or holds more than data and could run code.") from error
    except Exception as error:  # damaged files make torch raise nearly anything: KeyError, IndexError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged: {reason}. {advice}.") from error


def demand_stored(path: Path) -> None:
    """Raises ValueError for a zip whose parts are larger than itself. torch.save and np.savez write no such zips."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
                raise ValueError("its parts are larger than the file")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"backbone.weights={path}: needs safetensors. Type pip install safetensors.") from error
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}. Copy it again.") from error


def _named(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(name, str) for name in content)
