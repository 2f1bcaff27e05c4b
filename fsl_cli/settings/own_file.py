"""experiment=my.yaml: settings of the user's own in one file, wherever it lies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fsl_cli.errors import UserError, command, typed
from fsl_cli.files import read_yaml

SCHEME = "fsl-file"  # hydra_plugins/fsl_own_file.py reads what it names
KEPT_OUT = ("hydra", "trust")  # a file from elsewhere may say neither where Hydra works nor whose code may run


def take_files(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words, with the names of files in place of their paths, and where Hydra finds these.

    Raises UserError where a file is not there, or is none of settings.
    """
    rest, places = [], []
    for word in words:
        key, _, value = word.partition("=")
        if key.lstrip("+") == "experiment" and value.endswith((".yaml", ".yml")):
            parts = value.split(",")
            whole = Path(value).expanduser().exists() or not all(each.endswith((".yaml", ".yml")) for each in parts)
            files = [Path(each).expanduser() for each in ([value] if whole else parts)]
            for file in files:
                demand_settings(file)
            places += [f"{SCHEME}://{file.resolve()}" for file in files]
            word = f"experiment={','.join(map(name_of, files))}"
        rest.append(word)
    return rest, places


def sets_in(content: Mapping[str, Any]) -> list[str]:
    """The several data sets that a file names, as `- override /data: [omniglot, cub]` or `data: [omniglot, cub]`."""
    entries = content.get("defaults")
    named = [each["override /data"] for each in entries or () if isinstance(each, dict) and "override /data" in each]
    named += [content.get("data")]
    return next(([*map(str, each)] for each in named if isinstance(each, list)), [])


def of_the_first(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file as it would be with the first of several data sets alone; as it is where it names one."""
    sets, rest = sets_in(content), {key: value for key, value in content.items() if key not in ("data", "defaults")}
    if not sets:
        return dict(content)
    entries = content.get("defaults") or ()
    others = [each for each in entries if not (isinstance(each, dict) and "override /data" in each)]
    data = content.get("data")
    own = {"data": data[sets[0]]} if isinstance(data, dict) and sets[0] in data else {}
    return {"defaults": [*others, {"override /data": sets[0]}], **rest, **own}


def words_in(words: Sequence[str]) -> list[str]:
    """The words, after those for several data sets that a file of theirs comes to, unless others are typed."""
    files = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
    if not files or not files[-1].endswith((".yaml", ".yml")) or any(word.startswith("data=") for word in words):
        return list(words)
    file = Path(files[-1]).expanduser()
    content = read_yaml(file) if file.is_file() else {}
    if not isinstance(content, dict) or not (sets := sets_in(content)):
        return list(words)
    data = content.get("data")
    nodes = data.items() if isinstance(data, dict) else ()
    own = [
        f"data.{'' if key == 'size' else f'{called}.'}{key}={value if isinstance(value, str) else typed(value)}"
        for called, node in nodes
        if isinstance(node, dict)
        for key, value in node.items()
    ]
    return [f"data=[{','.join(sets)}]", *dict.fromkeys(own), *words]


def as_typed(words: Sequence[str], before: Sequence[str]) -> list[str]:
    """The words with the paths of `before` in place of the names that `take_files` has given their files."""
    paths = [each for word in before if word.startswith("experiment=") for each in (word[11:], *word[11:].split(","))]
    names = {f"experiment={name_of(Path(path).expanduser())}": f"experiment={path}" for path in paths if "." in path}
    return [names.get(word, word) for word in words]


def name_of(file: Path) -> str:
    """What Hydra calls the file: its name, or one of its own where Hydra's grammar cannot read that."""
    plain = re.sub(r"\W+", "_", file.stem, flags=re.ASCII)
    own = blake2b(str(file.resolve()).encode(errors="surrogateescape"), digest_size=3).hexdigest()
    return plain if plain == file.stem and not plain[0].isdigit() else f"file_{plain}_{own}"


def demand_settings(file: Path) -> None:
    """Raises UserError where `file` holds no settings that may come from a file."""
    if not file.is_file():
        write = command("fsl", "config", f"to={file}")
        raise UserError(f"experiment={file}: there is no such file. {write} writes one.")
    try:
        content = read_yaml(file)
    except UserError as error:
        raise UserError(f"experiment={error}") from error
    if not isinstance(content, dict):
        raise UserError(f"experiment={file}: holds no settings, such as way: 5.")
    for key in KEPT_OUT:
        if any(str(each).partition(".")[0] == key for each in content):
            raise UserError(f"experiment={file}: {key} stands in no file of settings. Type it beside: {key}….")
