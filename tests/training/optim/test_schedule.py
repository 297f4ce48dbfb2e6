"""Learning rates, beside those of VisualRWKV's trainer."""

from itertools import pairwise

import pytest

from mmrnn.training.optim.schedule import WSD, Constant, Cosine, Linear, cosine, geometric, linear, wsd


@pytest.mark.golden
def test_rates_and_decays(golden):
    meta, _ = golden("lr")
    for case in meta["cases"]:
        settings = case["settings"]
        begun = settings["epoch_begin"] * settings["epoch_steps"]
        steps = begun + settings["epoch_count"] * settings["epoch_steps"]
        shape = {"steps": steps, "warmup": settings["warmup_steps"]}
        for index, done in enumerate(case["optimizer_step"]):
            step = done * settings["accumulate_grad_batches"] + begun
            rate = cosine(step, lr=settings["lr_init"], min_lr=settings["lr_final"], **shape)
            assert rate == pytest.approx(case["lr"][index], rel=1e-9), (case["name"], index)
            assert rate == pytest.approx(case["undecayed_group_lr"][index], rel=1e-9)
            if settings["weight_decay"] > 0:
                decay = geometric(step, start=settings["weight_decay"], final=settings["weight_decay_final"], **shape)
                assert decay == pytest.approx(case["matrix_group_weight_decay"][index], rel=1e-9), (case["name"], index)


def test_the_ends_of_the_curve():
    rates = [cosine(step, steps=100, lr=1.0, min_lr=0.1, warmup=10) for step in range(120)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[99] == rates[119] == pytest.approx(0.1)
    assert cosine(5, steps=1, lr=1.0, min_lr=0.5) == pytest.approx(0.5)


def test_a_line_falls_by_equal_steps():
    rates = [linear(step, steps=10, lr=1.0, min_lr=0.1) for step in range(10)]
    assert [one - other for one, other in pairwise(rates)] == pytest.approx([0.09] * 9)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(("schedule", "function"), [(Cosine, cosine), (Linear, linear)])
def test_a_card_of_a_schedule_is_its_function(schedule, function):
    made = schedule(min_lr=0.1, warmup=3)
    for step in range(12):
        assert made.lr_at(step, steps=10, lr=1.0) == function(step, steps=10, lr=1.0, min_lr=0.1, warmup=3)


def test_a_constant_rate_only_grows_in():
    rates = [Constant(warmup=4).lr_at(step, steps=10, lr=2.0) for step in range(12)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[:4] == sorted(rates[:4])
    assert set(rates[4:]) == {2.0}


@pytest.mark.parametrize(
    ("decay_type", "middle"), [("linear", 0.55), ("cosine", 0.55), ("sqrt", 0.1 + 0.9 * (1 - 0.5**0.5))]
)
def test_wsd_is_stable_and_falls_at_the_end(decay_type, middle):
    made = WSD(min_lr=0.1, warmup=5, decay_ratio=0.2, decay_type=decay_type)
    rates = [made.lr_at(step, steps=100, lr=1.0) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[5:80]) == {1.0}
    assert rates[80] < 1.0
    assert rates[89] == pytest.approx(middle)
    assert all(later < earlier for earlier, later in pairwise(rates[79:100]))
    assert rates[99] == rates[109] == pytest.approx(0.1)


def test_wsd_may_decay_from_the_warm_up_on_or_never():
    shape = {"decay_ratio": 1.0, "decay_type": "linear"}
    rates = [wsd(step, steps=10, lr=1.0, min_lr=0.0, warmup=4, **shape) for step in range(10)]
    assert rates[3] < rates[4] < 1.0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert {wsd(step, steps=10, lr=1.0, min_lr=0.0, decay_ratio=0.0) for step in range(12)} == {1.0}
    assert wsd(2, steps=3, lr=1.0, min_lr=0.0, decay_ratio=0.1) == 0.0
    assert wsd(1, steps=3, lr=1.0, min_lr=0.0, warmup=3) == pytest.approx(0.4)
