"""fsl ls: what can be chosen, read off the files of conf/."""

from __future__ import annotations

from collections.abc import Sequence

from fsl_cli.errors import UserError
from fsl_cli.settings.hints import did_you_mean
from fsl_cli.settings.registry import choices, groups, take_user_dir

HELP = """List what can be chosen, with the first line of each file in conf/.

  fsl ls                       every group
  fsl ls algo                  algorithms
  fsl ls data                  data sets
  fsl ls backbone              backbones: parameters, features, and milliseconds for an image, measured here
  fsl ls --config-dir my_conf  your own as well

Prints, for example:
  algo
    maml      MAML: a learned initialisation, a few gradient steps away from any task (Finn et al. 2017)
    protonet  Prototypical networks: nearest class mean in a learned embedding (Snell et al. 2017)
  backbone       parameters  features   ms, 84x84
    conv4           112,832      1600         2.9  Four blocks of 3x3 convolution, the field's standard"""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl ls`. Raises UserError for an unknown group."""
    user_dir, wanted = take_user_dir(words)
    known = groups(user_dir)
    for group in wanted:
        if group not in known:
            raise UserError(f"there is no group '{group}'.{did_you_mean(group, known)} There are {', '.join(known)}.")
    for group in wanted or known:
        entries = choices(group, user_dir)
        if not entries:
            continue
        width = max(map(len, entries))
        if group == "backbone" and wanted:  # asked for by name: that may take seconds
            _show_backbones(entries, width, user_dir)
            continue
        print(group)
        for name, text in entries.items():
            print(f"  {name:<{width}}  {text}")


def _show_backbones(entries: dict[str, str], width: int, user_dir: str | None) -> None:
    from rich.console import Console

    from fsl_cli.doctor.backbones import HEADER, measured

    print(f"{'backbone':<{width + 2}}  {HEADER}")
    for name, text in entries.items():
        with Console(stderr=True).status(f"measuring {name}"):  # seconds, for importing torch and for wide networks
            seen = measured(name, user_dir)
        print(f"  {name:<{width}}  {seen}  {text}", flush=True)
