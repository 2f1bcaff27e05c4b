"""A hook of MkDocs: a page for each algorithm and data set, from its docstring, its YAMLs and the recorded results."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
FOLDERS = {"algo": "algorithms", "data": "data"}  # below docs/


USE = (
    "settings",
    "own-images",
    "own-texts",
    "own-features",
    "several",
    "transductive",
    "few-labels",
    "without-labels",
    "fine-tuning",
    "attacks",
    "distill",
    "predict",
    "report",
    "python",
    "export",
    "several-machines",
    "sweeps",
    "trackers",
    "speed",
)
NAV: list[Any] = [
    "index.md",
    "getting-started.md",
    {"Use": [f"{page}.md" for page in USE]},
    {"Algorithms": ["algorithms/index.md", "adding-an-algorithm.md", "your-own.md", "backbones.md"]},
    {"Data sets": ["data/index.md"]},
    {"Numbers": ["protocols.md", "measured.md"]},
    "how-fsl-is-built.md",
]  # with each algorithm and data set added to its section


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The order of the pages."""
    for section, group in (("Algorithms", "algo"), ("Data sets", "data")):
        pages = next(entry[section] for entry in NAV if section in entry and isinstance(entry, dict))
        pages += [f"{FOLDERS[group]}/{name}.md" for name in names(group)]
    config.nav = NAV
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those in docs/."""
    for group, page in (("algo", algorithm_page), ("data", data_page)):
        for name in names(group):
            files.append(File.generated(config, f"{FOLDERS[group]}/{name}.md", content=page(name)))
    return files


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def algorithm_page(name: str) -> str:
    """The idea, the equations, the settings, the recipes, and the numbers of one algorithm."""
    module, settings = docstrings("algo", name)
    title, idea = split_title(module)
    about = first_comments(CONF / "algo" / f"{name}.yaml")
    blocks = [
        f"# {about[0].partition(':')[0]}",
        f"{about[0]}.",
        "## Idea",
        f"{title}",
        paragraphs(idea),
        "## Equations",
        *equations(name),
        *claim(name),
        "## Settings",
        paragraphs(settings),
        yaml_block(CONF / "algo" / f"{name}.yaml"),
        "## Recipes",
        *recipes(name),
        "## Numbers",
        *numbers(name),
    ]
    return "\n\n".join(blocks) + "\n"


def data_page(name: str) -> str:
    """What a data set is, how its copy is found, its settings, and what was measured on it."""
    module, builder = docstrings("data", name)
    about = first_comments(CONF / "data" / f"{name}.yaml")
    blocks = [
        f"# {about[0].partition(':')[0]}",
        f"{about[0]}.",
        f"```\n{about[1]}\n```",
        paragraphs(module),
        "## Settings",
        paragraphs(builder),
        yaml_block(CONF / "data" / f"{name}.yaml"),
        "## Numbers",
        *measured([row for row in results() if row["data"] == name], "algorithm"),
        *reported([entry for entry in published() if entry["data"] == name], "algo"),
    ]
    return "\n\n".join(blocks) + "\n"


def docstrings(group: str, name: str) -> tuple[str, str]:
    """The docstring of the module that a YAML names, and that of its class or function."""
    module, _, part = target(group, name).rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    [own] = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == part]
    return ast.get_docstring(tree) or "", ast.get_docstring(own) or ""


def target(group: str, name: str) -> str:
    """The `_target_` of a YAML, or of the one in its defaults that it varies."""
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    own = content.get(group, content)
    if "_target_" in own:
        return own["_target_"]
    return target(group, next(entry for entry in content["defaults"] if isinstance(entry, str)))


def first_comments(path: Path) -> list[str]:
    """What the YAML is, and the command, from its first comments."""
    lines = [line[2:].strip() for line in path.read_text().splitlines() if line.startswith("# ")]
    return [line for line in lines if "@package" not in line]


def split_title(docstring: str) -> tuple[str, str]:
    """The first line of a module, its link made one, and the rest."""
    first, _, rest = docstring.partition("\n")
    if not first.rpartition(" ")[2].startswith("http") and rest.strip().startswith("http"):
        link, _, rest = rest.strip().partition("\n")
        first = f"{first}, {link}"
    paper, _, link = first.rpartition(", ")
    return (f"[{paper}]({link})", rest) if link.startswith("http") else (first, rest)


def paragraphs(docstring: str) -> str:
    """Text for Markdown: bare links become links."""
    return re.sub(r"(?<![(<])(https?://[^\s,;)]+[^\s,;).])", r"<\1>", docstring.strip())


def equations(name: str) -> Iterator[str]:
    """Each formula as MathML, which browsers show without a script, and what its symbols are."""
    for equation in yaml.safe_load((ROOT / "docs" / "equations.yaml").read_text())[name]:
        yield convert(equation["tex"], display="block")
        yield equation["says"]


def claim(name: str) -> Iterator[str]:
    """What the paper claims, what its released code computes, and what was measured here, of docs/claims.yaml."""
    found = yaml.safe_load((ROOT / "docs" / "claims.yaml").read_text()).get(name)
    if found:
        yield "## The claim"
        yield f"**Claimed:** {found['claim']}"
        yield f"**Released code:** {found['code']}"
        yield f"**Here:** {found['here']}"


def yaml_block(path: Path) -> str:
    return f'```yaml title="{path.relative_to(ROOT)}"\n{path.read_text().strip()}\n```'


def recipes(name: str) -> Iterator[str]:
    """The settings of papers for pairs with a data set, each with the command that takes them."""
    found = sorted(CONF.glob(f"recipe/{name}_*.yaml"))
    yield "Taken by themselves with the data set, and with the backbone where the name has one; what is typed wins."
    for path in found:
        yield yaml_block(path)
    if not found:
        yield "None: the settings above."


def numbers(name: str) -> Iterator[str]:
    """Ours, then what papers report."""
    yield from measured([row for row in results() if row["algorithm"] == name], "data")
    yield from reported([entry for entry in published() if entry.get("algo") == name], "data")


def reported(entries: list[dict[str, Any]], other: str) -> Iterator[str]:
    """What papers report, each with its protocol as far as it is known."""
    if not entries:
        return
    yield "What papers report, under their protocols (`fsl report` shows a number beside runs of its network alone):"
    facts = [other, "backbone", "inference", "split", "rotations"]
    facts = [fact for fact in facts if any(each.get(fact) for each in entries)]
    yield table(
        ["method", "task", "accuracy (%)", *facts, "source"],
        [
            [each["method"], task, accuracy, *map(each.get, facts), source(each)]
            for each in entries
            for task, accuracy in each["accuracy"].items()
        ],
    )


def measured(rows: list[dict[str, Any]], other: str) -> Iterator[str]:
    """The recorded results, `other` being the column that tells them apart."""
    if not rows:
        yield "None recorded yet in `results/`."
        return
    yield "Ours, from `results/`, one seed each; the interval is over the test episodes:"
    header = [other, "task", "queries", "ours", "inference", "best step", "training", "typed"]
    order = sorted(rows, key=lambda row: (row[other], row["way"], row["shot"], row["inference"]))
    yield table(header, [[row[other], *cells(row)] for row in order])


def cells(row: dict[str, Any]) -> Iterator[Any]:
    """A recorded result in the columns of `measured`."""
    accuracy = row["metric"] == "accuracy"
    yield f"{row['way']}w{row['shot']}s" if accuracy else f"{row['shot']}-shot"
    yield row["query"]
    number = [(100 if accuracy else 1) * row[key] for key in ("mean", "interval")]
    yield "{:.2f} ± {:.2f}%".format(*number) if accuracy else "MSE {:.3f} ± {:.3f}".format(*number)
    yield f"{row['inference']} (norm={row['norm']})"
    yield row["step"]
    yield f"{row['training_seconds'] / 60:.0f} min"
    yield f"`{' '.join(word for word in row['typed'] if not word.startswith('data.'))}`"


def results() -> list[dict[str, Any]]:
    """All recorded results of runs, as scripts/collect.py writes them."""
    found = [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("*.json"))]
    return [row for rows in found if isinstance(rows, list) for row in rows if "algorithm" in row]


def published() -> list[dict[str, Any]]:
    """What papers report, as `fsl report` shows it."""
    return yaml.safe_load((ROOT / "fsl_cli" / "runs" / "published.yaml").read_text())["rows"]


def source(entry: dict[str, Any]) -> str:
    return "; ".join(str(part) for part in (entry["source"], entry.get("note")) if part)


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)
