"""Every YAML found on disk composes, binds and says what it is; what is typed wins over recipes."""

from __future__ import annotations

import pytest
from conftest import settings

from fsl_cli.runs.jobs import flat
from fsl_cli.settings.binding import problems
from fsl_cli.settings.compose import compose, provenance
from fsl_cli.settings.registry import choices, conf_dir, describe

DATA = list(choices("data"))


def parts_of(recipe: str) -> tuple[str, ...]:
    """Algorithm and data set, whose name may have the name of another in front, and for some recipes the backbone."""
    algo, _, rest = recipe.partition("_")
    data = max((name for name in DATA if f"{rest}_".startswith(f"{name}_")), key=len, default=rest)
    return (algo, data, *filter(None, [rest[len(data) + 1 :]]))


RECIPES = [parts_of(name) for name in choices("recipe")]
IN_TURN = [(algo, DATA[i % len(DATA)]) for i, algo in enumerate(choices("algo"))]
PAIRS = sorted({recipe[:2] for recipe in RECIPES}.union(IN_TURN))  # all that a file is written for, and some others
OTHERS = [(group, name) for group in ("backbone", "optim", "trainer") for name in choices(group)]


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_what_it_is_and_is_short(path) -> None:
    assert len(describe(path)) > 10
    assert path.name == "train.yaml" or len(path.read_text().splitlines()) <= 20


def test_every_algorithm_and_every_data_set_is_in_a_pair() -> None:
    assert {algo for algo, _ in PAIRS} == set(choices("algo"))
    assert {data for _, data in PAIRS} == set(DATA)


@pytest.mark.parametrize(
    ("algo", "data"), [pytest.param(*pair, marks=() if pair in IN_TURN else pytest.mark.slow) for pair in PAIRS]
)
def test_an_algorithm_binds_with_a_data_set(algo: str, data: str) -> None:
    assert problems(compose([f"algo={algo}", f"data={data}", "trainer=cpu"]).values) == []


@pytest.mark.parametrize(("group", "name"), OTHERS)
def test_every_other_choice_binds(group: str, name: str) -> None:
    found = problems(compose([f"{group}={name}", "meta_batch=2"]).values)
    assert [line for line in found if "no GPU" not in line] == []


@pytest.mark.parametrize("recipe", RECIPES, ids="_".join)
def test_every_recipe_belongs_to_a_pair_that_exists(recipe: tuple[str, ...]) -> None:
    algo, data, *backbone = recipe
    assert algo in choices("algo")
    assert data in choices("data")
    assert not backbone or backbone[0] in choices("backbone")


PAPERS = {  # (way, shot) -> what the authors set
    "maml": {
        (5, 1): {"meta_batch": 32, "query": 1, "train_query": 1, "inner_lr": 0.4, "inner_steps": 1, "test_steps": 3},
        (5, 5): {"meta_batch": 32, "query": 5, "train_query": 5, "inner_lr": 0.4, "inner_steps": 1, "test_steps": 3},
        (20, 1): {"meta_batch": 16, "train_query": 1, "inner_lr": 0.1, "inner_steps": 5, "test_steps": 5},
        (20, 5): {"meta_batch": 16, "train_query": 5, "inner_lr": 0.1, "inner_steps": 5, "test_steps": 5},
    },
    "protonet": {
        (way, shot): {"train_way": 60, "train_query": 5, "train_shot": shot, "meta_batch": 1}
        for way in (5, 20)
        for shot in (1, 5)
    },
}


@pytest.mark.parametrize(("algo", "task"), [(algo, task) for algo in PAPERS for task in PAPERS[algo]])
def test_the_papers_settings_come_without_being_asked_for(algo: str, task: tuple[int, int]) -> None:
    values = settings([f"algo={algo}", "data=omniglot", f"way={task[0]}", f"shot={task[1]}"])
    for key, expected in PAPERS[algo][task].items():
        assert values.algo.get(key, getattr(values, key, None)) == expected, key
    assert values.optim.get("lr") == 0.001
    if algo == "maml":
        assert (values.norm, values.steps, values.backbone.get("halve")) == ("transductive", 60000, "stride")
    else:
        assert values.schedule.values == {
            "kind": "step", "every": 2000, "factor": 0.5, "steps": values.steps, "table": None
        }  # fmt: skip


