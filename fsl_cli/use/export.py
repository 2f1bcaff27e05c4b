"""A run as one graph that needs no fsl, from pictures as decoded to answers: ONNX, or torch.export's own format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor, nn

from fsl_cli import __version__
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.norm import freeze_statistics
from fsl_cli.backbones.onnx import Graph as Opaque
from fsl_cli.errors import UserError
from fsl_cli.experiment.features import weights_digest
from fsl_cli.experiment.unknowns import SCORES, threshold
from fsl_cli.runs.records import Calibration
from fsl_cli.use.export_check import Difference, answers, compared, random_pictures
from fsl_cli.use.export_files import written
from fsl_cli.use.pictures_in_graph import Squared
from fsl_cli.use.predictor import FewShotClassifier, Predictor

NEEDED: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
RATES = (0.01, 0.05, 0.1)  # shares of false alarms whose thresholds a file tells


class Graph(nn.Module):
    """Pictures (n, height, width, 3) uint8, RGB, of any size -> `outputs`, by name; `about` is what its file tells.

    `function` makes them of images (1, n, channels, size, size) as the backbone sees them.
    """

    def __init__(
        self, run: Predictor, outputs: dict[str, str], function: Callable[[Tensor], tuple[Tensor, ...]], **about: Any
    ) -> None:
        super().__init__()
        self.run, self.outputs, self.function = run, outputs, function
        self.algorithm, self.squared = run.algorithm, Squared(run.image.size, run.image.channels)
        self.about = {**_origin(run), **_steps(run), "output": outputs, **about}

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return self.seen(self.run.standard(self.squared(pictures)))

    def seen(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs for images (n, channels, size, size) as the backbone sees them."""
        return tuple(found.squeeze(0) for found in self.function(images.unsqueeze(0)))

    def wanted(self, picture: Image) -> list[Tensor]:
        """What the run itself says of a picture."""
        return list(self.seen(self.run.scaled(self.run.pixels([picture]))))


def _origin(run: Predictor) -> dict[str, Any]:
    """Which run a file is of."""
    settings, folder = run.run.settings, run.run.folder
    kept = (folder / "config.yaml").exists()
    return {
        "fsl": __version__,
        "run": "/".join(folder.resolve().parts[-2:]) if kept else f"backbone={settings.backbone_name}",
        "weights": weights_digest(run.algorithm, ""),
        "trained_on": settings.pretrained or settings.data_name,
        "algorithm": settings.algo_name,
    }


def _steps(run: Predictor) -> dict[str, Any]:
    """What a file's user has to do to a picture, and what the graph does."""
    image, least = run.image, 2 * run.image.size
    grey = "grey, (19595 R + 38470 G + 7471 B + 32768) // 65536; " if image.channels == 1 else ""
    ink = "1 - x; " if image.ink else ""
    return {
        "channels": image.channels,
        "size": image.size,
        "input": "pictures: (n, height, width, 3), uint8, RGB, of any size",
        "before": "Turn as its EXIF says; 16 bits over 257; lay what is transparent on white; RGB. fsl decodes a JPEG "
        f"at the smallest of 1/8, 1/4, 1/2 and 1 that leaves {least} pixels a side, as Pillow's draft(None, ({least}, "
        f"{least})).",
        "inside": f"{grey}the middle square; {image.size} x {image.size} by bilinear interpolation with antialias, "
        "columns first, then rows, each rounded to whole numbers, as Pillow's resize(…, BILINEAR, box); over 255; "
        f"{ink}less {list(image.mean)}, over {list(image.std)}",
    }


def demand_layers(network: nn.Module) -> None:
    """Raises UserError where a network is no layers of torch, which a graph could take up."""
    if any(isinstance(module, Opaque) for module in network.modules()):
        raise UserError(
            "backbone=onnx runs outside torch, and cannot become part of another graph. Classify with fsl predict, or "
            "give fsl the network with its layers: backbone=timm or torchvision, backbone.name=… backbone.weights=FILE."
        )


def embedding(run: Predictor) -> Graph:
    """The embedding that a method compares images by.

    Raises UserError where there is none, as the network adapts, or it depends on a support set.
    """
    backbone = run.algorithm.shared_backbone
    if backbone is None:
        why = f"{run.run.settings.algo_name} adapts its network to each task, and has no embedding for all of them"
    elif backbone.norm == "support":
        why = "With norm=support an embedding depends on the support set"
    else:
        outputs = {"features": f"(n, {backbone.out_features})"}
        return Graph(run, outputs, lambda x: (run.algorithm.embed(x),))
    raise UserError(f"{why}. Type support=FOLDER to export the classifier of a support set.")


