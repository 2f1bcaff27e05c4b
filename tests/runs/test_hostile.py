"""Files of a run that a stranger made: what is damaged, hostile or without end is one message, and soon."""

from __future__ import annotations

import csv
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from PIL import UnidentifiedImageError

from fsl_cli.cli import run
from fsl_cli.data.photos import photo
from fsl_cli.errors import UserError
from fsl_cli.experiment.tracking import own_id
from fsl_cli.files import disk_errors
from fsl_cli.runs.checkpoints import load_weights, read_checkpoint, write_torch, write_weights
from fsl_cli.runs.places import are_trackers_own, sign_trackers
from fsl_cli.runs.run import Run
from fsl_cli.settings.parts import Part
from fsl_cli.use.saved import corrections

MADE = Path(__file__).with_name("made_by_0.1.0")
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
CONFIG = MADE.joinpath("config.yaml").read_text()
CASES = {
    "anchors that expand": ("config.yaml", CONFIG + LAUGHS, "unfolds to more than"),
    "lists without end": ("config.yaml", CONFIG + "x: " + "[" * 5000 + "]" * 5000 + "\n", "cannot be read"),
    "keys that are merged": (
        "config.yaml",
        CONFIG + "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [{f'*a{i - 1},' * 9}]}}\n" for i in range(1, 9)),
        "merge key",
    ),
    "a YAML of 2 MB": ("config.yaml", CONFIG + "# x\n" * 500_000, "more than 1,048,576"),
    "not UTF-8": ("config.yaml", b"way: \xff\xfe", "cannot be read"),
    "a list as the trainer": (
        "config.yaml",
        CONFIG.replace("trainer:\n  accelerator: auto", "trainer: [1]\nx:\n  a: 1"),
        "",
    ),
    "a number as the image": (
        "config.yaml",
        CONFIG.split("image:")[0] + "image: 3\ntrain_classes: 5\n",
        "image=3: must say",
    ),
    "choices that are numbers": (
        "config.yaml",
        CONFIG.replace("  algo: maml\n  trainer", "  algo: 3\n  trainer"),
        "choices=",
    ),
    "deep JSON": ("result.json", '{"a":' * 5000 + "1" + "}" * 5000, "cannot be read"),
    "JSON that is a list": ("training.json", "[]", "not an object"),
    "words for numbers": (
        "training.json",
        MADE.joinpath("training.json").read_text().replace("6", '"six"', 1),
        "damaged",
    ),
    "classes that are a list": ("classes.json", '{"train": []}', "damaged"),
    "no tensors": ("checkpoints/best.ckpt", {"state_dict": {"a": "b"}, "global_step": 3}, "is not a checkpoint of fsl"),
    "no state": ("checkpoints/best.ckpt", {"state_dict": [1], "global_step": 3}, "is not a checkpoint of fsl"),
    "names that are numbers": (
        "checkpoints/best.ckpt",
        {"state_dict": {1: torch.zeros(1)}, "global_step": 3},
        "is not a checkpoint of fsl",
    ),
    "complex weights": (
        "checkpoints/best.ckpt",
        {"state_dict": {"a": torch.zeros(1, dtype=torch.complex64)}, "global_step": 3},
        "is not a checkpoint of fsl",
    ),
    "no step": ("checkpoints/best.ckpt", {"state_dict": {}, "global_step": "x"}, "is not a checkpoint of fsl"),
}


def test_parts_of_a_checkpoint_that_are_larger_than_itself_are_not_unpacked(tmp_path: Path) -> None:
    stored, packed = tmp_path / "stored.ckpt", tmp_path / "packed.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1 << 16)}, "global_step": 0}, stored)
    with zipfile.ZipFile(stored) as whole, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as small:
        for part in whole.infolist():
            small.writestr(part.filename, whole.read(part))
    read_checkpoint(stored)
    with pytest.raises(UserError, match="its parts are larger than the file"):
        read_checkpoint(packed)


