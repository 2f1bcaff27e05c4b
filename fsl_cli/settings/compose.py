"""Composing configurations: the only file that knows conf/ and its layout."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsl_cli.errors import UserError

# Our launchers have their plugins' names, which is what people type; Hydra means to drop that one day. Here, so that it
# holds before Hydra reads anything in a launcher's process.
warnings.filterwarnings("ignore", r"\s*'hydra/\w+/\w+' is validated against ConfigStore schema")


class Config(NamedTuple):
    """A composed configuration: plain values, and which file of each group they came from."""

    values: dict[str, Any]
    choices: dict[str, str]  # group -> name, such as algo -> maml
    overrides: list[str]  # what was typed
    user_dir: str | None = None  # the user's own files


def conf_dir() -> Path:
    """The configuration files: inside the package where it was installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def groups(user_dir: str | None = None) -> list[str]:
    """The names of all groups, such as algo and hydra/launcher, of fsl and of the user's own folder."""
    inside = {(path.parent, folder) for folder in _folders(user_dir) for path in folder.rglob("*.yaml")}
    return sorted({place.relative_to(folder).as_posix() for place, folder in inside if place != folder})


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
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]}?" if near else ""


def register_resolvers() -> None:
    """`${by:${way},{5: 32, 20: 16}}`: the entry of the largest key that is not above the value, else the first.

    `${absolute:${out}}`: the same place from wherever the run is resumed.
    """
    from omegaconf import OmegaConf

    def by(value: Any, table: dict[int, Any]) -> Any:
        if not isinstance(value, int):
            return next(iter(table.values()))  # what is wrong with the value is said elsewhere
        return table[max((key for key in table if key <= value), default=min(table))]

    OmegaConf.register_new_resolver("by", by, replace=True)
    OmegaConf.register_new_resolver("absolute", lambda path: str(Path(path).expanduser().resolve()), replace=True)


