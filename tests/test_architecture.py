"""The house: who may import whom, and where the large libraries may be used; scripts/house.py says what is where."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest
from house import FACES, FLOOR, PACKAGE, circles, file_arrows, imports, modules, room
from house_picture import PICTURE, picture
from networkx import DiGraph

FORWARDED = {"fsl_cli.use.predictor"}  # `from fsl_cli import load_run` is a door to the house, not a room of it
LIBRARIES = {  # library -> the rooms that may import it
    "hydra": {"settings", "sweeps"},
    "omegaconf": {"settings", "sweeps"},
    "pytorch_lightning": {"experiment"},
    "lightning_fabric": {"experiment"},
    "rich": {"pictures", "commands"},
    "matplotlib": {"pictures", "commands"},
}
MODULES = modules()
FILES = list(MODULES.values())
arrows = cache(file_arrows)


@cache
def taken(path: Path) -> set[str]:
    """What a file imports."""
    return imports(path.read_text(), MODULES)


def runs_up(sources: Mapping[str, Iterable[str]]) -> list[str]:
    """The arrows between rooms that do not run down."""
    wrong = []
    for source, targets in sources.items():
        here = room(MODULES[source])
        for target in sorted(targets):
            there = room(MODULES[target])
            if here != there and not {here, there} & FACES and FLOOR[there] >= FLOOR[here]:
                wrong.append(f"{source} imports {target}: {there} is not below {here}")
    return wrong


def test_every_file_stands_on_a_floor() -> None:
    assert {room(path) for path in FILES} - FACES == set(FLOOR)


def test_every_room_says_what_belongs_there() -> None:
    for path in (path for path in FILES if path.name == "__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text and len(text) > 40, f"{path}: what belongs here, and what may not?"


def test_no_arrow_runs_up() -> None:
    assert not runs_up(arrows().adj), "\n".join(runs_up(arrows().adj))


def test_no_circle() -> None:
    assert not circles(arrows()), "\n".join(map(str, circles(arrows())))


def test_the_package_itself_is_a_door() -> None:
    assert taken(PACKAGE / "__init__.py") & MODULES.keys() == FORWARDED


def test_the_tests_of_this_file_see_what_is_wrong() -> None:
    assert runs_up({"fsl_cli.data.store": ["fsl_cli.experiment.learner"]})
    assert runs_up({"fsl_cli.runs.records": ["fsl_cli.pictures.console"]})
    assert not runs_up({"fsl_cli.experiment.learner": ["fsl_cli.data.store"]})
    assert circles(DiGraph({"a": ["b"], "b": ["a"]})) == [["a", "b"]]
    assert circles(DiGraph({"a": ["b"], "b": ["c"], "c": ["b"]})) == [["b", "c"]]
    assert not circles(DiGraph({"a": ["b", "c"], "b": ["c"]}))
    assert imports("def f():\n    from fsl_cli.data import store", MODULES) == {"fsl_cli.data.store"}
    assert "fsl_cli.commands" in imports('import_module(f"fsl_cli.commands.{verb}")', MODULES)


def test_the_picture_of_the_house_is_current() -> None:
    assert PICTURE.read_text() == picture(), "the rooms have changed: python scripts/house_picture.py"


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    for path in FILES:
        own = {name.split(".")[0] for name in taken(path)}
        assert library not in own or room(path) in LIBRARIES[library], f"{path} imports {library}"


# Names of what a configuration, or a part of one, is called; and attributes and methods that give its plain values.
SETTINGS = re.compile(r"(\w+_)?(settings|config|composed|node|schedule)")
PARTS = {"algo", "augment", "backbone", "data", "logger", "optim", "schedule", "trainer", "part"}
PLAIN = {"values", "choices", "plain"}
BUILT = {"algorithm", "backbone", "located"}  # what has typed attributes of its own


def called(node: ast.expr) -> str:
    """The last name of an expression: x.algo -> algo, compose(words) -> compose."""
    inner = node.func if isinstance(node, ast.Call) else node
    return getattr(inner, "attr", getattr(inner, "id", ""))


def asked_by_a_word(source: str) -> list[str]:
    """Where a source file asks a configuration, or what was built from it, by a word that mypy cannot check.

    That is settings["way"], settings.algo.get("inner_lr"), "size" in settings.data.values, and the same of a name that
    was given such a value; and getattr(algorithm, "test_steps") or hasattr.
    """
    tree, kept = ast.parse(source), set[str]()

    def is_settings(node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in kept or bool(SETTINGS.fullmatch(node.id))
        if isinstance(node, ast.Attribute):
            of_settings = is_settings(node.value) or called(node.value) in {*PARTS, "compose"}
            return node.attr == "settings" or (node.attr in {*PARTS, *PLAIN} and of_settings)
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Attribute) and node.func.attr in PLAIN and is_settings(node.func)
        return isinstance(node, ast.Subscript) and is_settings(node.value)

    def is_word(node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, str)

    def is_wrong(node: ast.AST) -> bool:
        match node:
            case ast.Subscript(value, key):
                return is_word(key) and is_settings(value)
            case ast.Compare(word, [ast.In() | ast.NotIn()], [values]):
                return is_word(word) and is_settings(values)
            case ast.Call(ast.Attribute(values, "get" | "pop"), [word, *_]):
                return is_word(word) and (is_settings(values) or called(values) in PARTS)
            case ast.Call(ast.Name("getattr" | "hasattr"), [thing, word, *_]):
                names = {called(each) for each in ast.walk(thing) if isinstance(each, ast.expr)}
                return is_word(word) and (bool(names & BUILT) or any(map(SETTINGS.fullmatch, names)))
        return False

    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], value) if is_settings(value):
                kept.add(name)
    return [f"line {node.lineno}: {ast.unparse(node)}" for node in ast.walk(tree) if is_wrong(node)]


WORDS = (
    'settings["way"]', 'run.settings.algo.get("inner_lr")', '"size" in settings.data.values', 'part.get("name")',
    'compose(words).values["out"]', 'config.choices["algo"]', 'run.settings.plain()["trainer"]["devices"]',
    'inner = settings.algo.values\ninner["first_order"]', 'getattr(run.algorithm, "test_steps", None)',
    'getattr(located(part), "takes", ())', 'hasattr(algorithm, "backbone")', 'getattr(settings, "way")',
)  # fmt: skip


def test_only_the_room_of_settings_asks_them_by_a_word() -> None:
    """Elsewhere mypy sees what is asked: Settings' attributes, `asked(part, OfData)`, and those of what was built."""
    rooms = [path for path in FILES if room(path) != "settings"]
    found = [f"{path}, {line}" for path in rooms for line in asked_by_a_word(path.read_text())]
    assert not found, "\n".join(found)
    assert all(map(asked_by_a_word, WORDS)), [word for word in WORDS if not asked_by_a_word(word)]