def test_what_the_disk_refuses_of_a_checkpoint_is_an_error_of_the_disk(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with (
            pytest.raises(UserError, match="last.ckpt cannot be written: File too large"),
            disk_errors(tmp_path / "last.ckpt"),
        ):
            write_torch(tmp_path / "last.ckpt", {"a": torch.zeros(1 << 16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", ["test", "report"])
def test_it_is_one_message(tmp_path: Path, case: str, verb: str) -> None:
    folder = Path(shutil.copytree(MADE, tmp_path / "run"))
    name, content, says = CASES[case]
    path = folder / name
    if isinstance(content, dict):
        torch.save(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = {"test": ("config", "training", "classes", "checkpoints"), "report": ("config", "result")}[verb]
    if not name.startswith(read):
        pytest.skip(f"fsl {verb} does not read it")
    with pytest.raises(UserError) as refused:
        run(["test", f"run={folder}"] if verb == "test" else ["report", str(folder)])
    assert says in str(refused.value), refused.value


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    learner = torch.nn.Linear(1, 1)
    write_weights(tmp_path / "best.ckpt", learner)
    assert load_weights(tmp_path / "best.ckpt", learner) == 0
    learner.bias.data.fill_(float("nan"))
    write_weights(tmp_path / "best.ckpt", learner)
    with pytest.raises(UserError, match="bias is not finite"):
        load_weights(tmp_path / "best.ckpt", learner)


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "episodes.csv", "metrics.csv", "overrides.txt"])
def test_a_device_is_not_read(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(MADE, tmp_path / "run"))
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with (
        suppress(UserError)
        if name in ("metrics.csv", "overrides.txt")
        else pytest.raises(UserError, match="no regular")
    ):
        run(["report", str(folder), f"to={tmp_path / 'page.html'}"])


LONG, NOBODY = "x" * 300, "~nobody-of-this-name/x"


@pytest.mark.parametrize("name", ["/dev/zero", "../../../etc/passwd", "\0", LONG, NOBODY, "=1+1", ""])
def test_a_list_of_corrections_names_pictures_and_nothing_else(tmp_path: Path, name: str) -> None:
    with open(tmp_path / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "label"], [name, "a"]])
    try:
        [[file]] = corrections(str(tmp_path / "list.csv")).values()
    except UserError:
        return
    with pytest.raises((OSError, UnidentifiedImageError)):
        photo(file, 8, 3)


@pytest.mark.parametrize("known", ["../../x", "a/b", "a b", "a?b", "", "x" * 200, 3, None, ["a"], {"a": 1}, "a\nb"])
def test_an_id_of_a_tracker_is_no_path_and_no_address(known: object) -> None:
    assert own_id(known) is None
    assert own_id("version_0") == "version_0" and own_id("0f3a-b.C") == "0f3a-b.C"


def test_a_name_that_is_a_path_leaves_the_folder_of_runs_no_way_out() -> None:
    from fsl_cli.runs.jobs import run_name
    from fsl_cli.runs.run import Run

    settings = Run(MADE).settings
    assert run_name(settings) == "maml-glyphs-5w1s"
    assert run_name(settings.having(choices={**settings.choices, "algo": "../../algo/maml"})) == "algo-maml-glyphs-5w1s"


def test_no_cache_of_a_strangers_run_is_written_to_unless_it_is_one(tmp_path: Path) -> None:
    folder = shutil.copytree(MADE, tmp_path / "run")
    cache = tmp_path / "elsewhere"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["cache"] = str(cache)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for place in (str(cache), "\0", NOBODY, LONG):
        config["data"]["cache"] = place
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        assert Run(folder).settings.data.get("cache") is None
    config["data"]["cache"] = str(cache)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (cache / "glyphs-1").mkdir(parents=True)
    (cache / "glyphs-1" / "store.json").write_text("{}")
    assert Run(folder).settings.data.get("cache") == str(cache)


def test_trackers_are_those_that_the_user_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings = Run(MADE).settings
    assert are_trackers_own(tmp_path, settings.having(logger={}))
    own = settings.having(logger={"mlflow": Part("pytorch_lightning.loggers.MLFlowLogger", {"tracking_uri": "a"})})
    other = settings.having(logger={"mlflow": own.logger["mlflow"].having(tracking_uri="sqlite:////etc/x")})
    assert not are_trackers_own(tmp_path, own)
    sign_trackers(tmp_path, own)
    assert are_trackers_own(tmp_path, own) and not are_trackers_own(tmp_path, other)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    assert not are_trackers_own(tmp_path, own), "signed with another key"
