"""Samples that cannot be used are left out, counted and reported; a run with nothing to train on fails."""

import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.data import Collator, LLaVAJson
from mmrnn.data.left_out import MAX_REASONS, LeftOut
from mmrnn.evaluation.reports.run_folder import FAILURE
from mmrnn.io import jsonl
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import Stage
from mmrnn.training.distributed.world import World
from mmrnn.training.error import TrainingError
from mmrnn.training.loop.ready import next_usable
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.training.reading.loader import NO_UNITS, StepLoader
from mmrnn.training.run import train

SMALL = (
    "model=visualrwkv6_tiny",
    "data=llava",
    "stage=instruct",
    "stage.instruct.steps=2",
    "stage.instruct.batch_size=4",
    "evaluate.every=0",
    "evaluate.max_new_tokens=2",
    "log_every=1",
)


def record(name, image="a.jpg", *, question="q", answer="a"):
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns}


@pytest.fixture
def write(tmp_path):
    """Writes records beside a whole image, `a.jpg`, and half of one, `b.jpg`."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])

    def to_file(*records):
        (tmp_path / "d.json").write_text(json.dumps(records))
        return tmp_path / "d.json"

    return to_file


def run(file, out, *overrides):
    cfg = plain(compose(*SMALL, f"data.file={file}", *overrides))
    train(cfg, out)
    return json.loads((out / "result.json").read_text())


@pytest.mark.parametrize("gib", [0, 4], ids=["not cached", "cached"])
def test_one_broken_image_costs_its_sample(write, tmp_path, gib, capsys):
    file = write(*(record(f"g{n}") for n in range(6)), record("bad", "b.jpg"), {"id": "odd"})
    result = run(file, tmp_path / "run", f"feature_cache_gib={gib}", "stage.instruct.steps=4")
    assert result["left_out"]["records"]["total"] == 1
    [(reason, row)] = result["left_out"]["train"]["reasons"].items()
    assert reason == "an image is broken"
    assert row == {"samples": result["left_out"]["train"]["total"], "first": "bad"}
    # Two epochs of 7 samples, and two samples of the third.
    assert row["samples"] in (2, 3)
    counted = [line["dropped"]["total"] for line in jsonl.records(tmp_path / "run" / "log.jsonl")]
    assert sum(counted) == row["samples"]
    listed = [line["id"] for line in jsonl.records(tmp_path / "run" / "skipped.jsonl")]
    assert listed == ["odd", *["bad"] * row["samples"]]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Left out</h2>" in page
    assert page.count("<td>bad</td>") == page.count("<td>odd</td>") == 1
    assert (
        "1 records or turns are left out: 1 x conversations must be a list of turns (first: odd)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("gib", [0, 4], ids=["not cached", "cached"])
def test_a_broken_held_out_image_costs_its_question(write, tmp_path, gib):
    names = [f"g{n}" for n in range(40)]
    held = [sample.id for sample in LLaVAJson(file=str(write(*map(record, names))), holdout=0.3, split="holdout")]
    assert len(held) > 2
    file = write(*(record(name, "b.jpg" if name == held[1] else "a.jpg") for name in names))
    result = run(file, tmp_path / "run", f"feature_cache_gib={gib}", "data.holdout=0.3", "evaluate.samples=40")
    [row] = result["left_out"]["held_out"]["records"]["reasons"].values()
    assert row == {"samples": 1, "first": held[1]}
    assert result["left_out"]["train"]["total"] == 0
    assert result["accuracy"]["records"]["reply"]["total"] == len(held) - 1
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert [answer["index"] for answer in answers] == [0, *range(2, len(held))]


def test_nothing_to_train_on_is_an_error(write, tmp_path):
    file = write(*(record(f"g{n}", question="long " * 20) for n in range(6)), record("bad", "b.jpg"))
    reasons = (
        r"[67] x there is no target in its first 60 positions \(first: g\d\); [12] x an image is broken \(first: bad\)"
    )
    with pytest.raises(TrainingError, match=f"all 7 samples are dropped: {reasons}"):
        run(file, tmp_path / "run", "max_length=60")
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_stops_where_too_many_samples_are_left_out(write, tmp_path):
    file = write(*(record(f"g{n}") for n in range(4)), *(record(f"b{n}", "none.jpg") for n in range(8)))
    with pytest.raises(TrainingError, match=r"max_skipped=0 allows 0:\n +\d  an image is not there \(first: b\d\)\n"):
        run(file, tmp_path / "run", "max_skipped=0", "feature_cache_gib=0")
    lines = jsonl.records(tmp_path / "run" / "skipped.jsonl")
    assert {line["reason"] for line in lines} == {"an image is not there"}
    assert "an image is not there" in json.loads((tmp_path / "run" / FAILURE).read_text())["message"]


def test_lengths_are_stored_beside_the_data(write, tmp_path):
    file = write(*(record(f"g{n}", question="why? " * n) for n in range(12)))
    run(file, tmp_path / "run", "batching=bucketed", "batching.window=2", "feature_cache_gib=0")
    [stored] = file.parent.glob(".lengths-*")
    assert len(np.load(stored)) == 12
    assert not list((tmp_path / "run").glob(".lengths-*"))
    before = stored.stat().st_mtime_ns
    run(file, tmp_path / "again", "batching=bucketed", "feature_cache_gib=0")
    assert [path.stat().st_mtime_ns for path in file.parent.glob(".lengths-*")] == [before]


def test_no_question_to_ask_is_an_error(write, tmp_path):
    names = [f"g{n}" for n in range(20)]
    held = {sample.id for sample in LLaVAJson(file=str(write(*map(record, names))), holdout=0.3, split="holdout")}
    file = write(*(record(name, "b.jpg" if name in held else "a.jpg") for name in names))
    with pytest.raises(TrainingError, match=rf"no held-out question can be asked.*: {len(held)} x .*b\.jpg"):
        run(file, tmp_path / "run", "data.holdout=0.3", "evaluate.samples=40")
    assert not (tmp_path / "run" / "result.json").exists()


def usable_steps(loader):
    """Steps that have samples, without end."""
    while True:
        yield next_usable(loader, loader.objective, World())


def loader(file, *, samples=0, objective=None, workers=0, **knobs):
    data = LLaVAJson(file=str(file))
    collate = Collator(DemoTokenizer(), RWKVChat(), {}, max_length=30)
    stage = Stage(batch_size=2, **knobs)
    return StepLoader(data, collate, objective or LanguageModel(), stage, samples=samples, seed=0, workers=workers)


def text(name, size):
    turns = [{"from": "human", "value": "what? " * size}, {"from": "gpt", "value": "a"}]
    return {"id": name, "conversations": turns}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_takes_the_next_samples(write, workers, micro_batches):
    """Of nine samples two are short enough: most steps have none of them, and the next samples are read."""
    file = write(*(text(f"t{n}", 1 if n in (3, 7) else 200) for n in range(9)))
    whole = loader(file, workers=workers, grad_accum_steps=micro_batches)
    steps, positions = [], []
    for step in islice(usable_steps(whole), 6):
        steps.append(step)
        positions.append(whole.samples)
    assert all(1 <= len(step.micro_batches) <= micro_batches for step in steps)
    assert sum(len(step.ids) + len(step.dropped) for step in steps) == whole.samples
    assert sum(len(batch.sequence.ids) for step in steps for batch in step.micro_batches) == sum(
        len(s.ids) for s in steps
    )
    assert {name for step in steps for name in step.ids} == {"t3", "t7"}
    assert {one.reason for step in steps for one in step.dropped} == {"there is no target in its first 30 positions"}
    assert {one.worker for step in steps for one in step.dropped} == ({0, 1} if workers else {None})
    # From any position the loader continues as the whole one did.
    again = loader(file, samples=positions[2], workers=workers, grad_accum_steps=micro_batches)
    for step, position, other in zip(steps[3:], positions[3:], usable_steps(again), strict=False):
        assert [b.sequence.ids.tolist() for b in other.micro_batches] == [
            b.sequence.ids.tolist() for b in step.micro_batches
        ]
        assert [one.id for one in other.dropped] == [one.id for one in step.dropped]
        assert again.samples == position


def test_what_the_objective_cannot_use_counts_as_dropped(write):
    class Nothing(LanguageModel):
        def num_units(self, batch):
            return 0

    with pytest.raises(TrainingError, match=f"all 3 samples are dropped: .* x {NO_UNITS} "):
        next(usable_steps(loader(write(*(text(f"t{n}", 1) for n in range(3))), objective=Nothing())))


def test_counts_are_bounded_and_can_be_added_up():
    faults = [(str(n), f"reason {n}") for n in range(30)] + [("again", "reason 29")]
    counted = LeftOut.of(faults)
    record = counted.record()
    assert record["total"] == counted.total == 31
    assert len(record["reasons"]) == MAX_REASONS + 1
    assert next(iter(record["reasons"].items())) == ("reason 29", {"samples": 2, "first": "29"})
    twice = LeftOut.merge([record, record]).record()
    assert twice["total"] == 62
    assert sum(row["samples"] for row in twice["reasons"].values()) == 62
