"""fsl doctor, with stand-ins for torch and torchvision that break as the real ones do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torchvision  # noqa: F401  the real one is there before its stand-ins are

from fsl_cli.cli import run
from fsl_cli.doctor import checks, examination
from fsl_cli.doctor.findings import problems
from fsl_cli.errors import UserError

TORCH = """
from types import SimpleNamespace as N
__version__ = "9.1.0+cpu"
version = N(cuda=None)
cuda = N(device_count=lambda: 0)
backends = N(mps=N(is_available=lambda: False))
get_num_threads = lambda: 3
"""
NMS = "raise RuntimeError('operator torchvision::nms does not exist')"


class Site:
    """A folder of stand-ins, in front of everything that is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, version: str, build: str, code: str, needs: str = "") -> None:
        (self.folder / name).mkdir()
        (self.folder / name / "__init__.py").write_text(code)
        (self.folder / name / "version.py").write_text(f"__version__ = '{version}+{build}'\n")
        about = self.folder / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(tmp_path)
    return Site(tmp_path)


def healthy(site: Site) -> None:
    site.install("torch", "9.1.0", "cpu", TORCH)
    site.install("torchvision", "0.99.0", "cpu", "__version__ = '0.99.0+cpu'", "Requires-Dist: torch (==9.1.0)\n")


def test_nothing_is_wrong_where_nothing_is(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    healthy(site)
    run(["doctor"])
    said = capsys.readouterr().out
    assert "torch 9.1.0 for cpu\ntorchvision 0.99.0 for cpu\ndevices\n  cpu, 3 threads, kernel: ImportError: " in said
    assert said.endswith("No problems found.\n")
    assert str(Path.home()) not in said or len(str(Path.home())) == 1


def test_a_torchvision_of_another_build_is_told_with_what_to_type(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("torch", "9.1.0", "cpu", TORCH)
    site.install("torchvision", "0.99.0", "cu999", NMS, "Requires-Dist: torch (==9.1.0)\n")
    with pytest.raises(SystemExit) as stopped:
        run(["doctor"])
    assert stopped.value.code == 1
    said = capsys.readouterr().out
    assert "1 problem:" in said
    assert (
        "torchvision does not import: RuntimeError: operator torchvision::nms does not exist. torchvision 0.99.0 is "
        "built for cu999, torch 9.1.0 for cpu. Type pip uninstall -y torchvision, then pip install torch==9.1.0 "
        "torchvision --index-url https://download.pytorch.org/whl/cpu\n"
    ) in said


def test_a_torch_that_kills_its_process_does_not_kill_the_doctor(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.install("torch", "9.1.0", "cpu", "import os; os._exit(139)")
    with pytest.raises(SystemExit):
        run(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["torch"] == {"error": "its process died (exit code 139)"}
    assert found["problems"][0].startswith("torch does not import: its process died (exit code 139)")
    assert len(found["problems"]) == 1


def test_the_doctor_itself_never_imports_torch(site: Site) -> None:
    healthy(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site.folder)!r})\nfrom fsl_cli.cli import run\nrun(['doctor'])\n"
        "heavy = {'torch', 'torchvision', 'pytorch_lightning', 'hydra'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def found(site: Site) -> dict[str, Any]:
    healthy(site)
    return examination.examine()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"packages.scipy": None, "packages.rich": None}, ["Not installed: rich, scipy. Type pip install rich scipy"]),
        ({"packages.torch": None, "torch.error": "x"}, ["Not installed: torch. Type pip install torch"]),
        ({"packages.hydra-core": "1.1.0"}, ["hydra-core is 1.1.0, and fsl needs >=1.3.2. Type pip install"]),
        ({"torchvision_needs": "==9.2.0"}, ["torchvision 0.99.0 needs torch==9.2.0, and torch is 9.1.0. Type pip un"]),
        ({"builds.torchvision": "cu1"}, []),  # which imports: only GPUs would miss it
        ({"nvidia": ["A, 500, 1 MiB"]}, ["There is an NVIDIA GPU, and torch is built without CUDA."]),
        ({"nvidia": ["A, 500, 1 MiB"], "torch.cuda": "99.0"}, ["does not see it. Its driver may be too old: A, 500"]),
        ({"nvidia": ["A"], "torch.cuda": "9", "variables.CUDA_VISIBLE_DEVICES": ""}, ["CUDA_VISIBLE_DEVICES= hides"]),
        ({"disk": [{"path": "p", "free": 5_000_000, "writable": True}]}, ["p: 5 MB are free."]),
        ({"disk": [{"path": "p", "free": 1 << 40, "writable": False}]}, ["p cannot be written."]),
    ],
)
def test_each_problem_is_told_once(found: dict[str, Any], changes: dict[str, Any], said: list[str]) -> None:
    found["variables"].pop("CUDA_VISIBLE_DEVICES", None)
    found |= {"nvidia": [], "disk": [], "needs": {"hydra-core": ">=1.3.2"}}
    for key, value in changes.items():
        *above, last = key.split(".", 1)
        (found[above[0]] if above else found)[last] = value
    told = list(problems(found))
    assert len(told) == len(said)
    assert all(part in text for part, text in zip(said, told, strict=True)), told


def test_what_a_package_asks_for_is_read_without_its_extras(site: Site) -> None:
    site.install(
        "own", "1.0", "x", "", "Requires-Dist: torch (>=2.6)\nRequires-Dist: numpy\nRequires-Dist: a>=1; extra == 'b'\n"
    )
    assert checks.requirements("own") == {"torch": ">=2.6", "numpy": ""}
    assert checks.requirements("nobody") == {}


def test_prepared_data_sets_are_listed(found: dict[str, Any], tmp_path: Path) -> None:
    from fsl_cli.data.sources.glyphs import glyphs

    glyphs(train_classes=3, val_classes=2, test_classes=2, drawings=2, size=8)
    assert any("glyphs: 7 classes, 14 images of 8 x 8 x 1" in line for line in examination.lines(examination.examine()))


def test_other_words_are_refused() -> None:
    with pytest.raises(UserError, match="takes --json and nothing else, not 'json'"):
        run(["doctor", "json"])
