"""Speed and memory against the context: models of one size, rows of every length, and the formulas of the computed."""

import json
from dataclasses import replace

import pytest
import torch

from mmrnn.bench import headline, roofline
from mmrnn.bench.data_sheets import GPU, GPUS
from mmrnn.bench.headline import LLAVA, PUBLISHED, RWKV_6, RWKV_7, Contexts, count, make_models, meta_model
from mmrnn.bench.peers import Shape
from mmrnn.bench.roofline import ModelCost
from mmrnn.bench.timing import BenchConfig
from mmrnn.cli.main import main

QUICK = BenchConfig(quick=True, max_rounds=3, seconds=0.0)


def test_models_are_of_equal_size():
    sizes = {name: count(model) for name, model in make_models(headline.SHAPE, QUICK).items()}
    assert max(sizes.values()) < 1.03 * min(sizes.values()), sizes


def test_rows_of_every_length(tmp_path, capsys):
    assert main(["bench", "headline", "--quick", f"--out={tmp_path}"]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    measured = [row for row in rows if not row["computed"]]
    lengths = Contexts.of(QUICK)
    for name in (LLAVA, RWKV_6, RWKV_7):
        wanted = [*lengths.shared, *(lengths.long if name != LLAVA else ())]
        assert [row["context"] for row in measured if row["name"] == name] == [n for n in wanted for _ in range(2)]
    for name in (RWKV_6, RWKV_7):
        assert len({row["megabytes"] for row in measured if row["name"] == name and row["megabytes"]}) == 1
    first, last = (row["megabytes"] for row in measured if row["name"] == LLAVA and row["megabytes"])
    assert last - first == pytest.approx(2 * 2 * 64 * 4 * 16 / 1e6, rel=1e-6)  # keys and values, layers, width, fp32
    # The prompt takes longer the longer it is: its time is a sum.
    waits = [row["seconds"] for row in measured if row["name"] == RWKV_6 and row["megabytes"] is None]
    assert waits == sorted(waits)
    assert {row["case"].split()[1].rstrip(",") for row in rows if row["computed"]} == {*headline.NAMED}
    assert {row["memory_kind"] for row in rows if row["computed"]} == {"computed"}
    assert "tokens/s" in capsys.readouterr().out


@torch.no_grad()
def test_pieces_are_the_whole():
    """Reading piece by piece, as it is timed, computes the same as reading the prompt at once."""
    lengths = replace(Contexts.of(QUICK), piece=8, shared=(8, 16), long=())
    for model in make_models(Shape(64, 64, 2), QUICK).values():
        torch.manual_seed(1)
        first = headline.piece(model, lengths, 0)
        reading = headline.Reading(model, first, None)
        reading()
        hidden, _ = model.run_backbone(headline.piece(model, lengths, 8).sequence, reading.after)
        sequence = replace(first.sequence, ids=torch.nn.functional.pad(first.sequence.ids, (0, 8), value=1))
        whole = model(replace(first, sequence=sequence)).hidden
        torch.testing.assert_close(hidden[:, -1], whole[:, -1], atol=1e-5, rtol=1e-4)


def test_costs_are_those_of_the_models():
    rwkv, llava = (ModelCost.of(meta_model(f"model={name}_tiny")) for name in ("visualrwkv6", "llava15"))
    model = meta_model("model=llava15_tiny")
    assert llava.cached == 2 * model.backbone.depth * model.backbone.width
    assert llava.weights == count(model)
    assert llava.weights > llava.read + llava.head
    assert (rwkv.cached, rwkv.queries, llava.state_bytes, llava.recurrence) == (0, 0, 0, 0)
    assert rwkv.state_bytes == meta_model("model=visualrwkv6_tiny").backbone.state(1).nbytes
    with pytest.raises(ValueError, match="only RWKV and the transformer have formulas"):
        ModelCost.of(meta_model("model=blip2_tiny"))


def test_formulas():
    cost = ModelCost(weights=100, read=60, head=10, vocab=7, cached=4, queries=2)
    gpu = GPU(flops=1e3, memory=1, bandwidth=1e2)
    assert cost.token_bytes(5) == 2 * 60 + 2 * 4 * 5
    assert cost.token_bytes(5, copied=True) == 2 * 60 + 3 * 2 * 4 * 5
    assert cost.token_flops(5) == 2 * 60 + 4 * 2 * 5
    assert cost.token_seconds(gpu, 5) == 160 / 1e2  # bytes bind
    assert cost.token_seconds(gpu._replace(flops=10.0), 5) == 160 / 10
    assert cost.prompt_flops(3) == 2 * 3 * 50 + 2 * 10 + 4 * 2 * (1 + 2 + 3)
    assert cost.prompt_seconds(gpu, 3) == max(368 / 1e3, 120 / 1e2)
    assert cost.memory_bytes(5) == 2 * 100 + 2 * 4 * 5
    assert cost.memory_bytes(5, logits=True) == 240 + 6 * 7 * 5
    rnn = ModelCost(weights=100, read=60, head=10, vocab=7, state_bytes=30, recurrence=9)
    assert rnn.token_bytes(5) == rnn.token_bytes(500) == 2 * 60 + 2 * 30
    assert rnn.token_flops(5) == 2 * 60 + 2 * 9
    assert rnn.prompt_flops(3) == 2 * 3 * (50 + 9) + 2 * 10
    assert rnn.memory_bytes(5) == 2 * 100 + 30


def test_the_published_case_is_bracketed():
    """3.98 times and 54 % less at 24,576 tokens on an L20: between a cache that is read and one that is copied."""
    llava, rwkv = (ModelCost.of(meta_model(*PUBLISHED[name])) for name in (f"{LLAVA} 7B", f"{RWKV_6} 7B"))
    assert 6.7e9 < llava.read + llava.head < 6.8e9
    sheet, context = GPUS["l20_48g"], 24576
    own = rwkv.token_seconds(sheet, context)
    assert 1.5 < llava.token_seconds(sheet, context) / own < 2.0
    assert 3.2 < llava.token_seconds(sheet, context, copied=True) / own < 3.98
    less = 1 - rwkv.memory_bytes(context) / llava.memory_bytes(context)
    most = 1 - rwkv.memory_bytes(context) / llava.memory_bytes(context, logits=True)
    assert 0.35 < less < most < 0.54
    assert roofline.BYTES == 2
