"""fsl show: the composed settings, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fsl_cli.config import compose, provenance, take_user_dir

HELP = """Show the settings that a command line comes to, and which file or word each value comes from.

  fsl show                                    those of `fsl train` alone
  fsl show algo=maml data=omniglot way=20     with a recipe: the paper's settings for the pair

Prints, for example:
  way           20            your command line
  algo
    inner_lr    0.1           conf/recipe/maml_omniglot.yaml"""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl show`. Raises UserError for settings that do not compose."""
    user_dir, overrides = take_user_dir(words)
    config = compose(overrides, user_dir)
    sources = provenance(overrides, user_dir)
    rows = list(_rows(config.values, "", sources))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        print(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip())


def _rows(node: dict[str, Any], prefix: str, sources: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    indent = "  " * prefix.count(".")
    for key, value in node.items():
        if isinstance(value, dict):
            yield f"{indent}{key}", "", ""
            yield from _rows(value, f"{prefix}{key}.", sources)
        else:
            yield f"{indent}{key}", "null" if value is None else str(value), sources.get(prefix + key, "")
