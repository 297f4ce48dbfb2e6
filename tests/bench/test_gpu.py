"""Benchmarks of a GPU: their code runs on the CPU at tiny sizes, where the times mean nothing."""

import inspect
import json
from dataclasses import replace

import pytest
import torch

from mmrnn import compose
from mmrnn.bench import gpu, operator
from mmrnn.bench.peers import Shape, make_rwkv6
from mmrnn.bench.timing import BenchConfig, Row, Unavailable
from mmrnn.cli import bench
from mmrnn.cli.main import main

CUDA = torch.device("cuda")
QUICK = BenchConfig(quick=True, max_rounds=3, seconds=0.0)


@pytest.mark.parametrize("part", gpu.PARTS)
def test_every_part_runs(part):
    config = replace(QUICK, skipped=[])
    rows = [*gpu.PARTS[part](config)]
    assert rows
    assert {row.part for row in rows} == {part}
    assert all(row.seconds > 0 for row in rows)
    assert all(row.peak_fraction > 0 for row in rows if "backward" not in row.case)
    if part == "operator":
        assert {note.split(":")[0] for note in config.skipped} == {"mmrnn triton", "fla"}
        assert {row.case.split()[0] for row in rows} == {*operator.OPERATORS}


def test_both_devices_have_the_same_parts():
    """The headline is the same code on both."""
    assert {*gpu.PARTS, "headline"} == {*bench.PARTS}


def test_without_a_gpu_the_option_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main(["bench", "--device", "cuda", f"--out={tmp_path / 'here'}"]) == 2
    assert "device=cuda: torch finds 0 CUDA devices here; set device=cpu" in capsys.readouterr().err
    assert not (tmp_path / "here").exists()


def test_the_option_chooses_the_benchmarks_of_the_gpu(monkeypatch, capsys, tmp_path):
    seen = []

    def measure(config):
        seen.append((config.device, config.quick))
        yield Row("tower", "case", "timm", 0.5, {}, peak_fraction=0.25)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: seen.append(device.index))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    monkeypatch.setattr(gpu, "PARTS", {"tower": measure})
    assert main(["bench", "tower", "--quick", "--device=cuda:1", f"--out={tmp_path}"]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    assert seen == [1, (torch.device("cuda:1"), True)]
    assert result["device"] == "card 1"
    assert [row["peak_fraction"] for row in result["rows"]] == [0.25]
    assert "25%" in capsys.readouterr().out


def test_time_on_a_gpu_is_that_between_two_events(monkeypatch):
    order = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            order.append("record")

        def synchronize(self):
            order.append("wait for the event")

        def elapsed_time(self, stop):
            assert stop is not self
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    assert BenchConfig(device=CUDA).time_once(lambda: order.append("work")) == 0.25
    assert order == ["wait", "record", "work", "record", "wait for the event"]


def test_what_does_not_fit_into_memory_is_skipped_by_name():
    config = replace(QUICK, skipped=[])

    def make():
        raise torch.OutOfMemoryError("tried to allocate 99 GiB")

    assert gpu.run_one(config, "decode", "7B bf16", make) == []
    assert config.skipped == ["7B bf16: tried to allocate 99 GiB"]


def test_our_kernels_are_never_skipped_on_a_gpu(monkeypatch):
    def broken(*inputs):
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(gpu, "implementation", lambda *_: broken)
    monkeypatch.setattr(gpu, "fla_kernel", lambda *_: broken)
    monkeypatch.setattr(gpu, "make_inputs", lambda *_, **__: [])
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.empty(1))
    with pytest.raises(Unavailable, match="illegal memory access"):
        gpu.operator_workload("wkv6", gpu.FLA, (1, 1, 1, 1), False, CUDA)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        gpu.operator_workload("wkv6", "triton", (1, 1, 1, 1), False, CUDA)


@pytest.mark.parametrize("head", [False, True])
def test_weights_that_are_read(head):
    shape = Shape.of(QUICK)
    model = make_rwkv6(shape)
    left_out = [model.embedding.weight, *([] if head else [model.output.weight])]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert gpu.weight_count(shape, head) == total - sum(weight.numel() for weight in left_out)
    wkv = [layer["wkv"] for layer in model.state(1).layers]
    assert gpu.state_bytes(shape) == sum(matrix.nbytes for matrix in wkv)


@pytest.mark.parametrize("size", gpu.SHAPES)
def test_sizes_are_those_of_the_cards(size):
    whole, _, part = size.removesuffix("B").partition(".")
    card = compose(f"backbone=rwkv6_{whole}b{part}").backbone
    assert gpu.SHAPES[size] == Shape(card.vocab, card.width, card.depth)


DELTA = ("q", "k", "v", "g", "beta")
ORDERS = {"wkv7": ("r", "w", "k", "v", "a", "b"), "gated_delta_rule": DELTA, "kda": DELTA}
"""Order of our inputs; those of RWKV-5 and -6 are alike."""


@pytest.mark.parametrize("kind", ["cpu", "mps", "xpu"])
def test_the_kernels_of_fla_are_skipped_where_there_is_no_cuda(monkeypatch, kind):
    monkeypatch.setattr(gpu, "require", lambda *_: None)
    with pytest.raises(Unavailable, match="its kernels are called on a CUDA GPU alone"):
        gpu.fla_kernel("wkv6", torch.device(kind))


@pytest.mark.slow
@pytest.mark.parametrize("name", operator.MULTIPLY_ADDS)
def test_the_arguments_of_fla_are_ours(monkeypatch, name):
    """fla's kernels need a GPU: their recurrences stand in, called as the kernels can be called."""
    pytest.importorskip("fla")
    import fla.ops.gated_delta_rule
    import fla.ops.kda
    import fla.ops.rwkv6
    import fla.ops.rwkv7

    monkeypatch.setattr(gpu, "require", lambda *_: None)
    delta = ((fla.ops.gated_delta_rule, "chunk_gated_delta_rule"), (fla.ops.kda, "chunk_kda"))
    for module, kernel in ((fla.ops.rwkv6, "chunk_rwkv6"), (fla.ops.rwkv7, "chunk_rwkv7"), *delta):
        signature = inspect.signature(getattr(module, kernel))

        def stand_in(*tensors, signature=signature, **options):
            given = signature.bind(*tensors, **options).arguments
            assert given.pop("scale") == 1.0
            if "w" in given:
                given["w"] = (-given["w"]).log()
            order = ORDERS.get(name, ("r", "k", "v", "w", "u"))
            return operator.implementation(name, operator.FLA)(*(given[key] for key in order)), None

        monkeypatch.setattr(module, kernel, stand_in)
    tensors = operator.make_inputs(name, (2, 9, 3, 8), high=-1.0)
    ours, theirs = operator.implementation(name, "reference")(*tensors), gpu.fla_kernel(name, CUDA)(*tensors)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", operator.MULTIPLY_ADDS)
def test_the_kernels_of_fla_compute_the_same(name):
    pytest.importorskip("fla")
    tensors = [x.to("cuda", torch.bfloat16) for x in operator.make_inputs(name, (2, 200, 3, 64), high=-1.0)]
    ours, theirs = operator.implementation(name, "triton")(*tensors), gpu.fla_kernel(name, CUDA)(*tensors)
    assert (ours - theirs).abs().max() <= 3e-2 * theirs.abs().max()
