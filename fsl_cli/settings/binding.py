"""Does a configuration fit the Python it names? Found out by binding signatures, before anything is built."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from fsl_cli.backbones.norm import Mode
from fsl_cli.errors import UserError
from fsl_cli.settings.compose import did_you_mean

ROOMS = {  # where each part lives: what a run's configuration may name without the user's word
    "algo": ("fsl_cli.algorithms",),
    "backbone": ("fsl_cli.backbones",),
    "optim": ("torch.optim",),
    "schedule": ("fsl_cli.experiment.schedule", "torch.optim"),
    "data": ("fsl_cli.data.sources",),
    "augment": ("fsl_cli.data.augment",),
    "logger": ("pytorch_lightning.loggers", "fsl_cli.experiment.tracking"),
}
LATER = {  # what is known only when the data set is there
    "algo": {"backbone", "train_classes", "teacher"},
    "backbone": {"channels", "size"},
    "optim": {"params"},
    "schedule": {"optimizer"},
    "data": set(),
    "augment": set(),
    "logger": {"save_dir", "id", "run_id", "experiment_key"},
}
PARTS = ("algo", "backbone", "optim", "schedule", "data", "augment")  # of which there is one each
PACKAGES = {  # what loggers need besides Lightning, in the extra [track]
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
    "Comet": "comet_ml",
}
SHARED: dict[str, dict[str, Any]] = {"backbone": {"frozen": bool}}  # settings of every one, which `build` sees to


class Settings(NamedTuple):
    """The settings at the root of a configuration."""

    way: int | list[int]
    shot: int | list[int]
    query: int | Literal["all"]
    train_way: int | list[int]
    train_shot: int | list[int]
    train_query: int | Literal["all"]
    seed: int
    steps: int
    meta_batch: int
    norm: Mode
    init: str | None
    teacher: str | None
    val_every: int
    val_episodes: int
    patience: int | None
    episodes: int
    test: bool
    out: str
    trust: list[str]


MINIMUM = {
    "episodes": 2,
    "val_episodes": 2,
    "seed": 0,
    "split_seed": 0,
    "inner_steps": 0,
    "steps": 0,
    "test_steps": 0,
    "unpadded": 0,
}  # others: 1


ADDED = {"trainer", "choices", "image", "train_classes"}  # what else a configuration holds


def problems(config: dict[str, Any], trust: list[str] | None = None) -> list[str]:
    """Everything that is wrong with a resolved configuration, one line each; empty when it fits.

    `trust` limits the packages that `_target_` may name to ours and these; None takes the configuration's own
    word, as for one that the user has just typed.
    """
    trusted = list(config.get("trust") or []) if trust is None else trust
    return [
        *_root_problems(config),
        *(line for part in PARTS for line in part_problems(part, config.get(part), trusted)),
        *_logger_problems(_loggers(config), trusted),
        *_trainer_problems(config),
    ]


def demand_fit(config: dict[str, Any], trust: list[str] | None = None) -> None:
    """Raises UserError with all that `problems` finds."""
    found = problems(config, trust)
    if found:
        raise UserError("\n".join(found))


def demand_parts_fit(config: dict[str, Any], parts: Iterable[str], trust: list[str]) -> None:
    """Raises UserError with all that is wrong at the root and in these parts; the others may be another machine's."""
    found = [
        *_root_problems(config),
        *(line for part in parts for line in part_problems(part, config.get(part), trust)),
    ]
    if found:
        raise UserError("\n".join(found))


def demand_packages(config: dict[str, Any]) -> None:
    """Raises UserError with what to install for the trackers that a configuration which fits names."""
    needed = {name: PACKAGES.get(node["_target_"].rpartition(".")[2]) for name, node in _loggers(config).items()}
    missing = {name: package for name, package in needed.items() if package and not importlib.util.find_spec(package)}
    if missing:
        lines = [f"logger={name}: {package} is not installed." for name, package in missing.items()]
        raise UserError("\n".join([*lines[:-1], f'{lines[-1]} Type pip install "fsl-cli[track]".']))


def demand_root(values: dict[str, Any]) -> None:
    """Raises UserError where data.root names what is not there, though the cache may have what is asked for."""
    root = values["data"].get("root")
    if root and not Path(root).expanduser().exists():
        raise UserError(f"data.root={root}: there is no such file or folder.")


def _loggers(config: dict[str, Any]) -> Any:
    return config.get("logger") or {}  # which runs of before had none of


def build(node: dict[str, Any], **later: Any) -> Any:
    """Call what `_target_` names with the node's other values, and what it takes of `later`.

    `problems` has vouched for the name. What has no setting `frozen` of its own, but is told `frozen: true`, is built
    and frozen.
    """
    module, _, attribute = node["_target_"].rpartition(".")
    values = {key: value for key, value in node.items() if key != "_target_"}
    target = getattr(importlib.import_module(module), attribute)
    taken = inspect.signature(target).parameters
    frozen = "frozen" in values and "frozen" not in taken and values.pop("frozen")
    try:
        built = target(**values, **{key: value for key, value in later.items() if key in taken})
        return built.freeze() if frozen else built
    except (ValueError, re.error) as error:
        raise UserError(f"{attribute} cannot be built with {values}: {error}.") from error


