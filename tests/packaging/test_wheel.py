"""The three ways in which mmrnn is used: from a wheel, from a checkout, and beside other packages."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]

USE = """
import sys
from pathlib import Path
import mmrnn, mmrnn_kernels
home = Path(sys.argv[1]).resolve()
for found in (mmrnn.__file__, mmrnn_kernels.__file__, mmrnn.conf_dir()):
    assert home in Path(found).resolve().parents, found
assert (mmrnn.conf_dir() / "train.yaml").is_file()
model = mmrnn.build(mmrnn.compose("model=visualrwkv6_tiny"))
print(sum(parameter.numel() for parameter in model.parameters()))
"""


def run(*command: str | Path, cwd: Path, path: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_the_cards_and_nothing_else(wheel):
    names = set(ZipFile(wheel).namelist())
    assert {
        "mmrnn/__init__.py",
        "mmrnn/py.typed",
        "mmrnn/conf/train.yaml",
        "mmrnn_kernels/__init__.py",
    } <= names
    cards = {f"mmrnn/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert cards <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mmrnn", "mmrnn_kernels"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_is_used_from_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    run("-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    assert int(run("-c", USE, site, cwd=tmp_path, path=str(site))) > 0
    assert "visualrwkv6_tiny" in run("-m", "mmrnn", "list", "model", cwd=tmp_path, path=str(site))


def test_a_bare_checkout_is_used_from_another_folder(tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    assert int(run("-c", USE, ROOT, cwd=tmp_path, path=path)) > 0


@pytest.mark.slow
def test_transformers_works_in_the_folder_of_the_checkout():
    """A folder `kernels` with an `__init__.py` would hide a package that transformers looks for."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    run("-c", "from transformers import LlamaForCausalLM", cwd=ROOT)
