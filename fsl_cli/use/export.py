"""A run as one graph that needs no fsl: ONNX, or torch.export's own format."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsl_cli import __version__
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.norm import freeze_statistics
from fsl_cli.errors import UserError
from fsl_cli.use.predictor import FewShotClassifier, Predictor

NEEDED: dict[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": ()}
BATCHES = (1, 2, 7)  # images of a check
TOLERANCE = 1e-3  # of the largest number


class Graph(nn.Module):
    """Images (n, channels, size, size) of 0 to 1 -> `output` (n, width); `about` is what its file says of it."""

    def __init__(
        self, run: Predictor, output: str, width: int, function: Callable[[Tensor], Tensor], **about: Any
    ) -> None:
        super().__init__()
        self.run, self.output, self.width, self.function = run, output, width, function
        channels, size = run.image.channels, run.image.size
        kind = "RGB" if channels == 3 else "grey"
        self.shape = channels, size, size
        self.about = {
            "fsl": __version__,
            "algorithm": run.run.settings.choices["algo"],
            "input": f"images: (n, {channels}, {size}, {size}), {kind} of 0 to 1, as in the file",
            "output": f"{output}: (n, {width})",
            "channels": channels,
            "size": size,
            **about,
        }

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.run.standard(images).unsqueeze(0)).squeeze(0)


def embedding(run: Predictor) -> Graph:
    """The embedding that a method compares images by.

    Raises UserError where there is none, as the network adapts, or it depends on a support set.
    """
    backbone = getattr(run.algorithm, "backbone", None)
    if not isinstance(backbone, Backbone):
        why = (
            f"{run.run.settings.choices['algo']} adapts its network to each task, and has no embedding for all of them"
        )
    elif backbone.norm == "support":
        why = "With norm=support an embedding depends on the support set"
    else:
        return Graph(run, "features", backbone.out_features, run.algorithm.embed)
    raise UserError(f"{why}. Type support=FOLDER to export the classifier of a support set.")


def classifier(classify: FewShotClassifier) -> Graph:
    """What a run has learned from a support set, as probabilities of its classes."""
    networks = [module for module in classify.predictor.algorithm.modules() if isinstance(module, Backbone)]
    if getattr(classify.predictor.algorithm, "with_query", False) and networks[0].norm == "support":
        raise UserError(
            "With algo.with_query=true each query is normalised together with the support set, which a graph of single "
            "images cannot do. Train with algo.with_query=false, or classify with fsl predict."
        )
    classes = list(map(str, classify.classes))

    def probabilities(x: Tensor) -> Tensor:
        return (classify.logits(x) / classify.temperature).softmax(-1)

    return Graph(
        classify.predictor,
        "probabilities",
        len(classes),
        probabilities,
        classes=classes,
        **_calibrated(classify),
    )


def _calibrated(classify: FewShotClassifier) -> dict[str, str]:
    """What a file says of its probabilities: what logits were divided by, and how that was found."""
    return {"temperature": str(classify.temperature), "calibration": classify.calibrated}


def demand_packages(format: str) -> None:
    """Raises UserError when a package that the format needs is missing."""
    if missing := [name for name in NEEDED[format] if find_spec(name) is None]:
        raise UserError(f'format={format} needs {", ".join(missing)}. Type pip install "fsl-cli[export]".')


@torch.no_grad()
def exported(graph: Graph, format: str) -> tuple[bytes, float]:
    """The file's content, any number of images at a time, and how much it differs from the run at most.

    Raises UserError when it cannot be had, or differs by more than rounding does. The run is of no other use after it.
    """
    dice = torch.Generator().manual_seed(0)
    images = [torch.rand(n, *graph.shape, generator=dice) for n in BATCHES]
    wanted = [graph(batch) for batch in images]
    freeze_statistics(graph.run.algorithm, lambda: graph(images[-1]))
    for module in graph.run.algorithm.modules():
        if isinstance(module, Backbone) and module.norm == "support":
            module.norm = "running"
    with _quiet():
        program = torch.export.export(graph.eval(), (images[-1],), dynamic_shapes=({0: torch.export.Dim("n")},))
        content, call = (_onnx if format == "onnx" else _torch)(program, graph)
    off = 0.0
    for batch, want in zip(images, wanted, strict=True):
        got = call(batch)
        off = max(off, float((got - want).abs().max() / want.abs().max().clamp(min=1)))
    if not off <= TOLERANCE:
        raise UserError(f"The graph differs from the run by {off:.1e}: nothing is written. Try the other format.")
    return content, off


def _onnx(program: Any, graph: Graph) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    import onnxruntime

    try:
        found = torch.onnx.export(program, input_names=["images"], output_names=[graph.output], verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"ONNX cannot hold this network: {reason}. Type format=torch.") from error
    assert found is not None
    found.model.metadata_props.update(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in graph.about.items()}
    )
    content = found.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda x: torch.from_numpy(np.asarray(session.run([graph.output], {"images": x.numpy()})[0]))


def _torch(program: Any, graph: Graph) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"fsl.json": json.dumps(graph.about)})
    content = buffer.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the exporters' remarks."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    log.setLevel(before)
