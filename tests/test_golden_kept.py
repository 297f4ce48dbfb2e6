"""The golden cases that come with the tests: small, whole, and every one of them read by some test."""

import json
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KEPT = sorted(path.stem for path in (TESTS / "golden").glob("*.json"))
CODE = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))


def test_together_they_stay_small():
    assert sum(path.stat().st_size for path in (TESTS / "golden").iterdir()) < 12_500_000


@pytest.mark.parametrize("name", KEPT)
def test_a_case_is_whole_and_read(name):
    meta = json.loads((TESTS / "golden" / f"{name}.json").read_text(encoding="utf-8"))
    files = meta.get("files", [f"{name}.safetensors"] if "tensor_shapes" in meta else [])
    assert all((TESTS / "golden" / file).is_file() for file in files)
    assert re.search(rf'"{name}"', CODE), "no test reads it"
