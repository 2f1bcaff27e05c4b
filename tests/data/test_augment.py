"""Augmentation: torchvision's result image by image, its own parameters for each, from the episode's number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from fsl_cli.data.augment import COUNT, Augment, boxes, numbers

FULL = Augment(crop=0.08, flip=True, jitter=0.4)
PADDED = Augment(padding=8, flip=True, jitter=0.4)
PUBLISHED = [12638891, 12944491, 5488961, 1993903]  # of 2**24
MANY = np.concatenate([numbers(0, "train", index, 100) for index in range(200)])  # (20000, COUNT)


def uniform(count: int, index: int = 0) -> Tensor:
    return torch.from_numpy(numbers(0, "train", index, count))


def pictures(count: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


def by_torchvision(augment: Augment, image: Tensor, row: Tensor) -> Tensor:
    if augment.crop is not None:
        left, top, width, height = boxes(augment.crop, row[None], *image.shape[1:])[:, 0].int().tolist()
        image = tv.resized_crop(image, top, left, height, width, list(image.shape[1:]), antialias=False)
    if augment.padding is not None:
        left, top = (row[2:4] * (2 * augment.padding + 1)).floor().int().tolist()
        image = tv.crop(tv.pad(image, [augment.padding]), top, left, *image.shape[1:])
    if augment.flip and row[4] < 0.5:
        image = tv.horizontal_flip(image)
    brightness, contrast, saturation = (1 - augment.jitter + 2 * augment.jitter * row[5:]).tolist()
    image = tv.adjust_contrast(tv.adjust_brightness(image, brightness), contrast)
    return tv.adjust_saturation(image, saturation) if len(image) == 3 else image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (84, 84), (224, 224), (40, 64)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize(
    "augment",
    [Augment(crop=0.08), Augment(crop=0.9), Augment(padding=3), Augment(flip=True), Augment(jitter=0.4), FULL, PADDED],
)
def test_every_image_is_what_torchvision_makes_of_it(
    augment: Augment, size: tuple[int, int], channels: int, dtype: torch.dtype, tolerance: float
) -> None:
    pixels, rows = pictures(12, channels, *size, dtype), uniform(12)
    before = pixels.clone()
    result = augment.apply(pixels, rows)
    expected = torch.stack([by_torchvision(augment, image, row) for image, row in zip(pixels, rows, strict=True)])
    assert result.dtype == dtype
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=0)  # borders too
    assert (result - pixels).abs().max() > 0.1
    assert torch.equal(pixels, before)


def test_each_image_has_parameters_of_its_own() -> None:
    pixels, rows = pictures(1, 3, 32, 32).expand(16, -1, -1, -1), uniform(16)
    result = FULL.apply(pixels, rows)
    distances = torch.cdist(result.flatten(1), result.flatten(1)) + torch.eye(16)
    assert distances.min() > 0.5
    alone = torch.cat([FULL.apply(pixels[:1], row[None]) for row in rows])
    torch.testing.assert_close(result, alone)


def test_what_is_not_asked_for_changes_nothing() -> None:
    pixels, rows = pictures(8, 3, 33, 33), uniform(8)
    assert Augment().apply(pixels, rows) is pixels
    assert torch.equal(Augment(crop=1.0).apply(pixels, rows), pixels)
    flipped = Augment(flip=True).apply(pixels, rows)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(flipped, pixels, strict=True))
    nearly = Augment(crop=1 - 1e-9).apply(pixels, rows)  # resampled, from the whole image
    torch.testing.assert_close(nearly, pixels, atol=1e-5, rtol=0)


def test_numbers_are_a_function_of_seed_split_and_index() -> None:
    streams = [numbers(seed, split, i, 4) for seed in (0, 1) for split in ("train", "val") for i in (0, 1)]
    again = [numbers(seed, split, i, 9) for seed in (0, 1) for split in ("train", "val") for i in (0, 1)]
    assert all(np.array_equal(a, b[:4]) for a, b in zip(streams, again, strict=True))  # the count changes no row
    assert len(np.unique(streams)) == 8 * 4 * COUNT
    assert (numbers(0, "train", 0, 1)[0, :4] * 2**24).tolist() == PUBLISHED  # the same in every version
    pixels = pictures(4, 3, 28, 28)
    assert torch.equal(FULL.apply(pixels, uniform(4)), FULL.apply(pixels, uniform(4)))
    assert not torch.allclose(FULL.apply(pixels, uniform(4)), FULL.apply(pixels, uniform(4, index=1)), atol=0.1)


def distance_from_uniform(values: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: 0.0115 is exceeded once in a hundred times by 20000 uniform values."""
    return float(abs(np.sort(values) - (np.arange(len(values)) + 0.5) / len(values)).max())


