"""The configuration of a run that an earlier fsl made, in the form of the present one."""

from __future__ import annotations

from typing import Any

MOVED = {  # what stood elsewhere in 0.1.0
    "fsl_cli.schedule.schedule": "fsl_cli.experiment.schedule.schedule",
    "fsl_cli.tracking.Comet": "fsl_cli.experiment.tracking.Comet",
}


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration, changed where an earlier fsl wrote it differently."""
    trainer = values.get("trainer")
    if isinstance(trainer, dict):
        values = {**values, "trainer": {"_target_": "fsl_cli.experiment.trainer.new_trainer", **trainer}}
    found = {key: _moved(value) for key, value in {"logger": {}, "calibrate": True, **values}.items()}
    if isinstance(found.get("backbone"), dict):  # which took none from a file, and was not fine-tuned
        found["backbone"] = {"weights": None, "finetune": 0, **found["backbone"]}
    found.setdefault("classes", "drawn")
    if isinstance(image := found.get("image"), dict) and (image.get("channels"), image.get("size")) == (1, 1):
        found["image"] = {"items": "points", **image}  # a regression's, which did not say so
    return found


def _moved(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    inner = {key: _moved(value) for key, value in node.items()}
    target = inner.get("_target_")
    return {**inner, "_target_": MOVED.get(target, target)} if isinstance(target, str) else inner
