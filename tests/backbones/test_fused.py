"""Fused norm and ReLU, in torch's own operations and compiled, against autograd's derivatives of the explicit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_cli.algorithms.over_tasks import mean_loss
from fsl_cli.backbones.compiled import block, fused, kernel
from fsl_cli.backbones.conv4 import Conv4
from fsl_cli.backbones.norm import Norm

N, C = 6, 5
FORMATS = [torch.channels_last, torch.contiguous_format]


@pytest.fixture(params=["kernel", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "torch":
        monkeypatch.setattr(kernel, "library", lambda: None)
    elif kernel.library() is None:
        pytest.skip("no C compiler here")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.param
    torch.set_num_threads(before)


def tensors(dtype: torch.dtype, form: torch.memory_format = torch.channels_last, size: int = 3) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randint(-9, 10, (N, C, size, size), generator=random).double() / 4 + 3  # few values, none on a kink
    w = torch.rand(C, generator=random, dtype=torch.float64) + 0.5
    b = torch.randn(C, generator=random, dtype=torch.float64)
    return [each.to(dtype).requires_grad_() for each in (x.contiguous(memory_format=form), w, b)]


def explicit(x: Tensor, w: Tensor, b: Tensor, k: int) -> Tensor:
    mean, var = x[:k].mean((0, 2, 3), keepdim=True), x[:k].var((0, 2, 3), correction=0, keepdim=True)
    return F.relu((x - mean) / (var + 1e-5).sqrt() * w.view(-1, 1, 1) + b.view(-1, 1, 1))


def derivatives(function: object, inputs: list[Tensor], k: int) -> list[Tensor]:
    """The value, its derivatives, and theirs, all weighted by fixed numbers."""
    random = torch.Generator().manual_seed(1)

    def weights(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=random, dtype=torch.float64).to(like.dtype)

    y = function(*inputs, k)  # type: ignore[operator]
    g = weights(y).requires_grad_()
    first = torch.autograd.grad(y, inputs, g, create_graph=True)
    second = torch.autograd.grad(first, [*inputs[:2], g], [weights(each) for each in first])
    return [y, *first, *second]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("k", [N, 2])
def test_both_derivatives_pass_torchs_check(k: int, form: torch.memory_format) -> None:
    inputs = tensors(torch.float64, form)
    assert torch.autograd.gradgradcheck(lambda x, w, b: fused.norm_relu(x, w, b, k)[0], inputs)


@pytest.mark.parametrize("size", [3, 1, 300])  # 300: sums of half a million numbers
@pytest.mark.parametrize("k", [N, 2])
@pytest.mark.parametrize("pool", [False, True])
def test_float32_is_autograds_result_to_its_precision(pool: bool, k: int, size: int, way: str) -> None:
    if size == 300 and way == "torch":
        pytest.skip("torch sums half a million numbers up in float32: wrong in the fourth digit")
    if pool and size == 1:
        pytest.skip("nothing to pool")
    found = derivatives(lambda *each: fused.norm_relu(*each, pool)[0], tensors(torch.float32, size=size), k)
    expected = derivatives(lambda *each: pooled(explicit(*each), pool), tensors(torch.float64, size=size), k)
    for own, other in zip(found, expected, strict=True):
        assert (own.double() - other).norm() <= 1e-5 * other.norm()


def pooled(y: Tensor, pool: bool) -> Tensor:
    return F.max_pool2d(y, 2) if pool else y


@pytest.mark.parametrize("channels", [5, 32, 64])  # the usual ones are compiled for themselves
@pytest.mark.parametrize("shape", [(4, 4), (5, 7), (2, 3), (3, 2)])
def test_pooling_leaves_odd_pixels_out(shape: tuple[int, int], channels: int) -> None:
    if kernel.library() is None:
        pytest.skip("no C compiler here")
    random = torch.Generator().manual_seed(0)
    x = torch.randn(N, channels, *shape, generator=random).contiguous(memory_format=torch.channels_last)
    w, b = torch.randn(2, channels, generator=random)  # also scales below zero
    found = derivatives(
        lambda *each: fused.norm_relu(*each, True)[0], [t.clone().requires_grad_() for t in (x, w, b)], 3
    )
    expected = derivatives(
        lambda *each: pooled(explicit(*each), True), [t.double().requires_grad_() for t in (x, w, b)], 3
    )
    for own, other in zip(found, expected, strict=True):
        assert (own.double() - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("pool", [False, True])
def test_bfloat16_is_float64s_result_to_three_digits(pool: bool) -> None:
    """Images, and their derivatives, are bfloat16; weights and statistics float32."""
    if kernel.library() is None:
        pytest.skip("no C compiler here")
    x, w, b = tensors(torch.float32, size=7)
    half = x.detach().bfloat16().requires_grad_()
    assert fused.usable(half, w, b)
    found = derivatives(lambda *each: fused.norm_relu(*each, pool)[0], [half, w, b], 4)
    expected = derivatives(lambda *each: pooled(explicit(*each), pool), tensors(torch.float64, size=7), 4)
    for own, other in zip(found, expected, strict=True):
        assert (own.double() - other).norm() <= 5e-3 * other.norm()
    assert [each.dtype for each in found[1:4]] == [torch.bfloat16, torch.float32, torch.float32]


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    if kernel.library() is None or not kernel.library().parallel():
        pytest.skip("no C compiler with OpenMP here")
    x, w, b = tensors(torch.float32, size=20)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(derivatives(lambda *each: fused.norm_relu(*each, True)[0], [x, w, b], 4))
    torch.set_num_threads(before)
    for own, other in zip(results[0] * 2, results[1] + results[2], strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("mode", ["support", "transductive", "running"])
@pytest.mark.parametrize("n_support", [0, 4])
def test_a_norm_is_the_same_fused_and_not(
    mode: str, n_support: int, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(3, 9, 16, 4, 4)

    def results() -> list[Tensor]:
        built = Norm(mode, 16)  # type: ignore[arg-type]
        leaf = x.clone().requires_grad_()
        y = built(leaf, n_support, relu=True)
        inputs = [leaf, built.weight, built.bias]
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), inputs)  # type: ignore[arg-type]
        return [y, *first, *second, *built.buffers()]

    found = results()
    monkeypatch.setattr(fused, "usable", lambda *tensors: False)
    for own, other in zip(found, results(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-10)


def test_conv4_trains_fused_where_it_has_no_blocks_and_adapts_under_vmap_explicitly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a class that never uses the fused step nor one that uses it under vmap would be noticed otherwise."""
    calls = []
    real = fused.norm_relu

    def counted(*each: Any) -> Any:
        calls.append(1)
        return real(*each)

    monkeypatch.setattr(block, "usable", lambda weight: False)
    monkeypatch.setattr(fused, "norm_relu", counted)
    backbone = Conv4(1, 16, "support", filters=8)
    backbone(torch.randn(1, 3, 1, 16, 16))
    assert len(calls) == 4
    torch.func.vmap(lambda x: backbone(x.unsqueeze(0)))(torch.randn(2, 3, 1, 16, 16))
    assert len(calls) == 4


