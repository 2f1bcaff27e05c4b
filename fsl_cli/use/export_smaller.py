"""An ONNX graph whose network computes in 16 bits, or in whole numbers of 8; the rest of it stays as it was.

What is done to pictures, and distances, sums of squares and logarithms, need more than 16 bits have.
"""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from fsl_cli.errors import UserError
from fsl_cli.use.export_files import INPUT, File, onnx_file, quiet


def smaller(file: File, precision: str, pictures: Sequence[Image]) -> File:
    """The graph in `fp16` or `int8`; for `int8`, the ranges of its numbers are measured on `pictures`.

    Raises UserError where onnxruntime cannot make or run it.
    """
    model = copy.deepcopy(file.model)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed_{i}"
    kept = [node.name for node in model.graph.node if not _inside(node, file.networks)]
    try:
        with quiet():
            found = _in_16_bits(model, kept) if precision == "fp16" else _in_8_bits(model, kept, pictures)
        del found.metadata_props[:]
        found.metadata_props.extend(file.model.metadata_props)
        found.metadata_props.add(key="precision", value=precision)
        return onnx_file(found, file.networks)
    except Exception as error:  # a family of onnxruntime's own, without a common name
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"precision={precision} cannot be had of this network ({reason}). Type precision=fp32, or the other "
            "of fp16 and int8."
        ) from error


def _in_16_bits(model: Any, kept: list[str]) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    found = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    _join(found)
    return found


def _in_8_bits(model: Any, kept: list[str], pictures: Sequence[Image]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            picture = next(self.rest, None)
            return None if picture is None else {INPUT: np.array(picture)[None]}

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.onnx"
        quantize_static(model, path, Reader(), quant_format=QuantFormat.QDQ, nodes_to_exclude=kept, **types)
        return onnx.load(path)


def _inside(node: Any, networks: frozenset[str]) -> bool:
    """Whether a node is part of a network: the exporter notes which module each came from."""
    scopes = [each.value for each in node.metadata_props if each.key == "pkg.torch.onnx.name_scopes"]
    return any(set(ast.literal_eval(each)) & networks for each in scopes)


def _join(model: Any) -> None:
    """Let nodes of 32 bits that follow each other stay so: the converter puts 16 bits between any two."""
    from onnx import TensorProto

    nodes = model.graph.node
    maker = {output: node for node in nodes for output in node.output}

    def casts(node: Any, kind: int) -> bool:
        return node.op_type == "Cast" and any(a.name == "to" and a.i == kind for a in node.attribute)

    for node in nodes:
        before = maker.get(node.input[0]) if node.input else None
        if before and casts(node, TensorProto.FLOAT) and casts(before, TensorProto.FLOAT16):
            node.op_type, node.input[0] = "Identity", before.input[0]
            del node.attribute[:]
