"""data=[omniglot,cub]: what is typed of one of several data sets, of all, and of none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsl_cli.errors import UserError
from fsl_cli.runs.places import with_own_cache
from fsl_cli.settings.binding import problems
from fsl_cli.settings.compose import compose, provenance
from fsl_cli.settings.hydra_conf import hydra_words
from fsl_cli.settings.parts import sets_of
from fsl_cli.settings.several import typed_again
from tests.conftest import settings

BOTH = "data=[omniglot,cub]"


def test_each_has_its_own_settings_and_all_have_one_size() -> None:
    words = [BOTH, "data.omniglot.root=a b", "data.cub.crop=true", "data.rotations=none", "way=3"]
    config = compose(words)
    data = config.values["data"]
    assert list(data) == ["_target_", "omniglot", "cub"] and config.choices["data"] == "omniglot+cub"
    assert (data["omniglot"]["root"], data["cub"]["root"], data["cub"]["crop"]) == ("a b", None, True)
    assert [data[name]["size"] for name in ("omniglot", "cub")] == [84, 84]
    assert [data[name]["rotations"] for name in ("omniglot", "cub")] == ["none", "none"]
    assert settings(words).data_name == "omniglot+cub"
    assert provenance(words)["data.omniglot.root"] == "your command line"
    assert provenance(words)["data.cub.download"] == "conf/data/cub.yaml"


def test_the_recipe_of_the_first_counts() -> None:
    assert compose([BOTH]).values["train_way"] == compose(["data=omniglot"]).values["train_way"]
    swapped = compose(["data=[cub,omniglot]"]).values
    assert {key: swapped[key] for key in ("steps", "train_way")} == {
        key: compose(["data=cub"]).values[key] for key in ("steps", "train_way")
    }


def test_one_in_brackets_is_one() -> None:
    assert compose(["data=[omniglot]", "data.omniglot.split=lake"]).values == compose(
        ["data=omniglot", "data.split=lake"]
    ).values  # fmt: skip


def test_what_only_one_has_needs_no_name() -> None:
    data = compose(["data=[glyphs,omniglot]", "data.root=DIR", "data.size=20"]).values["data"]
    assert data["omniglot"]["root"] == "DIR" and data["glyphs"]["size"] == data["omniglot"]["size"] == 20


def test_a_second_of_a_kind_has_a_number() -> None:
    data = compose(["data=[folder,folder]", "data.folder.root=a", "data.folder2.root=b"]).values["data"]
    assert (data["folder"]["root"], data["folder2"]["root"]) == ("a", "b")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([BOTH, "data.root=DIR"], "of which data set? Type data.omniglot.root=DIR or data.cub.root=DIR."),
        (["data=[omniglot,cubs]"], "there is no data set 'cubs'. Did you mean cub?"),
        (["data=[]"], "Type data=[omniglot,glyphs]"),
        ([BOTH, "data.cup.root=DIR"], "Did you mean cub? Type data.omniglot.root=DIR."),
        ([BOTH, "data.cub.size=28"], "one size. Type data.size=28."),
        ([BOTH, "data.cub.rot=DIR"], "Did you mean data.cub.root?"),
        ([BOTH, "data.omniglot.rot=DIR"], "Did you mean data.omniglot.root?"),
        ([BOTH, "data.crob=true"], "data.crob"),
        ([BOTH, "wya=3"], "Did you mean way?"),
        (["data=omniglot,cub"], "Type -m for a sweep"),
    ],
)
def test_what_is_typed_wrong_is_told_with_what_to_type(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(words)
    assert said in str(refused.value) and len(str(refused.value).splitlines()) == 1, refused.value


def test_hydra_is_told_of_the_first_alone_and_a_sweep_gives_the_words_back() -> None:
    typed = [BOTH, "data.cub.crop=true", "data.omniglot.split=lake", "seed=0,1"]
    assert hydra_words(typed, None, sweep=True) == ["seed=0,1", "data=omniglot", "data.split=lake"]
    assert typed_again(["seed=1", "data=omniglot", "data.split=lake"], typed) == ["seed=1", *typed[:3]]


def test_a_file_of_ones_own_names_them_too(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("data: [omniglot, cub]\nway: 3\n")
    config = compose([f"experiment={file}", "data.cub.crop=true"])
    assert (
        config.values == compose([BOTH, "way=3", "data.cub.crop=true"]).values
        and config.choices["data"] == "omniglot+cub"
    )
    assert compose([f"experiment={file}", "data=glyphs"]).values == compose(["data=glyphs", "way=3"]).values
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /data: [omniglot, cub]\n"
    )
    with pytest.raises(UserError, match=r"experiment=PATH\.yaml"):
        compose(["experiment=mine"], str(tmp_path))


def test_a_strangers_run_may_name_no_more_in_one_of_several(tmp_path: Path) -> None:
    made = with_own_cache(settings([BOTH, f"data.cub.cache={tmp_path}"]))
    assert sets_of(made.data)["cub"].values["cache"] is None
    values = compose([BOTH]).values
    values["data"]["cub"] = {"_target_": "os.system", "command": "true"}
    values["data"]["omniglot"]["inner"] = {"_target_": "fsl_cli.data.sources.cub.cub"}
    found = problems(values, trust=[])
    assert any(line.startswith("data.cub: os.system is not part of fsl") for line in found)
    assert any(line.startswith("data.omniglot.inner: omniglot has no such setting") for line in found)
