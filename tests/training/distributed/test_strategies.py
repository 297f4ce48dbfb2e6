"""Two processes take the steps of one: DDP and FSDP, whatever their micro-batches show."""

import pytest

STRATEGIES = ["ddp", "fsdp"]


def compare(launch, strategy, *arguments, loss=1e-6, norm=1e-5, ranks=2):
    [alone] = launch("steps.py", 1, "single", *arguments)
    several = launch("steps.py", ranks, strategy, *arguments)
    assert all(one == several[0] for one in several)
    assert len(set(alone["losses"])) == len(alone["losses"])
    assert several[0]["losses"] == pytest.approx(alone["losses"], rel=loss)
    assert several[0]["norms"] == pytest.approx(alone["norms"], rel=norm)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_text_and_images_on_different_ranks(launch, strategy):
    compare(launch, strategy)