def test_no_algorithm_imports_a_backbone_of_its_own() -> None:
    for path in (PACKAGE / "algorithms").rglob("*.py"):
        own = {name for name in taken(path) if name.startswith("fsl_cli.backbones")}
        assert own <= {"fsl_cli.backbones.base", "fsl_cli.backbones.mode", "fsl_cli.backbones.norm"}, path.name


def test_algorithms_are_abstract_or_final() -> None:
    for path in (PACKAGE / "algorithms").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.ClassDef)
                and path.name
                not in (
                    "base.py",
                    "network.py",
                    "supervised.py",
                    "inner_loop.py",
                    "over_tasks.py",
                    "film.py",
                    "attack.py",
                    "finetuning.py",
                )
                and not node.name.startswith("_")
            ):
                assert [base.id for base in node.bases if isinstance(base, ast.Name)] == ["Algorithm"], node.name


def test_a_folder_of_tests_is_a_room_and_runs_by_itself() -> None:
    tests = PACKAGE.parent / "tests"
    folders = {path.relative_to(tests).parts[0] for path in tests.rglob("*/test_*.py")}
    assert folders <= {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for path in tests.rglob("*.py"):
        for name in taken(path):
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
                assert node.value in (
                    "train.yaml",
                    "config.yaml",
                    "my.yaml",
                    "*.yaml",
                    "*/*.yaml",
                    ".yaml",
                    "published.yaml",
                    "rows.yaml",
                ), f"{path.name}: {node.value}"


def test_text_is_utf_8_in_whatever_country() -> None:
    """What a machine's language makes of text without an `encoding` is not what read_text reads."""
    for path in FILES:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
            given = {keyword.arg for keyword in call.keywords}
            if method in ("read_text", "write_text") or "text" in given:  # text=True of a process
                assert "encoding" in given, f"{path}:{call.lineno}"


def test_files_of_tests_have_names_of_their_own() -> None:
    """Two of one name are one module to pytest, which collects whichever it meets first."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