def test_numbers_are_uniform_and_independent() -> None:
    assert MANY.dtype == np.float64
    assert MANY.min() >= 0
    assert MANY.astype(np.float32).max() < 1
    assert max(distance_from_uniform(column) for column in MANY.T) < 0.0115
    assert abs(np.corrcoef(MANY.T) - np.eye(COUNT)).max() < 0.03


def test_crops_and_flips_are_distributed_as_said() -> None:
    left, top, width, height = boxes(0.08, torch.from_numpy(MANY), 1000, 1000).numpy()
    share, ratio = width * height / 1e6, width / height
    assert distance_from_uniform((share - 0.08) / 0.92) < 0.0115
    assert ratio.min() > 0.749
    assert ratio.max() < 1.335
    low = share < 0.7  # every ratio fits
    assert distance_from_uniform((np.log(ratio[low]) / np.log(4 / 3) + 1) / 2) < 0.0143  # 65% of the values
    high = (share > 0.9) & (share < 0.99)  # those that fit, so that the greatest is 1 / share
    assert distance_from_uniform((np.log(ratio[high]) / -np.log(share[high]) + 1) / 2) < 0.037  # a tenth
    for start, size in ((left, width), (top, height)):
        free = 1000 - size
        assert distance_from_uniform(start[free > 50] / free[free > 50]) < 0.0125  # 85% of the values
        assert (start == free)[free > 50].any()  # the last place too
    arrows = torch.tensor([0.0, 1.0]).expand(len(MANY), 1, 1, 2)
    shown = Augment(flip=True).apply(arrows, torch.from_numpy(MANY))[:, 0, 0, 0]
    assert shown.mean() == pytest.approx(0.5, abs=0.015)


def test_padded_crops_come_from_every_place_alike() -> None:
    image = torch.arange(1.0, 10.0).view(1, 1, 3, 3)  # nine pixels that tell where they were
    shifted = Augment(padding=2).apply(image.expand(len(MANY), -1, -1, -1), torch.from_numpy(MANY))[:, 0]
    middle = shifted[:, 1, 1]
    counts = torch.bincount(middle.long(), minlength=10)
    assert counts[1:].min() > len(MANY) / 25 * 0.85  # 25 places, of 9 of which the middle is a pixel
    assert counts[1:].max() < len(MANY) / 25 * 1.15
    assert set(shifted[middle == 1][0].flatten().tolist()) == {0, 1, 2, 4, 5}


@pytest.mark.parametrize("size", [(28, 28), (84, 84), (20, 60), (60, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smallest", [1e-4, 0.08, 0.9, 0.999])
def test_boxes_lie_within_the_image(smallest: float, dtype: torch.dtype, size: tuple[int, int]) -> None:
    edges = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1 - 2.0**-24])] * 4)  # all extremes of the four numbers
    left, top, width, height = boxes(smallest, torch.cat((edges, torch.from_numpy(MANY[:, :4]))).to(dtype), *size)
    assert min(left.min(), top.min()) == 0
    assert min(width.min(), height.min()) >= 1
    assert (left + width).max() == size[1]
    assert (top + height).max() == size[0]
    rounding = (0.5 * (width + height) + 0.25).max()  # pixels
    assert (width * height).min() >= smallest * size[0] * size[1] - rounding


def test_everything_happens_where_the_pixels_are() -> None:
    pixels = torch.empty(6, 3, 28, 28, device="meta")  # mixing devices raises, as on a GPU
    for augment in (FULL, PADDED):
        assert augment.apply(pixels, torch.empty(6, COUNT, device="meta", dtype=torch.float64)).shape == pixels.shape


@pytest.mark.parametrize(
    ("setting", "value"),
    [("crop", v) for v in (0.0, -0.1, 1.5, np.nan)] + [("jitter", v) for v in (-0.1, 2.0, np.nan)] + [("padding", 0)],
)
def test_values_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting}={value} must be .*such as [08]"):
        Augment(**{setting: value})


def test_two_kinds_of_crops_are_refused() -> None:
    with pytest.raises(ValueError, match="crop=0.5 and padding=4 both crop; one of them must be null"):
        Augment(crop=0.5, padding=4)
