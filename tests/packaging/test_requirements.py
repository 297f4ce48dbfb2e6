"""Requirements of the packages: what is imported is declared, in ranges that end before the next break."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(one) for one in PROJECT["dependencies"]]
EXTRAS = [Requirement(one) for extra in PROJECT["optional-dependencies"].values() for one in extra]

UNBOUNDED = {"torchvision", "triton", "pillow", "packaging"}
"""Two whose releases torch chooses, and two whose yearly major releases remove only what was deprecated before."""


OWN_ENVIRONMENT = {"lmms", "lm-eval"}
"""Extras that pin packages otherwise than the rest; CI installs them apart."""

WANTED_BY_A_PACKAGE = ("/bench/", "/evaluation/lmms_eval.py", "/evaluation/lm_eval.py", "/inference/server/")
"""Places of files whose imports come with an extra, and that are of no use without it."""


def imports(path: Path) -> set[tuple[str, bool]]:
    """Packages that a file imports, each with whether that happens with the file, not inside a function."""
    tree = ast.parse(path.read_text())
    inside = {id(node) for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) for node in ast.walk(one)}
    found = set()
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            names = [ast.literal_eval(node.args[0])]
        found |= {(name.split(".")[0], id(node) not in inside) for name in names}
    return {(name, first) for name, first in found if name not in {*sys.stdlib_module_names, "mmrnn", "mmrnn_kernels"}}


def test_what_is_imported_is_declared():
    core, extras = ({canonicalize_name(one.name) for one in group} for group in (CORE, EXTRAS))
    installed = packages_distributions()
    files = [path for folder in ("mmrnn", "kernels/mmrnn_kernels") for path in (ROOT / folder).rglob("*.py")]
    found = {(*one, path.relative_to(ROOT).as_posix()) for path in files for one in imports(path)}
    assert {"torch", "numpy", "yaml", "transformers"} <= {name for name, _, _ in found}
    missing = []
    for name, first, path in sorted(found):
        declared = core if first and not any(place in path for place in WANTED_BY_A_PACKAGE) else core | extras
        names = {canonicalize_name(one) for one in installed.get(name, [name])}
        missing += [f"{path} imports {name}"] if not names & declared else []
    assert not missing


def test_the_core_imports_all_that_it_asks_for():
    files = [path for folder in ("mmrnn", "kernels/mmrnn_kernels") for path in (ROOT / folder).rglob("*.py")]
    core = [path for path in files if not any(place in path.as_posix() for place in WANTED_BY_A_PACKAGE)]
    distributions = packages_distributions()
    imported = {name for path in core for name, _ in imports(path)}
    used = {canonicalize_name(one) for name in imported for one in distributions.get(name, ())}
    assert {canonicalize_name(one.name) for one in CORE} <= used


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("open_clip_torch", "2.31.0"),  # lacks what its tower calls
        ("timm", "1.0.20"),  # builds no model on the meta device
        ("transformers", "5.2.0"),  # runs code that a configuration names (CVE-2026-4372)
    ],
)
def test_releases_that_lack_what_is_called_are_refused(name, lacking):
    ranges = [one.specifier for one in CORE + EXTRAS if one.name == name]
    assert ranges
    assert not [str(one) for one in ranges if lacking in one]


def test_the_releases_that_were_tested_are_taken():
    names = {canonicalize_name(name) for group in packages_distributions().values() for name in group} - {"mmrnn"}
    extras = PROJECT["optional-dependencies"].items()
    together = [Requirement(one) for name, group in extras if name not in OWN_ENVIRONMENT for one in group]
    tested = [one for one in CORE + together if canonicalize_name(one.name) in names]
    assert len(tested) >= len(CORE)
    assert not [str(one) for one in tested if not one.specifier.contains(version(one.name), prereleases=True)]


def test_the_next_major_release_of_a_library_is_left_to_a_test_of_it():
    open_ended = {one.name for one in CORE if not any(part.operator in ("<", "==") for part in one.specifier)}
    assert open_ended == UNBOUNDED
    assert all(re.search(r">=\d", str(one.specifier)) for one in CORE)
