"""The files of conf/, and of the user's own folder: which groups there are, and what can be chosen of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError


def conf_dir() -> Path:
    """The configuration files: inside the package where it was installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def groups(user_dir: str | None = None) -> list[str]:
    """The names of all groups, such as algo and hydra/launcher, of fsl and of the user's own folder."""
    inside = {(path.parent, folder) for folder in config_folders(user_dir) for path in folder.rglob("*.yaml")}
    return sorted({place.relative_to(folder).as_posix() for place, folder in inside if place != folder})


def choices(group: str, user_dir: str | None = None) -> dict[str, str]:
    """Each file of a group, with the first comment line that says what it is."""
    files = [path for folder in config_folders(user_dir) for path in sorted((folder / group).glob("*.yaml"))]
    return {path.stem: describe(path) for path in files}


def describe(path: Path) -> str:
    """A YAML's first comment that is not for Hydra."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and "@package" not in line:
            return line[2:].strip()
    return ""


def take_user_dir(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split `--config-dir FOLDER`, Hydra's option for the user's own files, from the other words."""
    rest = [part for word in words for part in (word.split("=", 1) if word.startswith("--config-dir=") else [word])]
    for option in ("--config-dir", "-cd"):
        if option in rest[:-1]:
            at = rest.index(option)
            return rest[at + 1], rest[:at] + rest[at + 2 :]
    return None, rest


def own_folder(user_dir: str | None) -> list[str]:
    """The option that `take_user_dir` has split off, as words again."""
    return ["--config-dir", user_dir] if user_dir else []


def names(text: str) -> list[str]:
    """The names in `[a,b]`, as Hydra writes a list."""
    return [name.strip() for name in text.strip("[]").split(",") if name.strip()]


def config_folders(user_dir: str | None) -> list[Path]:
    found = [conf_dir(), *([Path(user_dir).expanduser()] if user_dir else [])]
    if not found[-1].is_dir():
        raise UserError(f"--config-dir {user_dir}: there is no such folder.")
    return found


def dotted_keys(loaded: Any) -> Iterator[str]:
    """The dotted keys of a loaded YAML, inner ones too, without what is for Hydra."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    if isinstance(loaded, dict):
        yield from walk({key: value for key, value in loaded.items() if key not in ("defaults", "hydra")}, "")


def settings_of(group: str, name: str, user_dir: str | None) -> set[str]:
    """The dotted settings of one choice, with those that it takes over from others."""
    from omegaconf import OmegaConf

    found: set[str] = set()
    for folder in config_folders(user_dir):
        path = folder / group / f"{name}.yaml"
        if path.exists():
            content: Any = OmegaConf.to_container(OmegaConf.load(path))
            prefix = "" if "@package _global_" in path.read_text(encoding="utf-8") else f"{group}."
            bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base != "_self_"]
            own = {prefix + key for key in dotted_keys(content)}
            found |= own.union(*(settings_of(group, base, user_dir) for base in bases))
    return found
