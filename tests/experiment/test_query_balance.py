"""query_balance from what is typed to what is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsl_cli.cli import run
from fsl_cli.errors import UserError

SMALL = (
    "data=glyphs", "data.train_classes=12", "data.val_classes=6", "data.test_classes=6", "data.size=16", "steps=0",
    "episodes=6", "query=3", "backbone.filters=8", "trainer=cpu",
)  # fmt: skip


def test_results_say_how_queries_were_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["test", "algo=bdcspn", *SMALL, "query_balance=dirichlet", f"out={tmp_path}"])
    (found,) = tmp_path.glob("*/*/result.json")
    result = json.loads(found.read_text())
    assert (result["inference"], result["query_balance"], result["query"]) == ("transductive", "dirichlet", 3)
    assert "3 queries a class on average, shares by Dirichlet(2)" in " ".join(capsys.readouterr().out.split())
    run(["test", f"run={found.parent}", "query_balance=even"])
    assert "Dirichlet" not in capsys.readouterr().out
    (other,) = found.parent.glob("tests/*/result.json")
    assert json.loads(other.read_text())["query_balance"] == "even"


def test_where_there_is_nothing_to_spread_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="type query=15"):
        run(["test", "algo=bdcspn", *SMALL, "query=all", "query_balance=dirichlet", f"out={tmp_path}"])
    with pytest.raises(UserError, match="have no classes"):
        run(["train", "algo=maml", "data=sinusoid", "query_balance=dirichlet", "steps=1", f"out={tmp_path}"])