def take_user_dir(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split `--config-dir FOLDER`, Hydra's option for the user's own files, from the other words."""
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--config-dir=") else [word])]
    for option in ("--config-dir", "-cd"):
        if option in rest[:-1]:
            at = rest.index(option)
            return rest[at + 1], rest[:at] + rest[at + 2 :]
    return None, rest


def names(text: str) -> list[str]:
    """The names in `[a,b]`, as Hydra writes a list."""
    return [name.strip() for name in text.strip("[]").split(",") if name.strip()]


def demand_names(overrides: Sequence[str], user_dir: str | None = None) -> None:
    """Raises UserError where a group is told null, a number or a truth value; Hydra's error is a bare ValueError."""
    known = groups(user_dir)
    for override in overrides:
        key, _, value = override.partition("=")
        if key in known and any(re.fullmatch(r"null|true|false|[\d.]+", v, re.I) for v in names(value)):
            raise explain(ValueError(override), overrides, user_dir)


def compose(overrides: Sequence[str], user_dir: str | None = None) -> Config:
    """The configuration that these overrides make of conf/train.yaml. Raises UserError with what to type instead."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    demand_names(overrides, user_dir)
    try:
        with _hydra_at_conf():
            composed = hydra.compose("train", [*_search(user_dir), *overrides], return_hydra_config=True)
        return from_hydra(composed, composed.hydra.runtime.choices, overrides, user_dir)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides, user_dir) from error


def provenance(overrides: Sequence[str], user_dir: str | None = None) -> dict[str, str]:
    """For each dotted key of what `compose` returns, the file that set it last, or that it was typed."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    with _hydra_at_conf():
        loader = GlobalHydra.instance().config_loader()
        files = loader.compute_defaults_list("train", [*_search(user_dir), *overrides], RunMode.RUN).defaults
    sources: dict[str, str] = {}
    for file in files:
        for folder in _folders(user_dir):
            path = folder / f"{file.config_path}.yaml"
            if path.exists():
                prefix = f"{file.package}." if file.package and file.package != "_global_" else ""
                name = path.relative_to(folder.parent)
                sources |= {prefix + key: str(name) for key in _dotted(OmegaConf.load(path))}
    typed = [re.sub(r"^[+~]+", "", word).partition("=")[0] for word in overrides]
    return sources | dict.fromkeys(typed, "your command line")


def from_hydra(composed: Any, chosen: Any, overrides: Sequence[str], user_dir: str | None = None) -> Config:
    """Plain values of what Hydra composed, every interpolation resolved."""
    from omegaconf import OmegaConf

    keys = [key for key in composed if key != "hydra"]
    values = OmegaConf.to_container(OmegaConf.masked_copy(composed, keys), resolve=True)
    assert isinstance(values, dict)
    names = {group: name for group, name in chosen.items() if name and not group.startswith("hydra/")}
    return Config({str(key): value for key, value in values.items()}, names, list(overrides), user_dir)


def explain(error: Exception, overrides: Sequence[str], user_dir: str | None = None) -> UserError:
    """What is wrong with these overrides, in our words; Hydra's own where we have none."""
    from hydra.errors import OverrideParseException

    known = groups(user_dir)
    keys = list(_keys(user_dir))
    problems = []
    for override in overrides:
        match = re.fullmatch(r"[+~]{0,2}([\w./@-]+)=?(.*)", override, re.DOTALL)
        if not match or ("=" not in override and not override.startswith("~")):
            problems.append(f"'{override}' is not of the form key=value, such as way=5.")
            continue
        key, value = match[1].lstrip("/"), match[2]
        if key in known:
            there = choices(key, user_dir)
            named = (*there, "basic") if key.startswith("hydra/") else there
            wrong = [v for v in names(value) or [value] if v not in named and not v.startswith("$")]
            problems += [
                f"{key}={v}: there is no such {key}.{did_you_mean(v, list(there))} There are {', '.join(there)}."
                for v in wrong
            ]
        elif key not in keys and not key.startswith("hydra") and not override.startswith("+"):
            problems.append(f"'{key}' is not a setting.{did_you_mean(key, [*keys, *known])} See fsl show.")
    if not problems and isinstance(error, OverrideParseException):
        return UserError(f"'{error.override}' cannot be read as key=value. Quote what is special: \"key='a, b'\".")
    if not problems and (refused := re.search(r"Could not override '([\w./@-]+)'", str(error))):
        group = refused[1].partition(".")[0]
        chosen = [override for override in overrides if override.startswith(f"{group}=")]
        one = chosen[-1] if chosen and "," not in chosen[-1] else ""
        see = f" See fsl show {one}." if one else ""
        problems = [f"'{refused[1]}' is not a setting of {one or f'one {group} here'}.{see}"]
    if not problems:
        problems = [" ".join(str(error).split("\n    full_key")[0].split())]
    return UserError("\n".join(problems))


@contextmanager
def _hydra_at_conf() -> Iterator[None]:
    """Hydra, looking into conf/; inside a job of Hydra's own too."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton

    register_resolvers()
    outer = Singleton._instances.pop(GlobalHydra, None)
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield
    finally:
        if outer is not None:
            Singleton._instances[GlobalHydra] = outer


def _search(user_dir: str | None) -> list[str]:
    return [f"hydra.searchpath=[file://{Path(user_dir).resolve()}]"] if user_dir else []


def _folders(user_dir: str | None) -> list[Path]:
    folders = [conf_dir(), *([Path(user_dir)] if user_dir else [])]
    if not folders[-1].is_dir():
        raise UserError(f"--config-dir {user_dir}: there is no such folder.")
    return folders


def _keys(user_dir: str | None) -> Iterator[str]:
    """Every dotted key that some choice of groups offers."""
    from omegaconf import OmegaConf

    yield from _dotted(OmegaConf.load(conf_dir() / "train.yaml"))
    for path in (path for folder in _folders(user_dir) for path in sorted(folder.glob("*/*.yaml"))):
        in_package = "@package _global_" not in path.read_text()
        yield from (f"{path.parent.name}.{key}" if in_package else key for key in _dotted(OmegaConf.load(path)))


def _dotted(loaded: Any) -> Iterator[str]:
    """The dotted keys of a loaded YAML, inner ones too, without what is for Hydra."""
    from omegaconf import OmegaConf

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    content = OmegaConf.to_container(loaded)
    if isinstance(content, dict):
        yield from walk({key: value for key, value in content.items() if key not in ("defaults", "hydra")}, "")
