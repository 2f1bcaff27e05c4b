"""What the documentation shows is what happens: its examples run, its transcripts are repeated where that is quick."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fsl_cli.cli import run
from fsl_cli.data.sources.glyphs import draw
from fsl_cli.errors import UserError
from fsl_cli.files import read_json
from fsl_cli.settings.registry import choices

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = DOCS / "examples"
SCRIPT = runpy.run_path(str(DOCS.parent / "scripts" / "transcripts.py"))
PAGES = {page: page.read_text() for page in SCRIPT["PAGES"]}
SMALL = [
    "data.train_classes=60", "data.val_classes=25", "data.test_classes=25", "train_way=10", "train_query=3", "query=5",
    "backbone.filters=16", "steps=40", "val_every=40", "val_episodes=4", "episodes=20", "trainer=cpu",
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_a_page_shows_its_transcripts_and_examples_as_they_are(page: Path) -> None:
    text = PAGES[page]
    assert SCRIPT["fill"](text) == text, "python scripts/transcripts.py help fills the pages"
    assert len(SCRIPT["BLOCK"].findall(text)) == len(re.findall("<!-- ?(?:transcript|example)", text))
    assert "--8" not in text  # a snippet, which only the built site would show


def test_every_transcript_example_and_picture_is_made_by_the_script_and_shown() -> None:
    text = "\n".join(PAGES.values())
    shown = {(kind, name) for kind, name, _ in SCRIPT["BLOCK"].findall(text)}
    transcripts = {path.stem for path in (DOCS / "transcripts").iterdir()}
    assert transcripts == {name for kind, name in shown if kind == "transcript"} == set(SCRIPT["COMMANDS"])
    examples = {
        path.relative_to(EXAMPLES).as_posix() for suffix in ("py", "yaml") for path in EXAMPLES.rglob(f"*.{suffix}")
    }
    assert examples == {name for kind, name in shown if kind == "example"}
    pictures = {path.name for path in (DOCS / "pictures").iterdir()}
    assert pictures == set(re.findall(r"pictures/([\w-]+\.(?:png|svg))", text))
    assert pictures - {"house.svg"} == set(re.findall(r"out=@(\S+)", " ".join(SCRIPT["COMMANDS"].values())))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "show" in name else ()) for name in SCRIPT["QUICK"]]
)
def test_a_quick_transcript_is_what_the_command_says_now(name: str, tmp_path: Path) -> None:
    said = SCRIPT["transcript"](SCRIPT["QUICK"][name], tmp_path)
    assert (DOCS / "transcripts" / f"{name}.txt").read_text() == said, f"python scripts/transcripts.py {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_a_link_leads_somewhere_in_a_clone(page: Path) -> None:
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)", PAGES[page]))
    missing = {link for link in links if not (page.parent / link).exists()}
    if page.name == "index.md" and page.parent != DOCS:  # these say that `make docs` makes the pages
        missing -= {f"{name}.md" for name in choices("algo" if page.parent.name == "algorithms" else "data")}
        assert "`make docs` makes" in PAGES[page]
    assert not missing


@pytest.mark.parametrize(("group", "folder"), [("algo", "algorithms"), ("data", "data")])
def test_every_choice_has_its_line_and_every_algorithm_its_equations(group: str, folder: str) -> None:
    linked = set(re.findall(r"\]\((\w+)\.md\)", (DOCS / folder / "index.md").read_text()))
    assert linked == set(choices(group))
    if group == "algo":
        assert set(yaml.safe_load((DOCS / "equations.yaml").read_text())) == set(choices("algo"))


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the algorithm that the documentation adds."""
    monkeypatch.syspath_prepend(EXAMPLES)
    typed = ["--config-dir", str(EXAMPLES / "conf"), "algo=nearest_l1", "trust=[nearest_l1]"]
    run(["train", *typed, f"out={tmp_path}", *SMALL])
    (folder,) = tmp_path.glob("nearest_l1-glyphs-5w1s/*")
    return folder


def test_the_algorithm_of_ten_minutes_learns_and_its_run_is_put_to_use(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_json(example / "result.json")["mean"] > 0.5  # chance is 0.2
    run(["test", f"run={example}", "way=20"])  # trusted by the word of its training
    assert "20-way 1-shot test accuracy" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"temprature.*Did you mean"):
        run(
            [
                "check",
                "--config-dir",
                str(EXAMPLES / "conf"),
                "algo=nearest_l1",
                "trust=[nearest_l1]",
                "algo.temprature=2",
            ]
        )


@pytest.fixture
def page_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of the page on parts of one's own, where its files and pictures are."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(EXAMPLES)
    x = np.concatenate([draw(0, number, 8, 16)[:, 0] for number in range(30)])
    np.savez(tmp_path / "images.npz", x=x, y=np.repeat([f"class {number:02d}" for number in range(30)], 8))
    text = (DOCS / "your-own.md").read_text().replace("images.npz", str(tmp_path / "images.npz"))
    lines = re.findall(r"^(?:.*`)?fsl ([^#`\n]+)", text, re.MULTILINE)
    return [shlex.split(line) for line in lines if "RUN" not in line and "=…" not in line]


def test_the_commands_for_parts_of_ones_own(page_commands: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert len(page_commands) == 4
    for verb, *words in page_commands:
        run([verb, *words] if verb != "train" else ["check", *words, "query=5", "train_query=5"])
    assert capsys.readouterr().out.count("fit together") == 3
    with pytest.raises(UserError, match=r"data.root: arrays needs it. Type data.root=VALUE"):
        run(["check", "--config-dir", "conf", "data=arrays", "trust=[arrays]"])


@pytest.mark.slow
def test_parts_of_ones_own_learn(page_commands: list[list[str]], tmp_path: Path) -> None:
    small = ["steps=60", "query=5", "train_query=5", "val_every=60", "val_episodes=10", "episodes=50", "trainer=cpu"]
    for verb, *words in page_commands[:2]:
        out = tmp_path / words[4]
        run([verb, *words, *small, "optim.lr=1e-3", f"out={out}"])
        [folder] = out.glob("*/*")
        assert read_json(folder / "result.json")["mean"] > 0.3  # chance is 0.2
        run(["test", f"run={folder}", "query=3"])  # trusted by the word of its training


def test_pages_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "episode.py"))
    assert re.fullmatch(r"[3-7]\d\.\d% of 300 queries, untrained\n", capsys.readouterr().out)
    run(["train", f"out={tmp_path}", *SMALL])
    (folder,) = tmp_path.glob("protonet-glyphs-5w1s/*")
    for name, shade in (("dark", 20), ("light", 230)):
        (tmp_path / "known" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (40, 30), shade + i).save(tmp_path / "known" / name / f"{i}.png")
    new = [str(tmp_path / "known" / name / "1.png") for name in ("light", "dark")]
    monkeypatch.setattr(sys, "argv", ["classify.py", str(folder), str(tmp_path / "known"), *new])
    capsys.readouterr()
    runpy.run_path(str(EXAMPLES / "classify.py"))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["light", "dark"]


def test_the_table_of_settings_is_the_schemas() -> None:
    found = runpy.run_path(str(DOCS.parent / "scripts" / "settings_table.py"))
    text = (DOCS / "settings.md").read_text()
    assert text == found["filled"](text), "python scripts/settings_table.py writes it"
    assert "| `way` | a whole number, at least 1 or a list of whole numbers |" in text
