"""Steps that are not finite or spike: skipped, counted, and in a row the end of a run."""

import math
import re

import pytest

from mmrnn.training.loop.step_guard import GuardDecision, StepGuard


def wavy(count):
    return [1.0 + 0.1 * (-1) ** number for number in range(count)]


def fed(guard, losses):
    for loss in losses:
        assert guard.check(1, loss, 1.0, 1e-3) == GuardDecision()
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (-math.inf, math.nan)])
def test_a_step_that_is_not_finite_is_skipped(loss, norm):
    guard = StepGuard(max_bad_steps=3)
    for _ in range(4):
        for _ in range(2):
            skip, fault, end = guard.check(7, loss, norm, 1e-3)
            assert skip
            assert not end
            assert fault == f"its loss ({loss:g}) or the norm of its gradient ({norm:g}) is not finite"
        assert not guard.check(7, 1.0, 1.0, 1e-3).skip
    guard.check(8, loss, norm, 1e-3)
    guard.check(8, loss, norm, 1e-3)
    assert re.match(
        r"step 8 failed 3 times: .* not finite; lower the learning rate \(0.001\)", guard.check(8, loss, norm, 1e-3).end
    )


def test_a_spike_is_five_deviations_above_the_last_200():
    guard = fed(StepGuard(), wavy(200))
    assert guard.check(1, 1.49, 1.0, 1e-3) == GuardDecision()
    guard = fed(StepGuard(), wavy(200))
    skip, fault, _ = guard.check(1, 1.51, 1.0, 1e-3)
    assert not skip
    assert fault == "its loss (1.51) is more than 5 standard deviations (0.1) above the mean of the last 200 (1)"
    assert guard.check(1, -9.0, 1.0, 1e-3).fault == ""


def test_nothing_is_known_of_a_young_run():
    guard = fed(StepGuard(), wavy(49))
    assert guard.check(1, 100.0, 1.0, 1e-3).fault == ""


def test_a_skipped_spike_changes_nothing_until_there_are_too_many():
    guard = fed(StepGuard(on_spike="skip", max_bad_steps=3), wavy(200))
    before = guard.state_dict()
    assert guard.check(5, 3.0, 1.0, 1e-3).skip
    assert guard.check(5, 3.0, 1.0, 1e-3).skip
    assert guard.state_dict() == before
    assert re.match(r"step 5 failed 3 times: its loss \(3\) .*or set on_spike=warn", guard.check(5, 3.0, 1.0, 1e-3).end)


def test_a_spike_can_stop_the_run():
    guard = fed(StepGuard(on_spike="stop"), wavy(200))
    assert re.match(
        r"step 9 is not made: its loss \(3\) .*resume with on_spike=skip", guard.check(9, 3.0, 1.0, 1e-3).end
    )


def test_a_resumed_guard_decides_as_the_first():
    first = fed(StepGuard(), wavy(120))
    second = StepGuard()
    second.load_state_dict(first.state_dict())
    for loss in (1.0, 1.7, 5.0):
        assert first.check(1, loss, 1.0, 1e-3) == second.check(1, loss, 1.0, 1e-3)
