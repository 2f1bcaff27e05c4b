"""A finished run put to use: it learns new classes from a few pictures and classifies others; needs no data set."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from fsl_cli.algorithms.base import Algorithm
from fsl_cli.algorithms.finetuning import FineTuning, classifier
from fsl_cli.backbones.base import Backbone
from fsl_cli.backbones.mode import ALONE
from fsl_cli.data.photos import from_image, photo
from fsl_cli.data.places import disk_file
from fsl_cli.data.texts import as_items, cleaned, code_points
from fsl_cli.episodes import IGNORED, Episodes, Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.features import weights_digest
from fsl_cli.experiment.finetuning import fine_tuning_of
from fsl_cli.experiment.method import trained
from fsl_cli.experiment.unknowns import score, threshold
from fsl_cli.runs.records import Calibration
from fsl_cli.runs.run import Run
from fsl_cli.settings import schema
from fsl_cli.use.calibrated import of_support

BATCH = 64  # images at a time


def load_run(folder: str | Path, trust: Sequence[str] = (), device: str | None = None) -> Predictor:
    """The run in `folder`, as its best checkpoint left it, on `device`: by default a GPU where torch can use one.

    `trust` are packages that its configuration may name besides fsl's own. A picture's prediction must not depend on
    the pictures beside it, so a run with norm=transductive is used with norm=support. Raises UserError when the folder
    holds no such run, its checkpoint is missing or does not fit, or it is one of regression.
    """
    run = Run(folder)
    if run.settings.image and run.settings.image.items == "points":
        raise UserError(
            f"{run} is a run of regression, and has no classes. Choose one that was trained on images or texts."
        )
    if run.settings.image and run.settings.image.items == "characters":
        raise UserError(f"{run} predicts characters, and has no classes. Choose a run that was trained on data=texts.")
    changed = run.settings.norm == "transductive"
    try:
        algorithm = trained(run, trust, "support" if changed else None)
    except UserError as error:
        raise UserError(f"{error}{run.of_another_version()}") from error
    assert run.settings.image  # which `trained` has asked for
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Predictor(run, algorithm.to(place), run.settings.image, place, changed, fine_tuning_of(run))


@dataclass
class Predictor:
    """What `load_run` loads: a run put to use."""

    run: Run
    algorithm: Algorithm
    image: schema.Image  # what the backbone sees
    device: torch.device
    changed: bool  # trained with norm=transductive, used with norm=support
    finetuning: FineTuning | None = None  # of the backbone on each support set, as in the run's test

    def calibration(self, way: int, shots: Sequence[int]) -> tuple[Calibration | None, str]:
        """What the logits of such a support set are divided by, and how that was found: `calibrated.of_support`."""
        return of_support(self.run, way, shots)

    @cached_property
    def backbone(self) -> Backbone | None:
        """What makes features of images, where the method asks for no more than these, of each image alone."""
        backbone = self.algorithm.shared_backbone
        alone = backbone is not None and backbone.norm in ALONE
        return backbone if self.algorithm.takes_features and alone and not self.finetuning else None

    @cached_property
    def key(self) -> str:
        """A key for kept features: everything that they depend on besides the picture."""
        assert self.backbone
        return weights_digest(self.backbone, f"{self.image}, columns first")

    @torch.no_grad()
    def embedded(self, pixels: Tensor) -> Tensor:
        """The backbone's features (n, d) of images as `pixels` makes them, on the CPU."""
        assert self.backbone
        return self.backbone(self.scaled(pixels).unsqueeze(0)).squeeze(0).cpu()

    def adapt(
        self, images: Iterable[Any], labels: Iterable[Hashable | None], class_rows: Mapping[Any, Any] | None = None
    ) -> FewShotClassifier:
        """Learn classes from support images and their labels, any number of either that the method allows.

        None is the label of an image whose class is not known, for methods that learn from such too.

        An image is a path, a PIL image, an array (H, W) or (H, W, channels), or a tensor (channels, H, W); of numbers
        0 to 255 if whole, else 0 to 1; of any size. A text is a string; an
        embedding an array of numbers. `class_rows` are for methods that read these: a vector for each class, by label.
        Raises UserError when there are fewer than two classes, the method has a learned head for another number of
        them, or learns from no image without label.
        """
        return self.adapt_pixels(self.pixels(images), list(labels), class_rows)

    def adapt_pixels(
        self, pixels: Tensor, labels: Sequence[Hashable | None], class_rows: Mapping[Any, Any] | None = None
    ) -> FewShotClassifier:
        """`adapt` for images as `pixels` makes them, or features (n, d) as `embedded` does."""
        none = not labels and self.algorithm.zero_shot
        classes = sorted(set((class_rows or {}) if none else labels) - {None}, key=str)
        if len(pixels) != len(labels):
            raise UserError(f"{len(pixels)} support images have {len(labels)} labels: give one for each.")
        if len(classes) < 2:
            raise UserError(
                f"The support set has {len(classes)} class: there is nothing to tell apart. Give it 2 or more."
            )
        if None in labels and not self.algorithm.takes_unlabelled:
            raise UserError(
                f"{self.run} learns from labelled images alone. Leave the others out, or choose a run of "
                "algo=softkmeans, which learns from both."
            )
        number: dict[Hashable | None, int] = {None: IGNORED, **{label: i for i, label in enumerate(classes)}}
        y = torch.tensor([number[label] for label in labels], dtype=torch.long, device=self.device)
        rows = self._rows(classes, class_rows) if self.algorithm.reads_class_rows else None
        return FewShotClassifier(self, Examples(self.seen(pixels).unsqueeze(0), y.unsqueeze(0)), classes, rows)

    def _rows(self, classes: list[Any], given: Mapping[Any, Any] | None) -> Tensor:
        """The class rows (1, way, k) of these classes. Raises UserError where one lacks or is of another width."""
        found = {label: torch.as_tensor(row, dtype=torch.get_default_dtype()) for label, row in (given or {}).items()}
        width = self.image.class_rows
        for label in classes:
            if label not in found or found[label].shape != (width,) or not found[label].isfinite().all():
                raise UserError(
                    f"class {label} needs a class row of {width:,} numbers: "
                    ".adapt(vectors, labels, class_rows={label: vector})."
                )
        return torch.stack([found[label] for label in classes])[None].to(self.device)

    def pixels(self, images: Iterable[Any]) -> Tensor:
        """Images, as `adapt` takes them, upright and cut to the run's size: (n, channels, size, size) uint8.

        Of a run of texts, strings, as a store has them; of embeddings, vectors: (n, d, 1, 1). Raises UserError for a
        text without a letter, and for vectors of another width.
        """
        if self.image.items == "texts":
            texts = [cleaned(text) for text in images]
            if not all(texts):
                raise UserError(f"text {texts.index('') + 1} is empty: give each a letter or more.")
            return torch.from_numpy(as_items(texts, self.image.size))
        if self.image.items == "embeddings":
            return self._vectors(images)
        size, channels = self.image.size, self.image.channels
        found = []
        for image in images:
            if isinstance(image, str | Path):
                found.append(photo(disk_file(Path(image).expanduser()), size, channels))
            else:
                opened = image if isinstance(image, Image.Image) else to_pil_image(image)
                found.append(from_image(ImageOps.exif_transpose(opened), size, channels))
        return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, channels, size, size, dtype=torch.uint8)

    def _vectors(self, vectors: Iterable[Any]) -> Tensor:
        """Embeddings (n, d, 1, 1). Raises UserError for those of another width, or that are not finite."""
        found = [torch.as_tensor(vector, dtype=torch.float32).flatten() for vector in vectors]
        width = self.image.channels
        for number, vector in enumerate(found, 1):
            if len(vector) != width or not vector.isfinite().all():
                raise UserError(
                    f"embedding {number} has {len(vector):,} numbers: give {width:,}, all of them finite, of the "
                    "network that made those which this run was trained on."
                )
        return torch.stack(found)[:, :, None, None] if found else torch.zeros(0, width, 1, 1)

    def seen(self, items: Tensor) -> Tensor:
        """Images as `scaled` makes them; features as they are, on the run's device."""
        return items.to(self.device) if items.ndim == 2 else self.scaled(items)

    def scaled(self, pixels: Tensor) -> Tensor:
        """Images (n, channels, size, size) of 0 to 255, as the backbone sees them, on the run's device; or texts."""
        if self.image.items == "texts":
            return code_points(pixels.to(self.device), torch.get_default_dtype())
        if self.image.items == "embeddings":
            return pixels.to(self.device, torch.get_default_dtype())
        return self.standard(pixels.to(self.device, torch.get_default_dtype()) / 255)

    def standard(self, x: Tensor) -> Tensor:
        """Images (n, channels, size, size) of 0 to 1, as the backbone sees them."""
        mean, std = (
            x.new_tensor(values).expand(x.shape[1]).view(-1, 1, 1) for values in (self.image.mean, self.image.std)
        )
        return ((1 - x if self.image.ink else x) - mean) / std