RELEASED = {  # words -> what the authors' released code sets, each once set otherwise here
    "algo=simpleshot data=miniimagenet": {"augment.jitter": 0.0, "optim.nesterov": None, "optim.weight_decay": 1e-4},
    "algo=mamlpp data=miniimagenet": {
        "algo.inner_lr": 0.1, "algo.head_init": "xavier", "backbone.slope": 0.01, "backbone.filters": 48,
    },
    "algo=mamlpp data=omniglot": {"algo.inner_lr": 0.1, "algo.head_init": "xavier", "backbone.slope": 0.01, "query": 1},
    "algo=relation data=miniimagenet": {"backbone.unpadded": 2, "backbone.halvings": 2},
    "algo=relation data=omniglot": {"backbone.unpadded": 2, "backbone.halvings": 2},
    "algo=cavia data=miniimagenet": {"episodes": 500, "backbone.filters": 32},
    "algo=baseline data=miniimagenet": {"algo.minibatch": 4, "algo.momentum": 0.9},
    "algo=baselinepp data=miniimagenet": {"algo.minibatch": 4},
    "algo=metabaseline data=miniimagenet": {"optim.nesterov": None, "optim.lr": 0.001, "meta_batch": 4, "steps": 4000},
    "algo=metaoptnet data=miniimagenet": {"optim.nesterov": True, "augment.jitter": 0.4, "algo.smoothing": 0.1},
    "algo=maml data=sinusoid": {"backbone.start": "small", "algo.head_init": "small"},
    "algo=cavia data=sinusoid": {"backbone.start": "torch"},
    "algo=reptile data=sinusoid": {"backbone.start": "torch", "backbone.activation": "tanh"},
}  # fmt: skip


@pytest.mark.parametrize("words", RELEASED)
def test_a_recipe_sets_what_the_released_code_does(words: str) -> None:
    values = flat(settings(words.split()).plain())
    assert {key: values.get(key) for key in RELEASED[words]} == RELEASED[words]


@pytest.mark.parametrize("algo", ["rfs", "metaoptnet"])
def test_crops_are_shifted_by_eight_pixels_on_miniimagenet(algo: str) -> None:
    augment = settings([f"algo={algo}", "data=miniimagenet"]).augment
    assert augment and augment.values == {"crop": None, "padding": 8, "flip": True, "jitter": 0.4}


def test_what_is_typed_wins_over_the_recipe() -> None:
    typed = ["norm=support", "steps=7", "algo.inner_lr=0.3", "backbone.halve=pool", "schedule.kind=cosine", "optim=sgd"]
    values = settings(["algo=maml", "data=omniglot", *typed])
    assert (values.norm, values.steps, values.algo.get("inner_lr")) == ("support", 7, 0.3)
    assert (values.backbone.get("halve"), values.schedule.get("kind")) == ("pool", "cosine")
    assert values.backbone.get("norm") == "support"
    assert values.optim.target == "torch.optim.SGD"


def test_provenance_names_the_file_or_the_command_line() -> None:
    sources = provenance(["algo=maml", "data=omniglot", "way=20"])
    assert sources["way"] == "your command line"
    assert sources["norm"] == "conf/recipe/maml_omniglot.yaml"
    assert sources["backbone.halve"] == "conf/recipe/maml_omniglot_conv4.yaml"
    assert sources["algo.first_order"] == "conf/algo/maml.yaml"
    assert sources["data.split"] == "conf/data/omniglot.yaml"


def test_a_users_own_folder_adds_choices(tmp_path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "algo" / "mine.yaml").write_text(
        "# Mine: nearest class mean, again\n_target_: fsl_cli.algorithms.protonet.ProtoNet\n"
    )
    assert choices("algo", str(tmp_path))["mine"].startswith("Mine")
    assert compose(["algo=mine"], str(tmp_path)).choices["algo"] == "mine"


@pytest.mark.parametrize("end", [0, pytest.param(-1, marks=pytest.mark.slow)], ids=["first", "last"])
@pytest.mark.parametrize("algo", choices("algo"))
def test_every_algorithm_has_a_search_space_that_binds_at_both_ends(algo: str, end: int) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from hydra_plugins.fsl_optuna_sweeper import distribution

    composed = OmegaConf.load(conf_dir() / "search" / f"{algo}.yaml")
    for base in composed.pop("defaults", []):
        composed = OmegaConf.load(conf_dir() / "search" / f"{base}.yaml")
    parsed = OverridesParser.create().parse_overrides([f"{key}={text}" for key, text in composed.items()])
    drawn = {override.get_key_element(): distribution(override) for override in parsed}
    ends = {key: getattr(d, "choices", None) or (d.low, d.high) for key, d in drawn.items()}
    words = [f"{key}={values[end]}" for key, values in ends.items()]
    assert problems(compose([f"algo={algo}", "trainer=cpu", *words]).values) == []
