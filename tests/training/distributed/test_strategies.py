"""Several processes take the steps of one: DDP and FSDP, whatever their micro-batches show."""

from functools import partial

import pytest

import mmrnn
from mmrnn.training import Distillation
from mmrnn.training.distributed.strategies import DDP, FSDP, Single
from tests.training.distributed.ranks import run_ranks
from tests.training.distributed.steps import losses_and_norms

STRATEGIES = [DDP, FSDP]


@pytest.fixture
def compare(tmp_path):
    def run(size, strategy, options):
        return run_ranks(size, lambda world: losses_and_norms(world, strategy, **options), tmp_path)

    def check(strategy, *, loss=1e-6, norm=1e-5, ranks=2, **options):
        [(losses, norms)] = run(1, Single(), options)
        several = run(ranks, strategy, options)
        assert all(one == several[0] for one in several)
        assert len(set(losses)) == len(losses)
        assert several[0][0] == pytest.approx(losses, rel=loss)
        assert several[0][1] == pytest.approx(norms, rel=norm)

    return check


def test_two_processes_take_the_steps_of_one(compare):
    """FSDP with VisualRWKV-6; the other models and DDP are slow."""
    compare(FSDP())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "strategy"), [("visualrwkv6_tiny", DDP), ("visualrwkv7_tiny", FSDP), ("llava15_tiny", FSDP)]
)
def test_text_and_images_on_different_ranks(compare, strategy, model):
    compare(strategy(), overrides=[f"model={model}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "strategy"), [("flamingo_tiny", DDP), ("flamingo_tiny", FSDP), ("cogvlm_tiny", FSDP)]
)
def test_hooks_that_a_text_leaves_out(compare, strategy, model):
    compare(strategy(), overrides=[f"model={model}"], parts=("connector", "hook"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_recomputed_blocks(compare, strategy):
    compare(strategy(), overrides=["model=visualrwkv6_tiny", "backbone.grad_checkpointing=1"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_stage_trains_what_was_frozen(compare, strategy):
    compare(strategy(), parts=("connector",), stages=2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_micro_batch_all_of_whose_samples_are_dropped(compare, strategy):
    compare(strategy(), empty=True)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "strategy"), [("fp16", DDP), ("bf16", FSDP), ("fp16", FSDP)])
def test_half_precision(compare, strategy, precision):
    compare(strategy(), precision=precision, loss=2e-3, norm=2e-3)


@pytest.mark.slow
def test_muon(compare):
    """The strategy that cuts the matrices: with the other one each process has them whole."""
    compare(FSDP(), optimizer="MuonWithAdamW", loss=1e-4, norm=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("only", ["blocks", "logits"])
def test_distillation_with_a_teacher_in_every_process(compare, strategy, only, tmp_path):
    parts = ("model=visualrwkv7_tiny", "encoder=patch_tiny", "connector=linear")
    mmrnn.save(mmrnn.build(mmrnn.compose(*parts, "backbone=transformer_tiny")), tmp_path / "teacher")
    weights = {"blocks": float(only == "blocks"), "logits": float(only == "logits")}
    trained = ("backbone.blocks.*",) if only == "blocks" else ("connector", "backbone")
    objective = partial(Distillation, teacher=str(tmp_path / "teacher"), **weights)
    compare(strategy(), overrides=parts, objective=objective, parts=trained)


@pytest.mark.slow
def test_hybrid_sharding(compare):
    compare(FSDP(replicate=2), ranks=4)
