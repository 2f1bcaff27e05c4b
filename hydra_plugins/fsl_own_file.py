"""experiment=my.yaml: one file as a choice of the group experiment. Hydra takes sources from `hydra_plugins` alone."""

from __future__ import annotations

from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource


class OwnFile(ConfigSource):
    """`fsl-file:///home/me/my.yaml` holds experiment/my.yaml and nothing else, set at the root."""

    @staticmethod
    def scheme() -> str:
        from fsl_cli.settings.own_file import SCHEME

        return SCHEME

    @property
    def config(self) -> str:
        """What Hydra asks for, such as experiment/my."""
        from fsl_cli.settings.own_file import name_of

        return f"experiment/{name_of(Path(self.path))}"

    def load_config(self, config_path: str) -> ConfigResult:
        from omegaconf import OmegaConf

        from fsl_cli.files import read_yaml
        from fsl_cli.settings.own_file import of_the_first

        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=OmegaConf.create(of_the_first(read_yaml(Path(self.path)))),
            header={"package": "_global_"},
        )

    def available(self) -> bool:
        return Path(self.path).is_file()

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", "experiment")

    def is_config(self, config_path: str) -> bool:
        return config_path.removesuffix(".yaml") == self.config

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [self.config.partition("/")[2]] if config_path == "experiment" else []
