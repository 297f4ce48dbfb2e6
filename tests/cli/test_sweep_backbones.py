"""One line trains every kind of recurrent backbone with and without a scan that reorders; nothing stands in for it."""

import math

import pytest

from mmrnn.io import jsonl

LINE = (
    "backbone=rwkv6_tiny,rwkv7_tiny,delta_tiny,mamba_tiny,hybrid_tiny",
    "scan=forward,bidirectional",
    "data.scenes=12",
    "data.rounds=4",
    "stage.instruct.steps=2",
    "evaluate.samples=9",
    "evaluate.every=0",
    "workers=0",
    "out=s",
)


@pytest.mark.slow
def test_recurrent_backbones_by_scans(cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("train", "-m", *LINE)
    assert code == 0, err
    assert out.splitlines()[-1].startswith("s: 10 finished")
    rows = [*jsonl.records(tmp_path / "s" / "results.jsonl")]
    loss = {(row["backbone"], row["scan"]): row["loss"] for row in rows}
    assert len(loss) == 10
    assert all(math.isfinite(value) for value in loss.values())
    # The scan reaches every backbone: the same weights and data give another loss.
    assert all(loss[backbone, "forward"] != loss[backbone, "bidirectional"] for backbone, _ in loss)


def test_what_has_no_meaning_is_refused_before_any_job(cli, runs):
    code, _, err = cli("train", "-m", "backbone=hybrid_tiny", "backbone.pattern=[delta],[attention]", *LINE[1:])
    assert code == 2
    assert "scan: bidirectional reorders patches for recurrent backbones, but Hybrid attends to all of them" in err
    assert "(in the job" in err
    assert runs.calls == []