def test_what_diverged_stays_visible(way: str) -> None:
    x, w, b = tensors(torch.float32)
    with torch.no_grad():
        x[1, 2, 0, 0] = float("nan")
        for pool in (False, True):
            y, *_ = fused.norm_relu(x, w, b, N, pool)
            assert y[:, 2].isnan().all()
            assert y[:, :2].isfinite().all()


def test_one_number_a_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="deviation"):
        fused.norm_relu(torch.ones(1, C, 1, 1), torch.ones(C), torch.ones(C), 1)


@pytest.mark.parametrize("trouble", ["no compiler", "broken compiler", "no cache", "switched off"])
def test_no_kernel_is_no_trouble(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho trouble >&2; exit 1\n")
    broken.chmod(0o755)
    if trouble == "no compiler":
        monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    if trouble == "broken compiler":
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if trouble == "switched off":
        monkeypatch.setenv("FSL_KERNEL", "0")
    cache = tmp_path / "a file" if trouble == "no cache" else tmp_path / "cache"
    if trouble == "no cache":
        cache.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert kernel.library.__wrapped__() is None  # not what was found before
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_several_processes_build_one_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel.library() is None:
        pytest.skip("no C compiler here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = "import fsl_cli.backbones.compiled.kernel as k; print(k.library() is not None)"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate()[0] for run in runs] == ["True\n"] * 3
    assert len(list((tmp_path / "fsl" / "kernels").iterdir())) == 1


def test_a_gradient_is_the_same_on_one_thread_and_several(one_by_one: None) -> None:
    backbone = Conv4(1, 28, "support", filters=8)
    x = torch.randn(4, 5, 1, 28, 28, generator=torch.Generator().manual_seed(0))

    def loss(own: torch.nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(own, parameters, (x.unsqueeze(0),)).square().mean()

    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        value = mean_loss(backbone, loss, dict(backbone.named_parameters()), x)
        found.append(torch.autograd.grad(value, list(backbone.parameters())))
    torch.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        torch.testing.assert_close(one, several, rtol=1e-4, atol=1e-6)
