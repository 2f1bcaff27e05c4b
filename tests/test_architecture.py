"""The design's arrows: who may import whom, read off the source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fsl_cli"
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = {  # room -> the rooms of ours that it may import
    "errors": set(),
    "episodes": set(),
    "stats": set(),
    "allocator": set(),
    "schedule": set(),
    "backbones": {"backbones", "errors"},
    "solvers": set(),
    "inner_loop": {"episodes"},
    "algorithms": {"algorithms", "backbones", "inner_loop", "solvers", "episodes", "errors"},
    "data": {"data", "episodes", "errors"},
    "learner": {"algorithms", "episodes", "stats"},
    "similarity": {"algorithms", "backbones", "episodes", "errors", "stats"},
    "results": {"errors", "stats", "__init__"},
    "config": {"errors"},
    "binding": {"config", "errors", "backbones"},
    "checkpoints": {"backbones", "errors", "learner"},
    "assemble": {"algorithms", "backbones", "binding", "checkpoints", "data", "learner", "errors", "results"},
    "predictor": {"algorithms", "assemble", "data", "episodes", "errors", "results", "__init__"},
    "export": {"backbones", "errors", "predictor", "__init__"},
    "callbacks": {"results", "stats"},
    "sweeps": {"results"},
    "search": {"callbacks", "errors"},
    "screen": {"results", "sweeps"},
    "report": {"report", "results", "screen", "stats", "errors", "__init__"},
    "features": {"backbones", "data", "learner", "results"},
    "testing": {"assemble", "checkpoints", "data", "features", "errors", "results", "stats", "__init__"},
    "tracking": {"binding", "callbacks", "results", "screen"},
    "training": {
        "allocator", "assemble", "callbacks", "checkpoints", "data", "errors", "features", "learner",
        "results", "screen", "testing", "tracking",
    },
    "commands": {
        "commands", "config", "backbones", "binding", "assemble", "checkpoints", "learner", "data", "results", "stats",
        "callbacks", "__init__", "allocator", "episodes", "errors", "export", "inner_loop", "predictor", "report",
        "screen", "search", "similarity", "sweeps", "testing", "training",
    },
    "completion": {"commands"},
    "cli": {"commands", "completion", "config", "errors", "__init__"},
    "__init__": {"predictor"},
    "__main__": {"cli"},
}  # fmt: skip
LIBRARIES = {  # library -> the rooms that may import it
    "hydra": {"config", "commands"},
    "omegaconf": {"config", "commands"},
    "pytorch_lightning": {
        "learner",
        "data",
        "callbacks",
        "training",
        "testing",
        "binding",
        "features",
        "tracking",
    },
    "rich": {"screen", "callbacks", "commands", "data"},
    "matplotlib": {"screen", "commands"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "fsl_cli":
            assert (rest[0] if rest else "__init__") in ROOMS[room(path)] | {room(path)}, f"{path.name} imports {name}"
        if top in LIBRARIES:
            assert room(path) in LIBRARIES[top], f"{path.name} imports {name}"


def test_no_algorithm_imports_a_backbone_of_its_own() -> None:
    for path in (PACKAGE / "algorithms").glob("*.py"):
        taken = {name for name in imports(path) if name.startswith("fsl_cli.backbones")}
        assert taken <= {"fsl_cli.backbones.base", "fsl_cli.backbones.norm"}, path.name


def test_algorithms_are_abstract_or_final() -> None:
    for path in (PACKAGE / "algorithms").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ClassDef)
                and path.name not in ("base.py", "network.py", "supervised.py")
                and not node.name.startswith("_")
            ):
                assert [base.id for base in node.bases if isinstance(base, ast.Name)] == ["Algorithm"], node.name


def test_python_never_names_a_yaml_but_the_main_one() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"\S+\.yaml", node.value)
            ):
                assert node.value in ("train.yaml", "config.yaml", "*.yaml", "*/*.yaml", ".yaml", "published.yaml"), (
                    f"{path.name}: {node.value}"
                )
