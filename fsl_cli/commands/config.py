"""fsl config: the composed settings as a YAML of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsl_cli.errors import UserError, command
from fsl_cli.settings.registry import take_user_dir
from fsl_cli.settings.words import split_word

HELP = """Write the settings that a command line comes to into one YAML file, to edit and to train with.

  fsl config algo=maml data=omniglot to=my.yaml
  fsl train experiment=my.yaml                     with what it says now
  fsl train experiment=my.yaml way=20              what is typed wins
  fsl train -m experiment=a.yaml,b.yaml            a sweep over several

Prints the file's name; without to=, what it would hold, for example:
  # @package _global_
  # fsl train experiment=my.yaml
  defaults:
    - override /algo: maml
  ...
  way: 5  # classes of a validation or test episode; [5,20] draws anew for each episode"""


def main(words: Sequence[str]) -> None:
    """Run the command line after `fsl config`. Raises UserError for settings that do not compose."""
    from fsl_cli.files import write_text, writing
    from fsl_cli.settings.write_own import own_yaml

    user_dir, rest = take_user_dir(words)
    to = next((Path(split_word(word)[1]).expanduser() for word in rest if word.startswith("to=")), None)
    settings = [word for word in rest if not word.startswith("to=")]
    if to is None:
        print(own_yaml(settings, user_dir), end="")
        return
    if to.suffix not in (".yaml", ".yml"):
        raise UserError(f"to={to}: its name must end in .yaml. Type {command(f'to={to}.yaml')}.")
    if to.exists():
        raise UserError(f"to={to}: it is there already. Choose another name, or delete it.")
    text = own_yaml(settings, user_dir, to.name)
    with writing(to, "Choose another with to=FILE."):
        write_text(to, text)
    print(f"{to}\nnext   {command('fsl', 'train', f'experiment={to}')}")
