"""The house: which room stands on which floor, who may import whom, and where the large libraries may be used.

Everything is read off the source. An arrow is an import, wherever in a file it stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "fsl_cli"
FILES = sorted(PACKAGE.rglob("*.py"))

FLOORS = (  # from the ground up; a room imports from the floors below it, and within itself
    {"__init__", "episodes", "errors", "progress", "ranges", "stats", "text"},
    {"files"},
    {"backbones", "data"},
    {"algorithms", "settings"},
    {"runs"},
    {"pictures"},
    {"experiment"},
    {"doctor", "report", "sweeps", "use"},
    {"commands"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FORWARDED = {("__init__", "use")}  # `from fsl_cli import load_run` is a door to the house, not a room of it
LIBRARIES = {  # library -> the rooms that may import it
    "hydra": {"settings", "sweeps"},
    "omegaconf": {"settings", "sweeps"},
    "pytorch_lightning": {"experiment"},
    "lightning_fabric": {"experiment"},
    "rich": {"pictures", "commands"},
    "matplotlib": {"pictures", "commands"},
}


def room(path: Path) -> str:
    """The top folder of a file, or the file itself where it stands in none."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    """fsl_cli/data/store.py -> fsl_cli.data.store"""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imports(source: str) -> set[str]:
    """What a source file imports: modules, and for `from package import name` the module that is meant."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module or "" for name in inside}
    return found


ARROWS = {name: {each for each in imports(path.read_text()) if each in MODULES} for name, path in MODULES.items()}


def runs_up(sources: Mapping[str, Iterable[str]]) -> list[str]:
    """The arrows between rooms that do not run down."""
    wrong = []
    for source, targets in sources.items():
        here = room(MODULES[source])
        for target in sorted(targets):
            there = room(MODULES[target])
            if here != there and FLOOR[there] >= FLOOR[here] and (here, there) not in FORWARDED:
                wrong.append(f"{source} imports {target}: {there} is not below {here}")
    return wrong


def circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """Files that import each other, directly or through others, in the order of the way; empty where there are none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for target in sorted(arrows[name]):
            if found := walk(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := walk(name, []))), [])


def test_every_file_stands_on_a_floor() -> None:
    assert {room(path) for path in FILES} == set(FLOOR)


def test_every_room_says_what_belongs_there() -> None:
    for path in (path for path in FILES if path.name == "__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text and len(text) > 40, f"{path}: what belongs here, and what may not?"


def test_no_arrow_runs_up() -> None:
    assert not runs_up(ARROWS), "\n".join(runs_up(ARROWS))


def test_no_circle() -> None:
    own = {name: {each for each in targets if (name, each) not in {("fsl_cli", "fsl_cli.use.predictor")}}
           for name, targets in ARROWS.items()}  # fmt: skip
    assert not circle(own), " -> ".join(circle(own))


def test_the_tests_of_this_file_see_what_is_wrong() -> None:
    assert runs_up({"fsl_cli.data.store": ["fsl_cli.experiment.learner"]})
    assert runs_up({"fsl_cli.runs.records": ["fsl_cli.pictures.console"]})
    assert not runs_up({"fsl_cli.experiment.learner": ["fsl_cli.data.store"]})
    assert circle({"a": ["b"], "b": ["a"]}) == ["a", "b"]
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c"]
    assert not circle({"a": ["b", "c"], "b": ["c"], "c": []})
    assert imports("def f():\n    from fsl_cli.data import store") == {"fsl_cli.data.store"}


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    for path in FILES:
        taken = {name.split(".")[0] for name in imports(path.read_text())}
        assert library not in taken or room(path) in LIBRARIES[library], f"{path} imports {library}"


def test_no_algorithm_imports_a_backbone_of_its_own() -> None:
    for path in (PACKAGE / "algorithms").rglob("*.py"):
        taken = {name for name in imports(path.read_text()) if name.startswith("fsl_cli.backbones")}
        assert taken <= {"fsl_cli.backbones.base", "fsl_cli.backbones.mode", "fsl_cli.backbones.norm"}, path.name


def test_algorithms_are_abstract_or_final() -> None:
    for path in (PACKAGE / "algorithms").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ClassDef)
                and path.name not in ("base.py", "network.py", "supervised.py", "inner_loop.py", "over_tasks.py")
                and not node.name.startswith("_")
            ):
                assert [base.id for base in node.bases if isinstance(base, ast.Name)] == ["Algorithm"], node.name


def test_a_folder_of_tests_is_a_room_and_runs_by_itself() -> None:
    tests = PACKAGE.parent / "tests"
    folders = {path.relative_to(tests).parts[0] for path in tests.rglob("*/test_*.py")}
    assert folders <= {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for path in tests.rglob("*.py"):
        for name in imports(path.read_text()):
            own = not name.startswith("test_") or any((f / f"{name}.py").exists() for f in (path.parent, tests))
            assert own, f"{path} imports {name} of another folder: what several need stands in conftest.py"


def test_a_verb_is_one_file() -> None:
    from fsl_cli.cli import VERBS

    assert {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__"} == set(VERBS)


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