def _root_problems(config: dict[str, Any]) -> Iterator[str]:
    for name in config.keys() - get_type_hints(Settings).keys() - LATER.keys() - ADDED:
        yield f"{name}: nothing reads it. See fsl show for the settings there are."
    inner = (config.get("backbone") or {}).get("norm", config.get("norm"))
    if inner != config.get("norm"):
        yield f"backbone.norm={inner}: differs from norm={config.get('norm')}, which results report. Type norm={inner}."
    for name, kind in get_type_hints(Settings).items():
        value = config.get(name)
        if not _fits(value, kind):
            yield f"{name}={value}: must be {_spell(kind)}, not {type(value).__name__} {value!r}."
        elif isinstance(value, int) and not isinstance(value, bool) and value < MINIMUM.get(name, 1):
            yield f"{name}={value}: must be at least {MINIMUM.get(name, 1)}."
        elif isinstance(value, list) and name != "trust" and not _is_range(value, MINIMUM.get(name, 1)):
            yield f"{name}={value}: must be two whole numbers from {MINIMUM.get(name, 1)} up, such as [2,10]."


def _is_range(value: list[Any], least: int) -> bool:
    return len(value) == 2 and all(_fits(each, int) for each in value) and least <= value[0] <= value[1]


def _logger_problems(nodes: Any, trust: list[str]) -> Iterator[str]:
    if not isinstance(nodes, dict):
        yield f"logger={nodes}: choose one of those that fsl ls logger shows, or several: logger=[tensorboard,mlflow]."
        return
    for name, node in nodes.items():
        yield from part_problems("logger", node, trust, f"logger.{name}")


def part_problems(part: str, node: Any, trust: list[str], called: str | None = None) -> Iterator[str]:
    """What `problems` finds in one part, such as backbone; `called`: what the user calls it."""
    if part == "augment" and node is None:
        return
    called = called or part
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        yield f"{called}: names no Python to build it with (_target_). Choose one of those that fsl ls {part} shows."
        return
    try:
        target = _locate(node["_target_"], ROOMS[part], trust)
    except UserError as error:
        yield f"{called}: {error}"
        return
    signature = inspect.signature(target)
    given = {key: value for key, value in node.items() if not key.startswith("_")}
    shared = SHARED.get(part, {})
    known = [*(name for name in signature.parameters if name not in LATER[part]), *shared]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    hints = shared | _hints(target)
    for key, value in given.items():
        if key not in known and not open_ended:
            yield f"{called}.{key}: {target.__name__} has no such setting.{did_you_mean(key, known)} It has {known}."
        elif not _fits(value, hints.get(key, Any)):
            yield f"{called}.{key}={value}: must be {_spell(hints[key])}, not {type(value).__name__} {value!r}."
        elif _counts(hints.get(key)) and min(_listed(value)) < MINIMUM.get(key, 1):
            yield f"{called}.{key}={value}: must be at least {MINIMUM.get(key, 1)}."
    for name, parameter in signature.parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if needed and name in known and name not in given:
            yield f"{called}.{name}: {target.__name__} needs it. Type +{called}.{name}=VALUE."


def _counts(kind: Any) -> bool:
    """Whether a setting counts something: a whole number, or one for each of several."""
    return kind is int or set(get_args(kind)) == {int, list[int]}


def _listed(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]


def _trainer_problems(config: dict[str, Any]) -> Iterator[str]:
    import torch

    trainer = config.get("trainer") or {}
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if trainer.get("accumulate_grad_batches", 1) != 1:
        yield "trainer.accumulate_grad_batches: a meta-iteration is one batch. Raise meta_batch instead."
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if trainer.get("accelerator") in ("gpu", "cuda", "mps") and not gpus:
        yield "trainer=gpu: this machine has no GPU that torch can use. Type trainer=cpu."
    for name, value in (("devices", devices), ("num_nodes", nodes)):
        if not _fits(value, int) or value < 1:
            yield f"trainer.{name}={value}: must be a whole number of at least 1."
            return
    meta_batch = config.get("meta_batch")
    if _fits(meta_batch, int) and meta_batch % (devices * nodes):
        yield (
            f"meta_batch={meta_batch}: its episodes cannot be divided evenly among {devices * nodes} processes. "
            f"Try meta_batch={devices * nodes}."
        )


def _locate(name: str, rooms: tuple[str, ...], trust: list[str]) -> Callable[..., Any]:
    """What `name` names: something of our own rooms, written there, or of a package that the user trusts."""

    def inside(path: str, packages: Iterable[str]) -> bool:
        return f"{path}.".startswith(tuple(f"{package}." for package in packages))

    if not inside(name, (*rooms, *trust)):
        raise UserError(f"{name} is not part of fsl. If you trust it, type trust=[{name.split('.')[0]}].")
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{name} cannot be imported: {error}.") from error
    if not callable(found) or not (inside(name, trust) or inside(found.__module__, rooms)):
        raise UserError(f"{name} is not a class or function of {' or '.join(rooms)}.")
    return found


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # a library's annotations that only its type checker can read
        return {}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value from YAML may stand for an annotated type; types that YAML cannot write always pass."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in _options(kind))
    if origin is Literal:
        return value in get_args(kind)
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float)
    if kind in (int, bool, str, type(None)):
        return isinstance(value, kind)
    return not (origin in (list, dict) and not isinstance(value, origin))


def _options(kind: Any) -> list[Any]:
    """Those members of a union that YAML can write, such as float of `float | Tensor`; all when there are none."""
    plain = [option for option in get_args(kind) if option in (int, float, bool, str, type(None)) or get_origin(option)]
    return plain or list(get_args(kind))


def _spell(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_spell(option) for option in _options(kind))
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return "a list"
    return names.get(kind, str(kind))
