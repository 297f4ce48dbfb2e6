"""Operators and a whole run on a device that is neither a CPU nor one of CUDA; a fake one stands for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.small_run import SMALL

SCRIPT = Path(__file__).parent / "on_npu.py"


def on_npu(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_operators_run_in_pytorch_where_there_are_no_kernels():
    assert on_npu("operators").split() == ["wkv5", "wkv6", "wkv7", "gated_delta_rule", "selective_scan"]


def test_doctor_says_what_the_device_lacks():
    lines = on_npu("doctor").splitlines()
    [found] = [line for line in lines if line.startswith("npu ")]
    assert "1 found, untested, taken by device=npu alone; lacks pinned memory" in found
    assert "Triton kernels (operators run in PyTorch: backend=chunked)" in found
    assert "fp64" not in found


def test_a_preset_is_timed_on_the_device(tmp_path):
    on_npu("bench", "model=visualrwkv6_tiny", "--device=npu", "--quick", f"--out={tmp_path}")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["device"] == "a fake"
    assert [row["name"] for row in found["rows"]] == ["first token", "a token"]
    assert [row["process_megabytes"] for row in found["rows"]] == [1.0, None]


@pytest.mark.slow
def test_a_whole_run_gives_the_answers_of_the_cpu(tmp_path):
    command = ["train", *SMALL, "backbone.dropout=0", "precision=fp32", "workers=0", "stage.instruct.steps=2"]
    command += ["evaluate.every=0"]
    on_npu(*command, "device=npu", f"out={tmp_path / 'npu'}")
    on_npu(*command, "device=cpu", f"out={tmp_path / 'cpu'}")
    answers = [(tmp_path / name / "answers.jsonl").read_text() for name in ("npu", "cpu")]
    assert answers[0] == answers[1]
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("npu", "cpu")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert json.loads((tmp_path / "npu" / "result.json").read_text())["processor"] == "a fake"
