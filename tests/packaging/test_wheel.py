"""The three ways in which mmrnn is used: from a wheel, from a checkout, beside other packages; and what is released."""

import os
import subprocess
import sys
import tarfile
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


def build(folder: Path, *options: str) -> Path:
    run("-m", "build", *options, "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this checkout."""
    return build(tmp_path_factory.mktemp("dist"), "--wheel")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder with a source distribution, and a wheel that is built from it."""
    return build(tmp_path_factory.mktemp("release")).parent


def test_the_source_distribution_is_the_checkout(release):
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git, which knows the files")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    [path] = release.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not names - {"PKG-INFO"} ^ {name for name in files if name and (ROOT / name).is_file()}
    assert path.stat().st_size < 15_000_000, "the golden cases of tests/golden are most of it"


def test_a_wheel_of_the_source_distribution_is_that_of_the_checkout(release, wheel):
    [path] = release.glob("*.whl")
    first, second = ({one.filename: one.CRC for one in ZipFile(file).infolist()} for file in (path, wheel))
    assert first == second


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
