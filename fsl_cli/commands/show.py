"""fsl show: the composed settings, and where each comes from; or a picture of what a run has learned."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.settings.compose import compose, provenance
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.registry import take_user_dir
from fsl_cli.settings.schema import meaning

HELP = """Show the settings that a command line comes to, and which file or word each value comes from.

  fsl show                                    those of `fsl train` alone
  fsl show algo=maml data=omniglot way=20     with a recipe: the paper's settings for the pair

Prints, for example:
  way           20            your command line
  algo
    inner_lr    0.1           conf/recipe/maml_omniglot.yaml

Or what a run has learned, as a picture:

  fsl show episode run=DIR index=17           a test episode's images, with what each query was taken for
  fsl show fit run=DIR index=3                regression: a task's points, what was predicted of it, and how surely
  fsl show embedding run=DIR                  metric methods: the images of a test episode in two dimensions
  fsl show embedding run=DIR method=tsne way=20 shot=5
  fsl show landscape run=DIR other=DIR        inner loops: the losses of a task around the start and two adapted weights
  fsl show steps run=DIR upto=20              inner loops: accuracy and loss after 0, 1, 2, ... steps, and a CSV
  fsl show optimizers run=DIR upto=200        algo=l2l: loss by step, beside SGD, NAG, RMSprop and Adam at their best

Prints, for example:
      3 steps   95.80% ± 0.30%   loss 0.1322 ± 0.0091
  outputs/RUN/shown/omniglot-5w1s/steps.png

Episodes are those of the run's own test, under its own way, shot and query, or what is typed, as for fsl test.
split=val takes those of validation: use these to choose settings. out=FILE.png writes elsewhere."""

PICTURES = ("episode", "embedding", "steps", "landscape", "fit", "optimizers")


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl show`. Raises UserError for settings that do not compose."""
    user_dir, overrides = take_user_dir(words)
    if overrides and overrides[0].isalpha():
        if overrides[0] not in PICTURES:
            near = did_you_mean(overrides[0], PICTURES)
            raise UserError(
                f"fsl show has no picture '{overrides[0]}'.{near} There are {', '.join(PICTURES)}; "
                "settings are of the form key=value, such as way=5."
            )
        importlib.import_module(f"fsl_cli.use.show_{overrides[0]}").show(overrides[1:], user_dir)
        return
    from fsl_cli.settings.own_pictures import fit_to_pictures

    config, reasons = fit_to_pictures(compose(overrides, user_dir))
    sources = provenance(overrides, user_dir) | reasons
    rows = list(_rows(config.values, "", sources))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    wide = max(len(row[2]) for row in rows if row[2] not in reasons.values())
    for name, value, source in rows:
        print(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source:<{wide}}  {meaning(name)}".rstrip())


def _rows(node: dict[str, Any], prefix: str, sources: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    indent = "  " * prefix.count(".")
    for key, value in node.items():
        if isinstance(value, dict):
            yield f"{indent}{key}", "", ""
            yield from _rows(value, f"{prefix}{key}.", sources)
        else:
            yield f"{indent}{key}", "null" if value is None else str(value), sources.get(f"{prefix}{key}", "")
