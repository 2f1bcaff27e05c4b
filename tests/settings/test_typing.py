"""What is typed means what was meant: paths, texts, other tools' words, slips of the keyboard."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from contextlib import suppress
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from fsl_cli.cli import run
from fsl_cli.errors import UserError, command
from fsl_cli.settings import other_tools
from fsl_cli.settings.binding import SHARED
from fsl_cli.settings.changed import changed
from fsl_cli.settings.compose import compose
from fsl_cli.settings.explain import demand_readable
from fsl_cli.settings.hints import edit_distance, nearest
from fsl_cli.settings.parts import OF, OfAlgorithm, Part, asked
from fsl_cli.settings.registry import choices, conf_dir
from fsl_cli.settings.typed import PATHS, TABLES, TEXTS, for_hydra, tables_as_typed, whole_tables

ODD = [
    "2026",
    "1e3",
    "tr_ph,2",
    "a b",
    "Füße/鳥",
    "a=b",
    "(x",
    "[y",
    "{z",
    "it's",
    'a"b',
    "back\\",
    "a$b",
    "x:y",
    "-1",
    "%",
]


@pytest.mark.parametrize("texts", [ODD[i : i + 4] for i in range(0, len(ODD), 4)])
@pytest.mark.parametrize("there", [False, True], ids=["absent", "there"])
def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], there: bool) -> None:
    """Whichever setting it is of: each text is one of a command line of four."""
    monkeypatch.chdir(tmp_path)
    for text in texts if there else ():
        Path(text).mkdir(parents=True)
    keys = ("out", "init", "data.root", "data.cache")
    values = compose(["data=omniglot", *map("=".join, zip(keys, texts, strict=True))]).values
    assert [values["out"], values["init"], values["data"]["root"], values["data"]["cache"]] == texts
    saved = {"data": {"root": None}, "choices": {}}
    assert [changed(saved, {"data.root": text})["data"]["root"] for text in texts] == texts


def test_null_interpolations_and_hydras_own_quotes_stay_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLACE", "here")
    typed = ["init=null", "out=${oc.env:PLACE}/my runs", "data.cache='a b'"]
    values = compose(typed).values
    assert (values["init"], values["out"], values["data"]["cache"]) == (None, "here/my runs", "a b")
    Path("${x}").mkdir()
    assert compose(["out=${x}"]).values["out"] == "${x}"


def test_commas_of_paths_part_a_sweep_only_where_each_part_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "three,four"):
        Path(name).mkdir()
    words = ["init=one,two", "init=three,four", "init=one,no", "out=one,two", "seed=0,1", "init=choice('a','b')"]
    assert for_hydra(words, sweep=True) == [
        "init='one','two'", "init='three,four'", "init='one,no'", "out='one','two'", "seed=0,1", "init=choice('a','b')",
    ]  # fmt: skip
    assert for_hydra(["init=one,two"]) == ["init='one,two'"]
    assert for_hydra(["backbone.name=resnet18,resnet50"], sweep=True) == ["backbone.name='resnet18','resnet50'"]


def test_the_table_of_texts_is_what_conf_names() -> None:
    """Every setting of conf/ that is annotated as text, and no other."""
    found = set()
    for path in conf_dir().glob("*/*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        part = path.parent.name
        node = content if "_target_" in content else content.get(part) or {}
        if str(node.get("_target_", "")).startswith("fsl_cli.") and part != "logger":
            found |= {
                f"{part}.{key}" for key, kind in _hints(node["_target_"]).items() if _is_text(kind) and key in node
            }
    assert found == {key for key in PATHS | TEXTS if key.startswith(("algo.", "backbone.", "data.", "pseudo."))}


@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize("words", [["algo=simpleshot", "data=miniimagenet"], ["algo=protonet", "schedule.kind=table"]])
def test_a_table_takes_the_place_of_a_recipes(words: list[str], sign: str) -> None:
    typed = [*words, f"{sign}schedule.table={{5:0.1,7:0.01}}"]
    assert compose(typed).values["schedule"]["table"] == {5: 0.1, 7: 0.01}
    assert tables_as_typed(whole_tables(typed)) == [*words, "schedule.table={5:0.1,7:0.01}"]


def test_tables_are_the_settings_that_conf_gives_keys_of_their_own() -> None:
    hints = _hints("fsl_cli.experiment.schedule.schedule")
    assert {f"schedule.{key}" for key, kind in hints.items() if "dict[" in str(kind)} == TABLES


@pytest.mark.parametrize("group", OF)
def test_what_fsl_asks_of_a_part_by_name_is_a_parameter_of_something_that_conf_names(group: str) -> None:
    known: set[str] = set()
    for path in conf_dir().glob(f"{group}/*.yaml"):
        content = yaml.safe_load(path.read_text()) or {}
        nodes = [content, *(node for node in content.values() if isinstance(node, dict))]
        for target in (node["_target_"] for node in nodes if "_target_" in node):
            module, _, name = target.rpartition(".")
            with suppress(ImportError):
                known |= set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    known |= set(SHARED.get(group, {}))
    assert {field.name for field in fields(OF[group])} <= known


def test_a_value_of_another_kind_is_none_that_fsl_asks_for() -> None:
    mine = Part("mine.Net", {"scale": "large", "inner_lr": 0.5, "other": 1})
    assert asked(mine, OfAlgorithm) == OfAlgorithm(scale=None, inner_lr=0.5)


def _hints(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    made = getattr(importlib.import_module(module), name)
    return get_type_hints(made.__init__ if inspect.isclass(made) else made)


def _is_text(kind: Any) -> bool:
    return kind is str or str in get_args(kind)


# ---- other tools' words ---------------------------------------------------------------------------------------------

OWNER = {"algo.hidden": "mann", "algo.smoothing": "metaoptnet"}
WORDS = [(word, meant) for meant, words in other_tools.SETTINGS.items() for word in words.split()]


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as refused:
        compose(words)
    return str(refused.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr=0.1", "lr: here optim.lr. Type optim.lr=0.1."),
        ("learning_rate=0.1", "here optim.lr"),
        ("epochs=10", "here steps"),
        ("max_steps=10", "here steps. Type steps=10."),
        ("batch_size=4", "here meta_batch. Type meta_batch=4."),
        ("device=cuda", "Type trainer=gpu"),
        ("gpus=2", "Type trainer=ddp trainer.devices=2"),
        ("dataset=omniglot", "here data. Type data=omniglot."),
        ("dataset=mnist", "here data. data=mnist: there is no such data."),
        ("model=conv4", "here backbone. Type backbone=conv4."),
        ("model=maml", "here algo. Type algo=maml."),
        ("n_way=5", "Type way=5."),
        ("k_shot=5", "Type shot=5."),
        ("num_workers=2", "no setting is needed"),
        ("pretrained=true", "Type backbone=torchvision backbone.name=resnet18 backbone.pretrained=true."),
        ("backbone=resnet50", "Here: backbone=torchvision backbone.name=resnet50."),
        ("backbone=vit", "Here: backbone=torchvision backbone.name=vit_b_16 data.size=224."),
        ("optim=lion", "Here: optim._target_=lion_pytorch.Lion trust=[lion_pytorch]"),
        ("inner_lr=0.1", "algo.inner_lr is one of algo=adml, anil, baseline,"),
        ("algo.scale=3 algo=maml", "'algo.scale' is not a setting of algo=maml; algo.scale is one of algo=bdcspn,"),
        ("algo.inner_lrr=3", "not a setting of algo=protonet; algo.inner_lr is one of algo=adml, anil,"),
        ("algo.inner_lrr=3 algo=maml", "Did you mean algo.inner_lr? See fsl show algo=maml."),
        ("optim.betas=[0.9,0.99]", "Type '+optim.betas=[0.9,0.99]'."),
        ("optim.beta=[0.9,0.99]", "Did you mean +optim.betas?"),
        ("algo=maml,protonet", "algo=maml,protonet: several values are a sweep. Type -m for a sweep."),
        ("seed=range(0,3)", "Type -m for a sweep."),
        ("=5", "'=5' is not of the form key=value"),
        ("~optim=[]", "optim=[]: there is no such optim. There are adam,"),
        ("~data=[glyphs,omniglot]", "there is no such data. There are"),
        ("hydra.sweeper.n_trialz=3 hydra/sweeper=optuna", "Did you mean hydra.sweeper.n_trials?"),
        ("experiment=mine", "fsl config to=mine.yaml writes one"),
        ("foo=1", "'foo' is not a setting. See fsl show."),
        ("scheduler=cosine", "here schedule.kind. Type schedule.kind=cosine."),
        ("scheduler=foo", "here schedule.kind. schedule.kind=foo: must be none | step |"),
        ("momentum=0.9", "optim.momentum is one of optim=momentum, sgd."),
        ("dropout=0.1", "backbone.dropout is one of backbone=r2d2, wrn28_10."),
        ("scheduler=multistep", "Type schedule.kind=table 'schedule.table={0:1,5000:0.1}'."),
        ("betas=[0.9,0.99]", "Type '+optim.betas=[0.9,0.99]'."),
        ("algo=rfs data=miniimagenet schedule.table.36000=1", "Type 'schedule.table={0:1,5000:0.1}'."),
        ("schedule.table.5=0.1", "a table is typed whole. Type 'schedule.table={0:1,5000:0.1}'."),
        ("algo.inner=sgd", "see docs/your-own.md"),
        ("trainer.gpus=1", "Type trainer=ddp trainer.devices=2"),
        ("optim.learning_rate=1", "Type optim.lr=1."),
        ("backbone.pretrained=true", "backbone.pretrained is one of backbone="),
        ("hydra.run.dir=x", "Type out=FOLDER for another folder."),
        ("--lr=0.1", "settings have no dashes. Type lr=0.1."),
    ],
)  # fmt: skip
def test_what_was_meant(typed: str, meant: str) -> None:
    said = refusal(*typed.split())
    assert meant in said and len(said.splitlines()) == 1, said


def advised(line: str) -> list[str]:
    """The command line that a table names, with a folder for FOLDER."""
    words = line.partition(",")[0] if "trust" in line else line
    words = shlex.split(re.split(r" or | of ", words)[0].replace("{}", "resnet50").replace("FOLDER", "."))
    if words[0].startswith(("resume", "experiment")):
        return []
    return [
        *([f"algo={OWNER.get(words[0].partition('=')[0], 'maml')}"] if words[0].startswith("algo.") else []),
        *(["data=folder"] if words[0].startswith("data.") else []),
        *words,
    ]


def test_what_is_advised_is_accepted() -> None:
    """Each command that the tables name composes; those that do not get in each other's way in one command line."""
    keys = [key for key in other_tools.SETTINGS if key not in ("algo", "data", "backbone", "optim", "time")]
    together = [key for key in keys if not key.startswith("algo.")]
    lines = [advised(f"{key}=1") for key in keys if key not in together]
    lines += [advised(typed) for text in other_tools.SENTENCES for typed in re.findall(r"Type ([\w.=/ -]+[\w])", text)]
    lines += map(advised, other_tools.CHOICES["data"])
    others = [map(advised, table) for group, table in other_tools.CHOICES.items() if group != "data"]
    lines += [sum(row, []) for row in zip_longest(*others, fillvalue=[])]
    for words in [["data=folder", *(f"{key}=1" for key in together)], *filter(None, lines)]:
        compose(words)


