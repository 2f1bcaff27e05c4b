"""Hydra, looking into conf/, the user's folder and the user's own files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsl_cli.settings.own_file import take_files
from fsl_cli.settings.registry import conf_dir, config_folders
from fsl_cli.settings.several import for_the_first
from fsl_cli.settings.typed import for_hydra, quoted, whole_tables

# Our launchers have their plugins' names, which is what people type; Hydra means to drop that one day. Here, so that it
# holds before Hydra reads anything in a launcher's process.
warnings.filterwarnings("ignore", r"\s*'hydra/\w+/\w+' is validated against ConfigStore schema")


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


def hydra_words(words: Sequence[str], user_dir: str | None, sweep: bool = False) -> list[str]:
    """What was typed, as Hydra reads it, after where it is to look besides conf/. Raises UserError."""
    rest, files = take_files(for_the_first(words, user_dir))
    places = [f"file://{folder.resolve()}" for folder in config_folders(user_dir)[1:]] + files
    search = [f"hydra.searchpath=[{','.join(map(quoted, places))}]"] if places else []
    return [*search, *whole_tables(for_hydra(rest, sweep))]


@contextmanager
def hydra_at_conf() -> Iterator[None]:
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


def composed(words: Sequence[str]) -> Any:
    """What Hydra makes of `hydra_words`, Hydra's own settings with it. Raises what Hydra raises."""
    import hydra

    with hydra_at_conf():
        return hydra.compose("train", list(words), return_hydra_config=True)
