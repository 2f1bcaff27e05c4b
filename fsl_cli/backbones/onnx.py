"""A frozen network of any origin, from an ONNX file, through onnxruntime."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import Pretrained, Trained, demand_running
from fsl_cli.errors import UserError

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # most networks' of ImageNet


def onnx(
    channels: int,
    size: int,
    norm: Mode,
    file: str | None = None,
    resize: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
) -> Pretrained:
    """The first output of the graph in `file`: a vector for each colour image, of pixels less `mean`, over `std`.

    Images are brought to `resize` pixels; by default to what the graph asks for, if it asks for any. It is frozen.
    Raises UserError when the file cannot be used, or for another norm than running.
    """
    demand_running(norm)
    if not file:
        raise UserError("backbone=onnx: type backbone.file=FILE with a graph from images (n, 3, H, W) to vectors.")
    net = Graph(Path(file).expanduser())
    pixels = resize or net.size
    trained = Trained(pixels or size, mean or MEAN, std or STD)
    built = Pretrained(file, net, trained, channels, size, pixels).freeze()
    built.origin = Path(file).name
    return built


class Graph(nn.Module):
    """Images (n, 3, H, W) -> features (n, d). `size` is the graph's own height, if it is fixed."""

    digest: Tensor

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError('backbone=onnx: needs onnxruntime. Type pip install "fsl-cli[export]".') from error
        try:
            # a large graph's weights lie beside it
            content = b"".join(each.read_bytes() for each in [path, *sorted(path.parent.glob(f"{path.name}.*"))])
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.log_severity_level = 3
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise UserError(f"backbone.file={path} cannot be read: {error.strerror}.") from error
        except Exception as error:  # a family of its own, without a common name
            raise UserError(f"backbone.file={path} is no ONNX graph: {str(error)[:200]}.") from error
        self.input: Any = self.session.get_inputs()[0]
        shape = self.input.shape
        if len(self.session.get_inputs()) > 1 or self.input.type not in TYPES or len(shape) != 4:
            raise UserError(f"backbone.file={path}: takes {self.input.type} {shape}, not images (n, 3, H, W) alone.")
        self.alone = shape[0] == 1  # a graph for one image at a time
        self.size: int | None = shape[2] if isinstance(shape[2], int) and shape[2] > 0 else None
        # by which kept features, and a loaded run, tell one file from another
        digest = hashlib.blake2b(content, digest_size=8).digest()
        self.register_buffer("digest", torch.frombuffer(bytearray(digest), dtype=torch.uint8))
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        images = np.ascontiguousarray(x.detach().cpu().numpy(), TYPES[self.input.type])
        pieces = np.split(images, len(images)) if self.alone else [images]
        found = np.concatenate([np.asarray(self.session.run(None, {self.input.name: piece})[0]) for piece in pieces])
        return torch.from_numpy(found).to(x)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *others: Any) -> None:
        """Raises UserError for the state of another file."""
        saved = state.get(f"{prefix}digest")
        if saved is not None and not torch.equal(saved.cpu(), self.digest.cpu()):
            raise UserError(f"backbone.file={self.path}: is another file than that of the run.")
        super()._load_from_state_dict(state, prefix, *others)
