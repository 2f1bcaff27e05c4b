"""Does a configuration fit the Python it names? Found out by binding signatures, before anything is built."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from fsl_cli.backbones.weights import put_weights
from fsl_cli.errors import UserError
from fsl_cli.ranges import Natural, PartOf, Range, Rate, Share, Weight
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.parts import OfData, Part, asked, sets_of, without_first_weights
from fsl_cli.settings.schema import PARTS, Settings, is_part, root_problems, shape_problems, typed
from fsl_cli.settings.values import problem

ROOMS = {  # where each part lives: what a run's configuration may name without the user's word
    "algo": ("fsl_cli.algorithms",),
    "backbone": ("fsl_cli.backbones",),
    "optim": ("torch.optim",),
    "schedule": ("fsl_cli.experiment.schedule", "torch.optim"),
    "data": ("fsl_cli.data.sources", "fsl_cli.data.several"),
    "augment": ("fsl_cli.data.augment",),
    "pseudo": ("fsl_cli.data.pseudo", "fsl_cli.data.clusters"),
    "attack": ("fsl_cli.algorithms.attack",),
    "trainer": ("fsl_cli.experiment.trainer",),
    "logger": ("pytorch_lightning.loggers", "fsl_cli.experiment.tracking"),
}
LATER = {  # what is known only when the data set is there
    "algo": {"backbone", "train_classes", "teacher", "regression", "row_width"},
    "backbone": {"channels", "size"},
    "optim": {"params"},
    "schedule": {"optimizer"},
    "data": set(),
    "augment": set(),
    "pseudo": set(),
    "attack": set(),
    "trainer": {"more"},
    "logger": {"save_dir", "id", "run_id", "experiment_key"},
}
UNSET = "???"  # what a YAML says of a setting that has to be typed
PACKAGES = {  # what loggers need besides Lightning, in the extra [track]
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
    "Comet": "comet_ml",
}
# settings of every one, which `build` sees to where it does not itself
SHARED: dict[str, dict[str, Any]] = {"backbone": {"frozen": bool, "weights": str | None, "finetune": Natural}}
FOREIGN: dict[str, Any] = {  # ranges of numbers whose annotations are a library's
    "lr": Rate, "eps": Rate, "weight_decay": Weight, "momentum": PartOf, "dampening": Share, "alpha": Share,
    "beta2_decay": float, "rho": Share, "lr_decay": Weight, "lambd": Weight,
    "betas": Annotated[list[float], Range(least=0, below=1)],
}  # fmt: skip

Made = TypeVar("Made")


def problems(config: Mapping[str, Any], trust: list[str] | None = None) -> list[str]:
    """Everything that is wrong with a resolved configuration, one line each; empty when it fits.

    `trust` limits the packages that `_target_` may name to ours and these; None takes the configuration's own
    word, as for one that the user has just typed.
    """
    trusted = _names(config.get("trust")) if trust is None else trust
    root = [*root_problems(config), *_shot_problems(config, trusted)]
    parts = (line for part in PARTS for line in part_problems(part, config.get(part), trusted))
    return [
        *root,
        *shape_problems(config),
        *(line for line in parts if line.partition(".")[2] not in root),  # one that a part has from the root
        *_logger_problems(config.get("logger"), trusted),
        *_machine_problems(config),
    ]


def demand_fit(config: Mapping[str, Any], trust: list[str] | None = None) -> Settings:
    """The settings that a configuration holds. Raises UserError with all that `problems` finds."""
    if found := problems(config, trust):
        raise UserError("\n".join(found))
    return typed(config)


def demand_parts(settings: Settings, parts: Iterable[str], trust: list[str]) -> None:
    """Raises UserError with all that is wrong in these parts of a run's settings; `trust` as in `problems`."""
    plain = settings.plain()
    found = [line for name in parts for line in part_problems(name, plain[name], trust)]
    if found:
        raise UserError("\n".join(found))


def demand_packages(config: Settings) -> None:
    """Raises UserError with what to install for the trackers that these settings name."""
    needed = {name: PACKAGES.get(part.target.rpartition(".")[2]) for name, part in config.logger.items()}
    missing = {name: package for name, package in needed.items() if package and not importlib.util.find_spec(package)}
    if missing:
        lines = [f"logger={name}: {package} is not installed." for name, package in missing.items()]
        raise UserError("\n".join([*lines[:-1], f'{lines[-1]} Type pip install "fsl-cli[track]".']))


def demand_root(data: Part) -> None:
    """Raises UserError where data.root names what is not there, though the cache may have what is asked for."""
    for called, own in (sets_of(data) or {"": data}).items():
        root = asked(own, OfData).root
        if root and not Path(root).expanduser().exists():
            raise UserError(f"data.{called}{called and '.'}root={root}: there is no such file or folder.")


def demand_one(data: Part) -> None:
    """Raises UserError where there are several data sets, for what is of one."""
    if sets := sets_of(data):
        raise UserError(f"This is of one data set, and here are {', '.join(sets)}. Type data={next(iter(sets))}.")


def located(part: Part) -> Callable[..., Any]:
    """What a part names, for which `problems` has vouched."""
    module, _, attribute = part.target.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def class_of(part: Part, base: type[Made]) -> type[Made]:
    """The class of what a part makes, for what it declares; `base` where the Python that makes it does not say.

    `problems` has vouched for the name.
    """
    found = located(part)
    if not inspect.isclass(found):
        found = hints(found).get("return", base)
    return found if inspect.isclass(found) and issubclass(found, base) else base