class FewShotClassifier:
    """What a run has learned from a support set; `classes` are its labels, in the order of the probabilities.

    Logits are divided by `temperature` before they become these; `calibrated` says how that was found.
    """

    def __init__(
        self, predictor: Predictor, support: Examples, classes: list[Any], class_rows: Tensor | None = None
    ) -> None:
        self.predictor, self.support, self.classes = predictor, support, classes
        with torch.no_grad(), taking_features(predictor.backbone, support.x.ndim == 3):
            none = support.y.new_zeros(1, len(classes))
            known = Episodes(support, support, none, none[:, 0], class_rows)
            self.logits = classifier(
                predictor.algorithm, known, predictor.finetuning
            )  # scaled images (1, m, C, H, W) -> (1, m, classes)
        shots = support.labelled().y.flatten().bincount(minlength=len(classes)).tolist()
        self.take(*predictor.calibration(len(classes), shots))
        self._known: Tensor | None = None

    def take(self, calibration: Calibration | None, how: str) -> None:
        """Divide logits by its temperature, and tell strangers by its threshold; `how` they were found."""
        self.calibration, self.calibrated = calibration, how
        self.temperature = calibration.temperature if calibration else 1.0

    def __call__(self, images: Iterable[Any]) -> Tensor:
        """The probability of each class for images as `Predictor.adapt` takes them: (m, classes), on the CPU.

        Of a method that sees all queries together, the others of `images` have a say in each.
        """
        images = list(images)
        if self.together and images:
            return self.of_pixels(self._whole(images))
        parts = [self.of_pixels(self.predictor.pixels(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.classes))

    def _whole(self, images: list[Any]) -> Tensor:
        """All images in one piece: as features, where that can be, of so many at a time that memory does not grow."""
        pieces = (self.predictor.pixels(images[i : i + BATCH]) for i in range(0, len(images), BATCH))
        return torch.cat([self.predictor.embedded(piece) if self.predictor.backbone else piece for piece in pieces])

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """The same, for images as `Predictor.pixels` makes them, or features as `Predictor.embedded` does."""
        return self.judged(pixels)[0]

    @property
    def together(self) -> bool:
        """Whether the method looks at all queries together, so that they must not come in pieces."""
        return self.predictor.algorithm.sees_queries

    @property
    def tells_unknown(self) -> bool:
        """Whether validation, or the support set, has shown how to tell what is of no class."""
        return self.calibration is not None and self.calibration.score is not None

    @property
    def fewest_alarms(self) -> float:
        """The smallest share of false alarms that so many known pictures can show."""
        return 1 / (self.calibration.known + 1) if self.calibration and self.calibration.known else 0.0

    @torch.no_grad()
    def judged(self, pixels: Tensor, rate: float | None = None) -> tuple[Tensor, list[tuple[float | None, bool]]]:
        """The probability of each class, for images as `Predictor.pixels` makes them, or features.

        And for each image the probability that it is of none of them, where half the images are, and whether that is
        the answer, for a `rate` of known images that are called unknown; (None, False) where nobody asked or can tell.
        """
        with taking_features(self.predictor.backbone, pixels.ndim == 2):
            logits = self.logits(self.predictor.seen(pixels).unsqueeze(0)).squeeze(0).cpu()
        shares, kept = (logits / self.temperature).softmax(-1), self.calibration
        if rate is None or kept is None or kept.score is None:
            return shares, [(None, False)] * len(shares)
        known = score(kept.score, logits, kept.temperature)
        chance = (kept.slope * known + kept.intercept).sigmoid().tolist()
        return shares, list(zip(chance, (known < threshold(kept.levels, rate)).tolist(), strict=True))

    @torch.no_grad()
    def nearest(self, pixels: Tensor, classes: Sequence[int]) -> list[tuple[int, int]]:
        """For each image the numbers of two support images by embedding: the nearest of all, and of a class.

        `classes` has the number of the class for each image. Nothing is adapted in the embedding.
        """
        embed, backbone = self.predictor.algorithm.embed, self.predictor.backbone
        if self._known is None:
            with taking_features(backbone, self.support.x.ndim == 3):
                self._known = embed(self.support.x)
        with taking_features(backbone, pixels.ndim == 2):
            queries = embed(self.predictor.seen(pixels).unsqueeze(0), self.support.x)
        far = torch.cdist(queries, self._known).squeeze(0)  # (m, support images)
        far = far.masked_fill(self.support.y == IGNORED, torch.inf)
        others = self.support.y != torch.tensor(classes, device=far.device)[:, None]
        return list(zip(far.argmin(-1).tolist(), far.masked_fill(others, torch.inf).argmin(-1).tolist(), strict=True))


@contextmanager
def taking_features(backbone: Backbone | None, features: bool) -> Iterator[None]:
    """While inside, features pass through the backbone unchanged; with `features` false nothing changes."""
    if not backbone:
        yield
        return
    backbone.precomputed = features
    try:
        yield
    finally:
        backbone.precomputed = False
