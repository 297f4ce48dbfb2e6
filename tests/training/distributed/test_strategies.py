"""Several processes take the steps of one: DDP and FSDP, whatever their micro-batches show."""

import pytest

STRATEGIES = ["ddp", "fsdp"]


def compare(launch, strategy, *arguments, loss=1e-6, norm=1e-5, ranks=2):
    [alone] = launch("steps.py", 1, "single", *arguments)
    several = launch("steps.py", ranks, strategy, *arguments)
    assert all(one == several[0] for one in several)
    assert len(set(alone["losses"])) == len(alone["losses"])
    assert several[0]["losses"] == pytest.approx(alone["losses"], rel=loss)
    assert several[0]["norms"] == pytest.approx(alone["norms"], rel=norm)


def test_two_processes_take_the_steps_of_one(launch):
    compare(launch, "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("model", ["visualrwkv6_tiny", "visualrwkv7_tiny", "llava15_tiny"])
def test_text_and_images_on_different_ranks(launch, strategy, model):
    compare(launch, strategy, "--overrides", f"model={model}")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("model", ["flamingo_tiny", "cogvlm_tiny"])
def test_hooks_that_a_text_leaves_out(launch, strategy, model):
    compare(launch, strategy, "--overrides", f"model={model}", "--parts", "connector", "hook")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_recomputed_blocks(launch, strategy):
    compare(launch, strategy, "--overrides", "model=visualrwkv6_tiny", "backbone.grad_checkpointing=1")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_stage_trains_what_was_frozen(launch, strategy):
    compare(launch, strategy, "--parts", "connector", "--stages", "2")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_micro_batch_all_of_whose_samples_are_dropped(launch, strategy):
    compare(launch, strategy, "--empty")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(launch, strategy, precision):
    compare(launch, strategy, "--precision", precision, loss=2e-3, norm=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_muon(launch, strategy):
    compare(launch, strategy, "--optimizer", "MuonWithAdamW", loss=1e-4, norm=1e-4)


@pytest.mark.slow
def test_hybrid_sharding(launch):
    compare(launch, "fsdp", "--replicate", "2", ranks=4)
