"""Hydra's own program: it composes a sweep's runs and calls a job with each, and answers its own options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.files import disk_errors
from fsl_cli.settings.compose import Config, compose
from fsl_cli.settings.explain import demand_readable, explain
from fsl_cli.settings.hydra_conf import hydra_words, register_resolvers
from fsl_cli.settings.registry import conf_dir

# of Hydra's, those that go with fsl
FLAGS = ("-m", "--multirun", "-c", "--cfg", "--resolve", "-p", "--package", "-i", "--info", "-sc", "--shell-completion")


def through_hydra(job: Callable[[Any], Any], words: Sequence[str], user_dir: str | None, sweep: bool = False) -> None:
    """Let Hydra call `job` with what it composes of `words`, or with `sweep` for each run; or answer its own options.

    Raises UserError for settings that do not compose.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: we tell the user what to type
    before = sys.argv
    options = any(word.startswith("-") for word in words)  # whose values, such as job in -c job, are no settings
    settings = [word for word in words if "=" in word and not word.startswith("-")] if options else list(words)
    others = [word for word in words if word not in settings]
    if not options and not sweep:  # of which `plan` has looked at the words
        demand_readable(settings, user_dir, sweep)
    sys.argv = [before[0], *(["-m"] if sweep else []), *others, *hydra_words(settings, user_dir, sweep)]
    try:
        with disk_errors("the sweep's folder"):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, settings, user_dir) from error
    finally:
        sys.argv = before


def compose_and(job: Callable[[Config], Any], words: Sequence[str], user_dir: str | None) -> None:
    """Compose what `words` ask for and call `job` with it, or do what Hydra is asked for besides, such as --cfg.

    Raises UserError for settings that do not compose, and the job's own.
    """
    demand_options(words)
    if any(word.startswith("-") for word in words):
        through_hydra(lambda composed: None, words, user_dir)
    else:
        job(compose(words, user_dir))


def demand_options(words: Sequence[str]) -> None:
    """Raises UserError where an option is none of Hydra's that go with fsl."""
    odd = [word for word in words if word.startswith("-") and word.partition("=")[0] not in FLAGS]
    if odd:
        raise UserError(f"there is no option {odd[0]}. Settings are typed as way=5. See fsl train --help.")
