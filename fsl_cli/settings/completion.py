"""TAB in the shell: verbs are ours, settings are completed by Hydra's own mechanism."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from fsl_cli.errors import UserError

SHELLS = ("bash", "fish", "zsh")  # as Hydra knows them


def complete(words: Sequence[str], verbs: Sequence[str]) -> None:
    """Answer `fsl -sc install=bash`, and `fsl -sc query=bash`, which the shell asks with the line typed so far."""
    from fsl_cli.settings.hydra_app import through_hydra

    asked = words[1:]
    if len(asked) != 1 or not re.fullmatch(rf"(install|uninstall|query)=({'|'.join(SHELLS)})", asked[0]):
        raise UserError(f"fsl {' '.join(words)}: type fsl -sc install=SHELL, with one of {', '.join(SHELLS)}.")
    _, *rest = os.environ.get("COMP_LINE", "fsl train ").split(" ")
    if len(rest) < 2:
        print(" ".join(verb for verb in verbs if verb.startswith(rest[0] if rest else "")))
        return
    os.environ["COMP_LINE"] = " ".join(["fsl", *rest[1:]])  # Hydra knows no verbs
    through_hydra(lambda composed: None, words, None)