def test_no_word_of_another_tool_is_one_of_ours() -> None:
    ours = set(compose([]).values) | set(choices("algo"))
    assert not {word for word, _ in WORDS} & ours
    assert len({word for word, _ in WORDS}) == len(WORDS)


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("wya", "way"),
        ("agol", "algo"),
        ("dta", "data"),
        ("trainer_devices", ""),
        ("xyz", ""),
        ("val_evry", "val_every"),
    ],
)
def test_a_slip_of_the_keyboard(word: str, near: str) -> None:
    assert nearest(word, ["way", "algo", "data", "data.size", "meta_batch", "val_every"]) == near


def test_slips_are_counted_by_hand() -> None:
    pairs = [("wya", "way"), ("conv5", "conv4"), ("", "abc"), ("maml", "anil"), ("x", "x")]
    assert [edit_distance(*pair) for pair in pairs] == [1, 1, 3, 3, 0]


def test_one_command_line_is_read_with_m_and_refused_without(capsys: pytest.CaptureFixture[str]) -> None:
    demand_readable(["algo=maml,protonet", "seed=range(0,3)"], sweep=True)
    with pytest.raises(UserError):
        demand_readable(["algo=maml,protonet"])
    run(["help", "train"])
    assert capsys.readouterr().out.startswith("fsl train: Meta-train")
    with pytest.raises(UserError, match=r"no verb 'trian'. Did you mean train\?"):
        run(["help", "trian"])


@pytest.mark.parametrize("text", ODD)
def test_a_shown_command_can_be_pasted(text: str) -> None:
    assert shlex.split(command("fsl", "test", f"run={text}")) == ["fsl", "test", f"run={text}"]
