"""The files of a graph: how each format is written and asked."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fsl_cli.backbones.base import Backbone
from fsl_cli.errors import UserError
from fsl_cli.use.export_check import Call

INPUT = "pictures"


class File(NamedTuple):
    """A graph's file, and how to ask it."""

    content: bytes
    call: Call
    model: Any = None  # of ONNX
    networks: frozenset[str] = frozenset()  # where the backbones are: what precision may be taken from


def written(graph: nn.Module, example: Tensor, format: str, outputs: Sequence[str], about: dict[str, Any]) -> File:
    """A graph of pictures, in a format; `about` is what it tells. Raises UserError where the format cannot hold it."""
    sides = {i: torch.export.Dim(name) for i, name in enumerate(("n", "height", "width"))}
    networks = frozenset(name for name, module in graph.named_modules() if isinstance(module, Backbone))
    with quiet():
        program = torch.export.export(graph, (example,), dynamic_shapes=(sides,))
        return _onnx(program, outputs, about, networks) if format == "onnx" else _torch(program, about)


def _onnx(program: Any, outputs: Sequence[str], about: dict[str, Any], networks: frozenset[str]) -> File:
    try:
        found = torch.onnx.export(program, input_names=[INPUT], output_names=list(outputs), verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"ONNX cannot hold this network: {reason}. Type format=torch.") from error
    assert found is not None
    model = found.model_proto
    describe(model, about)
    return onnx_file(model, networks)


def describe(model: Any, about: dict[str, Any]) -> None:
    """Put what a file tells into an ONNX model."""
    from onnx.helper import set_model_props

    set_model_props(model, {key: each if isinstance(each, str) else json.dumps(each) for key, each in about.items()})


def onnx_file(model: Any, networks: frozenset[str] = frozenset()) -> File:
    """An ONNX model, ready to be asked."""
    import onnxruntime

    content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def call(pictures: Tensor) -> list[Tensor]:
        return [torch.from_numpy(each) for each in session.run(names, {INPUT: pictures.numpy()})]

    return File(content, call, model, networks)


def _torch(program: Any, about: dict[str, Any]) -> File:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"fsl.json": json.dumps(about)})
    content = buffer.getvalue()
    module = torch.export.load(io.BytesIO(content)).module()
    return File(content, lambda pictures: list(module(pictures)))


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the exporters' remarks."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "")]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for log, level in zip(logs, before, strict=True):
        log.setLevel(level)
