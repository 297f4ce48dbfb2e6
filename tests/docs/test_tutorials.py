"""The tutorials run from the first cell to the last, at tiny size."""

import json
import os
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.ipynb"))

SMALL = {
    "1_first_model": "STEPS = 4\nQUESTIONS = 10",
    "2_own_images": "RECORDS = 20\nSTEPS = 4",
    "3_own_connector": "STEPS = 4\nQUESTIONS = 10",
    "4_reproduce_evidence": 'MODELS = "[study_rwkv6]"\nSEEDS = "[0,1]"\nSTEPS = 2\nSAMPLES = 10',
    "5_questions_to_a_state": "STEPS = 4\nQUESTIONS = 10",
    "6_from_a_transformer": None,
}
"""Content of the cell with the parameters; None: there is none."""

FAILED = ("mmrnn: ", "Traceback")
"""Beginnings of lines that a failed command writes."""

EXPECTED_FAULTS = ("no such knob; did you mean 'rank'?",)


def cells(name):
    return json.loads((TUTORIALS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def test_every_tutorial_is_run():
    assert sorted(SMALL) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_is_stored_without_outputs(name):
    for cell in cells(name):
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs(name, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    book = nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = SMALL[name]
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()) if "text" in output
    )
    assert printed
    faults = [line for line in printed.splitlines() if line.startswith(FAILED)]
    assert len(faults) == (name == "3_own_connector"), faults
    assert all(fault in printed for fault in EXPECTED_FAULTS if name == "3_own_connector")
