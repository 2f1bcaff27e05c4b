"""Composing configurations: the only file that knows conf/ and its layout."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.errors import UserError


class Config(NamedTuple):
    """A composed configuration: plain values, and which file of each group they came from."""

    values: dict[str, Any]
    choices: dict[str, str]  # group -> name, such as algo -> maml
    overrides: list[str]  # what was typed


def conf_dir() -> Path:
    """The configuration files: inside the package where it was installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def groups(user_dir: str | None = None) -> list[str]:
    """The names of all groups, such as algo and data, of fsl and of the user's own folder."""
    return sorted({path.name for folder in _folders(user_dir) for path in folder.iterdir() if path.is_dir()})


def choices(group: str, user_dir: str | None = None) -> dict[str, str]:
    """Each file of a group, with the first comment line that says what it is."""
    files = [path for folder in _folders(user_dir) for path in sorted((folder / group).glob("*.yaml"))]
    return {path.stem: describe(path) for path in files}


def describe(path: Path) -> str:
    """A YAML's first comment that is not for Hydra."""
    for line in path.read_text().splitlines():
        if line.startswith("# ") and "@package" not in line:
            return line[2:].strip()
    return ""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """` Did you mean maml?`, or nothing when nothing is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""


def register_resolvers() -> None:
    """`${by:${way},{5: 32, 20: 16}}`: the entry of the largest key that is not above the value, else the first."""
    from omegaconf import OmegaConf

    def by(value: int, table: dict[int, Any]) -> Any:
        return table[max((key for key in table if key <= value), default=min(table))]

    OmegaConf.register_new_resolver("by", by, replace=True)


def compose(overrides: Sequence[str], user_dir: str | None = None, name: str = "train") -> Config:
    """The configuration that these overrides make of conf/{name}.yaml. Raises UserError with what to type instead."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    path = [f"hydra.searchpath=[file://{Path(user_dir).resolve()}]"] if user_dir else []
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra.compose(name, [*path, *overrides], return_hydra_config=True)
        return from_hydra(composed, composed.hydra.runtime.choices, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides, user_dir, name) from error


def from_hydra(composed: Any, chosen: Any, overrides: Sequence[str]) -> Config:
    """Plain values of what Hydra composed, every interpolation resolved."""
    from omegaconf import OmegaConf

    keys = [key for key in composed if key != "hydra"]
    values = OmegaConf.to_container(OmegaConf.masked_copy(composed, keys), resolve=True)
    assert isinstance(values, dict)
    names = {group: name for group, name in chosen.items() if name and not group.startswith("hydra/")}
    return Config({str(key): value for key, value in values.items()}, names, list(overrides))


def explain(error: Exception, overrides: Sequence[str], user_dir: str | None = None, name: str = "train") -> UserError:
    """What is wrong with these overrides, in our words; Hydra's own where we have none."""
    known = groups(user_dir)
    keys = list(_keys(conf_dir() / f"{name}.yaml", user_dir))
    problems = []
    for override in overrides:
        match = re.fullmatch(r"[+~]{0,2}([\w./@-]+)=?(.*)", override, re.DOTALL)
        if not match or ("=" not in override and not override.startswith("~")):
            problems.append(f"'{override}' is not of the form key=value, such as way=5.")
            continue
        key, value = match[1].lstrip("/"), match[2]
        if key in known:
            there = choices(key, user_dir)
            wrong = [v for v in value.split(",") if v.strip() not in there and v != "null" and not v.startswith("$")]
            problems += [
                f"{key}={v}: there is no {key} of that name.{did_you_mean(v, list(there))} There are {', '.join(there)}."
                for v in wrong
            ]
        elif key not in keys and not key.startswith("hydra") and not override.startswith("+"):
            problems.append(f"'{key}' is not a setting.{did_you_mean(key, [*keys, *known])} See fsl show.")
    if not problems:
        problems = [" ".join(str(error).split("\n    full_key")[0].split())]
    return UserError("\n".join(problems))


def _folders(user_dir: str | None) -> list[Path]:
    folders = [conf_dir(), *([Path(user_dir)] if user_dir else [])]
    if not folders[-1].is_dir():
        raise UserError(f"--config-dir {user_dir}: there is no such folder.")
    return folders


def _keys(main: Path, user_dir: str | None) -> Iterator[str]:
    """Every dotted key that some choice of groups offers."""
    from omegaconf import DictConfig, OmegaConf

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key in node:
            if key not in ("defaults", "hydra"):
                yield prefix + str(key)
                if isinstance(OmegaConf.to_container(node)[key], dict):  # type: ignore[call-overload,index]
                    yield from walk(node._get_node(key), f"{prefix}{key}.")

    for folder in _folders(user_dir):
        for path in [main, *sorted(folder.glob("*/*.yaml"))]:
            loaded = OmegaConf.load(path)
            if isinstance(loaded, DictConfig):
                in_package = path is not main and "@package _global_" not in path.read_text()
                yield from walk(loaded, f"{path.parent.name}." if in_package else "")
