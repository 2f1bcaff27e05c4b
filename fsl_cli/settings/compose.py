"""Composing configurations: from typed words to plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.errors import UserError
from fsl_cli.settings.explain import SEVERAL, demand_readable, explain
from fsl_cli.settings.hydra_conf import composed, hydra_at_conf, hydra_words
from fsl_cli.settings.own_file import take_files
from fsl_cli.settings.parts import Part
from fsl_cli.settings.registry import config_folders, dotted_keys
from fsl_cli.settings.schema import part
from fsl_cli.settings.several import as_of, first, for_the_first, joined, sets_typed, words_of


class Config(NamedTuple):
    """A composed configuration: plain values, and which file of each group they came from."""

    values: dict[str, Any]
    choices: dict[str, str]  # group -> name, such as algo -> maml
    overrides: list[str]  # what was typed
    user_dir: str | None = None  # the user's own files


def compose(overrides: Sequence[str], user_dir: str | None = None) -> Config:
    """The configuration that these overrides make of conf/train.yaml. Raises UserError with what to type instead."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    demand_readable(overrides, user_dir)
    try:
        found = composed(hydra_words(overrides, user_dir))
        return from_hydra(found, found.hydra.runtime.choices, overrides, user_dir)
    except (HydraException, OmegaConfBaseException) as error:
        said = explain(error, for_the_first(overrides, user_dir), user_dir)
        raise UserError(as_of(first(overrides, user_dir), str(said))) from error


def chosen_part(group: str, name: str, user_dir: str | None = None) -> Part:
    """What one choice of a group names, such as trainer=gpu, with its values. Raises UserError as `compose`."""
    return part(compose([f"{group}={name}"], user_dir).values[group])


def out_folder(overrides: Sequence[str], user_dir: str | None = None) -> str:
    """The folder that receives the runs of these overrides. Raises UserError as `compose`."""
    return str(compose(overrides, user_dir).values["out"])


def config_files(overrides: Sequence[str], user_dir: str | None = None) -> list[tuple[Path, str]]:
    """The files that these overrides bring together, in their order, and the prefix of the keys in each."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    with hydra_at_conf():
        loader = GlobalHydra.instance().config_loader()
        files = loader.compute_defaults_list("train", hydra_words(overrides, user_dir), RunMode.RUN).defaults
    found = []
    for file in files:
        prefix = f"{file.package}." if file.package and file.package != "_global_" else ""
        paths = (folder / f"{file.config_path}.yaml" for folder in config_folders(user_dir))
        found += [(path, prefix) for path in paths if path.exists()]
    return found + [(Path(place.partition("://")[2]), "") for place in take_files(overrides)[1]]


def provenance(overrides: Sequence[str], user_dir: str | None = None) -> dict[str, str]:
    """Where each dotted key of `compose` got its value: the file that set it last, or the command line."""
    from omegaconf import OmegaConf

    roots = config_folders(user_dir)
    sources: dict[str, str] = {}
    for path, prefix in config_files(overrides, user_dir):
        shown = next((str(path.relative_to(root.parent)) for root in roots if path.is_relative_to(root)), str(path))
        sources |= {prefix + key: shown for key in dotted_keys(OmegaConf.to_container(OmegaConf.load(path)))}
    typed = [re.sub(r"^[+~]+", "", word).partition("=")[0] for word in overrides]
    if sets := sets_typed(overrides, user_dir):
        sources["data._target_"] = "your command line"
    for called in sets:
        own = provenance(words_of(called, overrides, user_dir), user_dir)
        sources |= {f"data.{called}.{key[5:]}": source for key, source in own.items() if key.startswith("data.")}
    return sources | dict.fromkeys(typed, "your command line")


def from_hydra(composed: Any, chosen: Any, overrides: Sequence[str], user_dir: str | None = None) -> Config:
    """Plain values of what Hydra composed, every interpolation resolved."""
    from omegaconf import OmegaConf

    if isinstance(chosen.get("data"), list | tuple) or not isinstance(chosen.get("data", ""), str | None):
        raise UserError(SEVERAL)
    keys = [key for key in composed if key != "hydra"]
    values = OmegaConf.to_container(OmegaConf.masked_copy(composed, keys), resolve=True)
    assert isinstance(values, dict)
    names = {group: name for group, name in chosen.items() if name and not group.startswith("hydra/")}
    plain = {str(key): value for key, value in values.items()}
    found, together = joined(plain, overrides, user_dir, lambda words: compose(words, user_dir).values)
    names |= {"data": together} if together else {}
    return Config(found, names, list(overrides), user_dir)
