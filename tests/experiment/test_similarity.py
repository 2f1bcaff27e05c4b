"""CKA against its definition and its invariances; which layers change while maml, anil and boil adapt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_algorithms import GRADIENT_NORMS, algorithm, episodes
from torch import Tensor

from fsl_cli.cli import run
from fsl_cli.episodes import Examples
from fsl_cli.errors import UserError
from fsl_cli.experiment.similarity import alignment, gram, similarity
from fsl_cli.stats import mean_interval


def cka(x: Tensor, y: Tensor) -> float:
    return float(alignment(gram(x), gram(y)))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_cka_is_the_formula_of_the_paper() -> None:
    """Kornblith et al. 2019, section 3: the Frobenius norm of Y'X over those of X'X and Y'Y, columns centred."""
    x, y = drawn(12, 5) + 3, drawn(12, 9) - 1
    x_c, y_c = x - x.mean(0), y - y.mean(0)
    norm = torch.linalg.matrix_norm
    expected = norm(y_c.T @ x_c).square() / (norm(x_c.T @ x_c) * norm(y_c.T @ y_c))
    assert cka(x, y) == pytest.approx(float(expected), rel=1e-12)
    assert 0 < cka(x, y) < 0.9


def test_cka_by_hand() -> None:
    """Four images, two units that agree on nothing; then one of two units in common."""
    one, two = torch.tensor([1.0, 1, -1, -1]), torch.tensor([1.0, -1, 1, -1])
    assert cka(one[:, None], two[:, None]) == 0
    assert cka(torch.stack([one, two], 1), one[:, None]) == pytest.approx(0.5**0.5)


def test_cka_is_exactly_1_for_the_same_and_does_not_see_rotation_scale_and_shift() -> None:
    x = drawn(10, 6)
    rotation = torch.linalg.qr(drawn(6, 6)).Q
    assert cka(x, x) == 1
    assert cka(x, 0.3 * x @ rotation + 7) == pytest.approx(1, abs=1e-12)
    assert cka(x, x @ torch.diag(torch.arange(1.0, 7, dtype=torch.float64))) < 0.999  # not any linear map


def layers(name: str, norm: str, count: int = 4) -> dict[str, tuple[float, float]]:
    torch.manual_seed(0)
    built = algorithm(name, norm)
    before = built.test_steps
    found = similarity(built, (episodes(1, "test", first=index) for index in range(count)))
    assert built.test_steps == before
    assert [layer for layer, *_ in found] == ["layer 1", "layer 2", "layer 3", "layer 4", "head"]
    return {layer: (mean, interval) for layer, mean, interval in found}


@pytest.mark.parametrize("norm", GRADIENT_NORMS)
def test_maml_and_boil_change_their_layers_and_anil_its_head_alone(norm: str) -> None:
    maml, anil, boil = (layers(name, norm) for name in ("maml", "anil", "boil"))
    assert all(anil[f"layer {number}"] == (1.0, 0.0) for number in range(1, 5))
    assert 0 < anil["head"][0] < 1
    for found in (maml, boil):
        assert all(0 < mean < 1 - 1e-7 for mean, _ in found.values())  # an untrained network changes little


def test_the_heads_similarity_is_the_mean_over_episodes_of_that_of_the_logits() -> None:
    built = algorithm("maml", "support").eval()
    values = []
    for index in range(3):
        episode = episodes(1, "test", first=index)
        logits = []
        for steps in (0, 3):
            built.test_steps = steps
            logits.append(built.adapt(episode.support)(episode.query.x)[0].detach())
        values.append(cka(*logits))
    found = similarity(built, (episodes(1, "test", first=index) for index in range(3)))
    assert found[-1][1:] == pytest.approx(mean_interval(values))


@pytest.mark.parametrize("norm", ["support", "transductive"])
def test_a_layer_is_compared_on_the_query_set(norm: str) -> None:
    """The first layer written out, its convolution as it was and as it is after the inner loop."""
    built, episode = algorithm("boil", norm).eval(), episodes(1, "test")
    (x, y), queries = episode.support, episode.query.x
    fast = built._fast_weights(built.net, dict(built.net.named_parameters()), Examples(x[0], y[0]))

    def first(weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        out = F.conv2d(torch.cat([x[0], queries[0]]), weight, padding=1)
        own = out[: x.shape[1]] if norm == "support" else out[x.shape[1] :]
        var, mean = torch.var_mean(own, (0, 2, 3), correction=0, keepdim=True)
        out = (out - mean) / (var + 1e-5).sqrt() * scale[:, None, None] + shift[:, None, None]
        return F.max_pool2d(out[x.shape[1] :].relu(), 2).flatten(1)

    names = [f"backbone.{name}" for name in ("convs.0.weight", "norms.0.weight", "norms.0.bias")]
    before, after = (first(*(values[name].detach() for name in names)) for values in (built.net.state_dict(), fast))
    (found, *_) = similarity(built, [episode])
    assert found.mean == pytest.approx(cka(before, after), abs=1e-6)
    assert found.mean < 0.999


TINY = [
    "data.train_classes=40", "data.val_classes=25", "data.test_classes=25", "query=3", "train_query=3", "norm=support",
    "backbone.filters=8", "steps=2", "val_every=2", "val_episodes=2", "episodes=3", "trainer=cpu", "test=false",
]  # fmt: skip


def trained(name: str, out: Path) -> Path:
    run(["train", f"algo={name}", f"out={out}", *TINY])
    (folder,) = out.glob("*/*/")
    return folder


def test_the_command_writes_and_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained("anil", tmp_path)
    capsys.readouterr()
    run(["test", f"run={folder}", "similarity=true"])
    (file,) = folder.glob("tests/*/similarity.json")
    assert (file.parent / "result.json").exists()
    found = json.loads(file.read_text())
    assert (found["measure"], found["episodes"]) == ("linear CKA", 3)
    assert found["layers"][0] == {"layer": "layer 1", "mean": 1.0, "interval": 0.0}
    head = found["layers"][-1]
    printed = capsys.readouterr().out
    assert "layer 4    1.0000 ± 0.0000" in printed
    assert f"head       {head['mean']:.4f} ± {head['interval']:.4f}" in printed


def test_it_is_refused_where_nothing_adapts(tmp_path: Path) -> None:
    folder = trained("protonet", tmp_path)
    with pytest.raises(UserError, match=r"algo=protonet adapts no weights.*algo=maml, anil or boil"):
        run(["test", f"run={folder}", "similarity=true"])
    assert not (folder / "tests").exists()
    with pytest.raises(UserError, match="similarity=yes is neither true nor false"):
        run(["test", f"run={folder}", "similarity=yes"])