def build(part: Part, **later: Any) -> Any:
    """Call what a part names with its values, and what it takes of `later`.

    `problems` has vouched for the name. What has no settings `frozen`, `weights` and `finetune` of its own, but is told
    them, is built, given the weights of that file, frozen, and told how it is fine-tuned. Raises UserError where the
    values do not go together, or are too large for this machine.
    """
    target = located(part)
    values = {**part.values, **{name: build(own) for name, own in sets_of(part).items()}}
    taken = inspect.signature(target).parameters
    frozen, weights, finetune = (
        values.pop(key) if key in values and key not in taken else None for key in ("frozen", "weights", "finetune")
    )
    try:
        built = target(**values, **{key: value for key, value in later.items() if key in taken})
        if weights:
            put_weights(built, Path(weights).expanduser())
            built.origin = Path(weights).name
        if finetune:
            built.finetune = finetune
        return built.freeze() if frozen else built
    except (ValueError, re.error) as error:
        raise UserError(f"{target.__name__} cannot be built with {values}: {str(error).rstrip('.')}.") from error
    except (MemoryError, OverflowError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("memory|overflow|too large", str(error), re.IGNORECASE):
            raise
        raise UserError(
            f"{target.__name__} cannot be built with {values}: that is too large for this machine."
        ) from error


def without_weights(settings: Settings) -> Settings:
    """The settings of a finished run, without the file of its first weights: its checkpoint has all weights."""
    return settings.having(backbone=without_first_weights(settings.backbone))


def _shot_problems(config: Mapping[str, Any], trust: list[str]) -> Iterator[str]:
    """Support sets without images, of a method that needs some."""
    node, none = config.get("algo"), {}
    for name in ("shot", "train_shot"):
        value = config.get(name)
        if value == 0 and not isinstance(value, bool) or isinstance(value, list) and 0 in value:
            none[name] = value
    if none and node and is_part(node):
        try:
            if getattr(_locate(node["_target_"], ROOMS["algo"], trust), "zero_shot", False):
                return
        except UserError:  # which is told elsewhere
            return
    yield from (f"{name}={value}: must be at least 1." for name, value in none.items())


def _names(trust: Any) -> list[str]:
    """The packages that a configuration's own `trust` names; whether it is a list at all is said elsewhere."""
    return [name for name in trust if isinstance(name, str)] if isinstance(trust, list) else []


def _logger_problems(nodes: Any, trust: list[str]) -> Iterator[str]:
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        yield from part_problems("logger", node, trust, f"logger.{name}")


def part_problems(part: str, node: Any, trust: list[str], called: str | None = None) -> Iterator[str]:
    """What `problems` finds in one part, such as backbone; `called`: what the user calls it."""
    called = called or part
    if not is_part(node):
        return  # which `shape_problems` tells
    try:
        target = _locate(node["_target_"], ROOMS[part], trust)
    except UserError as error:
        yield f"{called}: {error}"
        return
    signature = inspect.signature(target)
    given = {key: value for key, value in node.items() if not key.startswith("_") and value != UNSET}
    shared = SHARED.get(part, {})
    known = [*(name for name in signature.parameters if name not in LATER[part]), *shared]
    open_ended = part != "trainer" and any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    kinds = shared | hints(target)
    for key, value in given.items():
        if open_ended and is_part(value):  # one of several data sets
            yield from part_problems(part, value, trust, f"{called}.{key}")
        elif key not in known and not open_ended:
            yield f"{called}.{key}: {target.__name__} has no such setting.{did_you_mean(key, known)} It has {known}."
        elif wrong := problem(value, kinds.get(key, Any)):
            if (part, key) == ("algo", "way") and isinstance(value, list) and value:  # which is the root's train_way
                wrong = (
                    f"{target.__name__} learns tasks of one number of classes. Type one for way and train_way, such as "
                    f"way={value[0]}."
                )
            yield f"{called}.{key}={value}: {wrong}"
    for name, parameter in signature.parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        if needed and name in known and name not in given:
            plus = "" if name in node else "+"
            yield f"{called}.{name}: {target.__name__} needs it. Type {plus}{called}.{name}=VALUE."


def _machine_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Does the machine have what the trainer asks for, and can the meta-batch be divided among its processes?"""
    import torch

    trainer, meta_batch = config.get("trainer"), config.get("meta_batch")
    if not isinstance(trainer, dict):
        return
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if trainer.get("accelerator") in ("gpu", "cuda", "mps") and not gpus:
        yield "trainer=gpu: this machine has no GPU that torch can use. Type trainer=cpu."
    on_cpu = trainer.get("accelerator") == "cpu" or not gpus
    if on_cpu and trainer.get("precision") in ("16-mixed", "16-true"):  # Lightning would take another without asking
        other = trainer["precision"].replace("16", "bf16")
        yield f"trainer.precision={trainer['precision']}: needs a GPU. Type trainer.precision={other}, or 32-true."
    counts = [trainer.get("devices", 1), trainer.get("num_nodes", 1), meta_batch]
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in counts):
        return  # which is said elsewhere
    devices, nodes, episodes = counts
    there = max(2, os.cpu_count() or 1) if on_cpu else gpus
    if devices > there:
        yield f"trainer.devices={devices}: this machine has {there}. Type trainer.devices={there}."
        return
    if episodes % (devices * nodes):
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


def hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a signature, ranges and all; a library's numbers have those of `FOREIGN`."""
    try:
        found = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError):  # a library's annotations that only its type checker can read
        found = {}
    if f"{target.__module__}.".startswith("fsl_cli."):
        return found
    names = inspect.signature(target).parameters
    return found | {name: kind for name, kind in FOREIGN.items() if name in names}