def demand_classifier(run: Predictor) -> None:
    """Raises UserError where a classifier of this run is no graph of single images, whatever it learns from."""
    networks = [module for module in run.algorithm.modules() if isinstance(module, Backbone)]
    if run.algorithm.with_query and networks[0].norm == "support":
        raise UserError(
            "With algo.with_query=true each query is normalised together with the support set, which a graph of single "
            "images cannot do. Train with algo.with_query=false, or classify with fsl predict."
        )
    if run.finetuning:
        raise UserError(
            "With backbone.finetune the network is another for each support set, and no graph is made of it. Leave "
            "support= out for the embedding of the network before, or classify with fsl predict."
        )
    if run.algorithm.sees_queries:
        raise UserError(
            "This method looks at all queries together, which a graph of single images cannot do. Leave support= out "
            "for its embedding, or classify with fsl predict."
        )


def classifier(classify: FewShotClassifier) -> Graph:
    """What a run has learned from a support set: logits, probabilities, and how likely a picture is of no class."""
    demand_classifier(classify.predictor)
    classes, kept = list(map(str, classify.classes)), classify.calibration
    tells = kept if kept and kept.score and kept.slope < 0 else None

    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        logits = classify.logits(x)
        shares = (logits / classify.temperature).softmax(-1)
        return (logits, shares, _unknown(tells, logits)) if tells else (logits, shares)

    said = {
        "logits": f"(n, {len(classes)}), before they are divided by the temperature",
        "probabilities": f"(n, {len(classes)}), of each class",
        **({"unknown": "(n,), the probability of no class, where half the pictures are of none"} if tells else {}),
    }
    about = {
        "classes": classes,
        "support": classify.support.y.shape[1],
        "temperature": classify.temperature,
        "calibration": classify.calibrated,
        **({"unknown_above": _thresholds(tells, classify.fewest_alarms)} if tells else {}),
    }
    return Graph(classify.predictor, said, outputs, **about)


def _unknown(kept: Calibration, logits: Tensor) -> Tensor:
    """The probability of no class, as in `FewShotClassifier.judged`: logits (1, n, way) -> (1, n)."""
    assert kept.score
    return (kept.slope * SCORES[kept.score](logits / kept.temperature) + kept.intercept).sigmoid()


def _thresholds(kept: Calibration, fewest: float) -> dict[str, float]:
    """Share of known pictures that are called unknown by mistake -> the probability above which one is."""
    scores = {rate: threshold(kept.levels, rate) for rate in RATES if rate >= fewest}
    chances = {rate: kept.slope * value + kept.intercept for rate, value in scores.items()}
    return {str(rate): float(torch.tensor(value).sigmoid()) for rate, value in chances.items()}


def demand_packages(format: str) -> None:
    """Raises UserError when a package that the format needs is missing."""
    if missing := [name for name in NEEDED[format] if find_spec(name) is None]:
        raise UserError(f'format={format} needs {", ".join(missing)}. Type pip install "fsl-cli[export]".')


class Exported(NamedTuple):
    """A file's content, and how far its answers are from the run's."""

    content: bytes
    difference: Difference  # in full precision, on random and real pictures
    wanted: list[list[Tensor]]  # what the run says of each of the other pictures
    found: list[list[Tensor]]  # and the file


@torch.no_grad()
def exported(
    graph: Graph, format: str, precision: str, real: Sequence[Image], others: Sequence[Image] = ()
) -> Exported:
    """The graph as a file, compared with the run on random and on `real` pictures; its answers for `others` come along.

    Raises UserError when it cannot be had, or differs by more than rounding does. The run is of no other use after it.
    """
    random = random_pictures(graph.run.image.size)
    wanted = [graph.wanted(picture) for picture in (*random, *real)]
    wanted_of_others = [graph.wanted(picture) for picture in others]
    example = torch.zeros(7, 61, 97, 3, dtype=torch.uint8)
    freeze_statistics(graph.run.algorithm, lambda: graph(example))
    for module in graph.run.algorithm.modules():
        if isinstance(module, Backbone) and module.norm == "support":
            module.norm = "running"
    file = written(graph.eval(), example, format, list(graph.outputs), graph.about)
    difference = compared(wanted, answers(file.call, (*random, *real)), len(random))
    if precision != "fp32":
        from fsl_cli.use.export_smaller import smaller

        file = smaller(file, precision, real or others)
        if not others:
            others, wanted_of_others = real, wanted[len(random) :]
    return Exported(file.content, difference, wanted_of_others, answers(file.call, others))
