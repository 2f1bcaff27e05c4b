"""How fsl is built, read off its source: the rooms, the floors that they stand on, and who imports whom.

A room is a folder of fsl_cli/, or a file that stands beside the folders; the package's faces, __init__ and __main__,
are none. An arrow is an import, wherever in a file it stands. scripts/house_picture.py draws and counts what is read
here; tests/test_architecture.py holds it to the rules.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import networkx

PACKAGE = Path(__file__).resolve().parents[1] / "fsl_cli"

FLOORS = (  # from the ground up; a room imports from the floors below it, and within itself
    {"episodes", "errors", "ranges", "stats"},
    {"backbones", "data", "files"},
    {"algorithms", "settings"},
    {"pictures", "runs"},
    {"experiment"},
    {"doctor", "report", "reproduce", "sweeps", "use"},
    {"commands"},
    {"cli"},
)
FACES = {"__init__", "__main__"}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every file by its name in an import: fsl_cli.data.store -> fsl_cli/data/store.py."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(path: Path, package: Path = PACKAGE) -> str:
    """The folder of the package that a file stands in, or the file itself where it stands in none."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imports(source: str, known: Mapping[str, Path]) -> set[str]:
    """What a source file imports: modules, and for `from package import name` the module of `known` that is meant.

    f"fsl_cli.commands.{verb}", which is how modules are named that are imported when called, means the package.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module or "" for name in inside}
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            package = str(node.values[0].value).rpartition(".")[0]
            found |= {package} & known.keys()
    return found


def file_arrows(package: Path = PACKAGE) -> networkx.DiGraph:
    """The files of a package, with an arrow from each to those that it imports.

    None starts at the package's own __init__: what it offers (`from fsl_cli import load_run`) is a door to the house.
    """
    known = modules(package)
    arrows = networkx.DiGraph()
    arrows.add_nodes_from(known)
    for name, path in known.items():
        if name != package.name:
            arrows.add_edges_from((name, each) for each in imports(path.read_text(), known) if each in known)
    return arrows


def room_arrows(package: Path = PACKAGE) -> networkx.DiGraph:
    """The rooms of a package, with an arrow from each to those that one of its files imports from."""
    home = {name: room(path, package) for name, path in modules(package).items()}
    arrows = networkx.DiGraph()
    arrows.add_nodes_from(home.values())
    arrows.add_edges_from((home[a], home[b]) for a, b in file_arrows(package).edges if home[a] != home[b])
    arrows.remove_nodes_from(FACES)
    return arrows


def circles(arrows: networkx.DiGraph) -> list[list[str]]:
    """Groups of files or rooms that import each other, directly or through others."""
    return [sorted(group) for group in networkx.strongly_connected_components(arrows) if len(group) > 1]
