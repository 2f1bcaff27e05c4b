"""A language model that came trained, by a stand-in for transformers: pooled over tokens, and used without a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from fsl_cli.backbones.sentences import Sentences
from fsl_cli.cli import run
from fsl_cli.data.texts import as_items, code_points
from fsl_cli.errors import UserError


class Tokens(dict[str, Tensor]):
    def to(self, device: torch.device) -> Tokens:
        return self


class Model(nn.Module):
    """Each token, a letter, has the vector of its number in the alphabet."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=26)
        self.weight = nn.Parameter(torch.eye(26))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.weight[input_ids])


def tokenize(texts: list[str], **asked: object) -> Tokens:
    assert asked == {"padding": True, "truncation": True, "return_tensors": "pt"}
    longest = max(map(len, texts))
    ids = torch.tensor([[(ord(letter) - 97) % 26 for letter in text.ljust(longest, "z")] for text in texts])
    there = torch.tensor([[i < len(text) for i in range(longest)] for text in texts]).long()
    return Tokens(input_ids=ids, attention_mask=there)


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(what: object, name: str) -> object:
        if name != "here/minilm":
            raise OSError(f"{name} is not a local folder and cannot be had")
        return what() if isinstance(what, type) else what

    module = ModuleType("transformers")
    module.AutoTokenizer = SimpleNamespace(from_pretrained=lambda name: loaded(tokenize, name))  # type: ignore[attr-defined]
    module.AutoModel = SimpleNamespace(from_pretrained=lambda name: loaded(Model, name))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)


def features(built: Sentences, *texts: str) -> Tensor:
    return built(code_points(torch.from_numpy(as_items(texts, 8)), torch.float32).unsqueeze(0))[0]


def test_features_are_the_mean_over_a_texts_own_tokens_or_the_first(transformers: None) -> None:
    mean = features(Sentences(1, 8, name="here/minilm"), "aab", "zzzzzz")
    torch.testing.assert_close(mean[0, :2], torch.tensor([2.0, 1.0]) / 5**0.5)  # the padding counts nothing
    first = features(Sentences(1, 8, name="here/minilm", pooling="first"), "baa", "zzzzzz")
    assert int(first[0].argmax()) == 1 and float(first[0].detach().norm()) == pytest.approx(1)


def test_what_cannot_be_had_is_told(transformers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="The weights of there/minilm cannot be had: .*backbone.name=FOLDER"):
        Sentences(1, 8, name="there/minilm")
    with pytest.raises(UserError, match="Type norm=none"):
        Sentences(1, 8, norm="support", name="here/minilm")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r'pip install "fsl-cli\[text\]"'):
        Sentences(1, 8, name="here/minilm")


def test_texts_are_predicted_without_a_run(
    transformers: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "known.csv").write_text("text,label\naaa,first\naab,first\nyyy,last\nyyx,last\n")
    (tmp_path / "new.csv").write_text("text,label\nba,first\nxy,last\n")
    words = [f"support={tmp_path / 'known.csv'}", f"query={tmp_path / 'new.csv'}", f"out={tmp_path / 'said'}"]
    run(["predict", *words, "backbone=sentences", "backbone.name=here/minilm"])
    assert "accuracy 100.00%, 2 of 2 texts whose class is known" in capsys.readouterr().out
