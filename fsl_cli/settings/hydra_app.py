"""Hydra composes a command line and calls a job with it: once, or for each run of a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fsl_cli.errors import UserError
from fsl_cli.files import disk
from fsl_cli.settings.compose import Config, conf_dir, demand_names, explain, from_hydra, register_resolvers

# of Hydra's, those that go with fsl
FLAGS = ("-m", "--multirun", "-c", "--cfg", "--resolve", "-p", "--package", "-i", "--info", "-sc", "--shell-completion")


def through_hydra(job: Callable[[Any], Any], words: Sequence[str], user_dir: str | None) -> None:
    """Let Hydra compose what `words` ask for, and call `job` with it: once, or for each run of a sweep."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: we tell the user what to type
    before = sys.argv
    odd = [word for word in words if word.startswith("-") and word.partition("=")[0] not in FLAGS]
    if odd:
        raise UserError(f"there is no option {odd[0]}. Settings are typed as way=5. See fsl train --help.")
    demand_names([word for word in words if word != "-m"], user_dir)
    sys.argv = [before[0], *(["--config-dir", user_dir] if user_dir else []), *words]
    try:
        with disk("the sweep's folder"):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, [word for word in words if not word.startswith("-")], user_dir) from error
    finally:
        sys.argv = before


def compose_and(job: Callable[[Config], Any], words: Sequence[str], user_dir: str | None) -> None:
    """Compose what `words` ask for and call `job` with it, or do what Hydra is asked for besides, such as completion.

    Raises UserError for settings that do not compose, and the job's own.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    failed: list[UserError] = []  # Hydra would say more of an exception than the user needs

    def call(composed: Any) -> None:
        chosen, typed = HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
        try:
            job(from_hydra(composed, chosen, typed, user_dir))
        except UserError as error:
            failed.append(error)
        except OmegaConfBaseException as error:
            failed.append(explain(error, typed))

    through_hydra(call, words, user_dir)
    if failed:
        raise failed[0]
