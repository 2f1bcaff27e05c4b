"""CLIP and its kin (Radford et al., ICML 2021), as OpenCLIP keeps them: https://github.com/mlfoundations/open_clip

The image tower is the backbone. The text tower makes class rows of the classes' names, which `fsl embed` writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.backbones.mode import Mode
from fsl_cli.backbones.pretrained import Pretrained, Trained, demand_running, no_weights, unknown
from fsl_cli.backbones.weights import fit, part_for, read_weights
from fsl_cli.errors import UserError

TEXTS_AT_ONCE = 64


def openclip(
    channels: int, size: int, norm: Mode, name: str = "ViT-B-32", tag: str | None = None, weights: str | None = None,
    templates: str = "a photo of a {}.", resize: int | None = None,
) -> Pretrained:  # fmt: skip
    """The image tower of the model `name`, on images brought to `resize`, by default the model's own size.

    Its weights are those of the file `weights`, or OpenCLIP's of this `tag` (laion2b_s34b_b79k), from the cache or
    downloaded. A class row is the mean of the embeddings, of unit length, of `templates`, parted by |, with the class's
    name in them.
    Raises UserError when open_clip is not installed, has no such model, or when weights cannot be had or do not fit.
    """
    demand_running(norm)
    if tag and weights:
        raise UserError(f"backbone.tag={tag} backbone.weights={weights}: choose one of the two.")
    spoken_in = [template.strip() for template in templates.split("|")]
    if any(template.count("{}") != 1 for template in spoken_in):
        raise UserError(f"backbone.templates={templates}: each needs {{}} once, where the class's name goes.")
    try:
        import open_clip
    except ImportError as error:
        raise UserError(
            'backbone=openclip: open_clip is not installed. Type pip install "fsl-cli[openclip]".'
        ) from error
    if name not in open_clip.list_models():
        raise unknown(name, "OpenCLIP", open_clip.list_models(), "open_clip.list_models()")
    try:
        model: Any = open_clip.create_model(name, pretrained=tag or None)
    except Exception as error:  # whatever the hub or a damaged file makes of itself
        places = "Looked for in the hub's cache, then at the hub"
        raise no_weights(f"OpenCLIP's {name}, backbone.tag={tag}", error, places) from error
    model.eval()
    if weights:
        path = Path(weights).expanduser()
        fit(model, part_for(read_weights(path), model), f"backbone.weights={path}: does not fit OpenCLIP's {name}")
    seen = open_clip.get_model_preprocess_cfg(model)
    own = seen["size"] if isinstance(seen["size"], int) else seen["size"][-1]
    built = Pretrained(name, model.visual, Trained(own, seen["mean"], seen["std"]), channels, size, resize or own)
    built.origin = tag or (Path(weights).name if weights else "")
    tokenizer = open_clip.get_tokenizer(name)
    if built.origin:  # of a kept classifier, the image tower alone has its weights
        built.of_names = lambda names: text_rows(model, tokenizer, names, spoken_in)
    return built


@torch.no_grad()
def text_rows(model: Any, tokenizer: Any, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """What the text tower makes of names of classes, (n, d), of unit length."""
    device = next(iter(model.parameters())).device
    rows = torch.zeros(0)
    for template in templates:
        texts = [template.replace("{}", spoken(name)) for name in names]
        pieces = [texts[i : i + TEXTS_AT_ONCE] for i in range(0, len(texts), TEXTS_AT_ONCE)]
        found = [F.normalize(model.encode_text(tokenizer(piece).to(device)), dim=-1).float().cpu() for piece in pieces]
        rows = torch.cat(found) + (rows if len(rows) else 0)
    return F.normalize(rows, dim=-1)


def spoken(name: str) -> str:
    """A folder's name as one says it: birds/001.Black_footed_Albatross -> Black footed Albatross."""
    last = re.sub(r"^\d+[.\-_ ]+(?=\D)", "", name.rpartition("/")[2])
    return " ".join(re.sub(r"[_\-]+", " ", last).split()) or name
