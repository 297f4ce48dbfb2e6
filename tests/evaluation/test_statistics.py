"""Intervals cover what they claim, questions about one image fall together, and equal runs differ by nothing."""

import numpy as np
import pytest

from mmrnn.evaluation.accuracy import Answer, mean, scores
from mmrnn.evaluation.reports import resampling
from mmrnn.evaluation.reports.statistics import (
    Estimate,
    discordance,
    image_clusters,
    is_significant,
    mean_with_interval,
    score_with_interval,
    spread,
)

IMAGES, MOST = 40, 6


def clustered_pair(rng):
    """Right and wrong of two runs on images with 1 to 6 questions each, and the image of every question.

    An image is hard or easy for both runs; a run is right with the probability `ease` or `ease + gain`, where `gain` is
    the image's own, uniform on -0.2 to 0.4: the true difference is 0.1.
    """
    clusters = np.repeat(np.arange(IMAGES), rng.integers(1, MOST + 1, IMAGES))
    ease, gain = rng.uniform(0.2, 0.6, IMAGES)[clusters], rng.uniform(-0.2, 0.4, IMAGES)[clusters]
    luck = rng.uniform(size=(2, len(clusters)))
    luck[1] = np.where(
        rng.uniform(size=len(clusters)) < 0.5, luck[0], luck[1]
    )  # the two runs agree by more than chance
    return luck[0] < ease, luck[1] < ease + gain, clusters


def test_intervals_cover_the_true_difference():
    rng, covered = np.random.default_rng(7), 0
    for _ in range(1000):
        one, other, clusters = clustered_pair(rng)
        found = mean_with_interval(other.astype(int) - one, ["any"] * len(one), clusters, resamples=1000)
        covered += found.low <= 0.1 <= found.high
    assert 930 <= covered <= 970


def test_questions_taken_as_independent_give_too_short_intervals():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 2, 50)
    right, clusters = np.repeat(image, 8), np.repeat(np.arange(50), 8)  # all questions about an image, or none
    widths = [
        found.high - found.low
        for groups in (clusters, np.arange(400))
        for found in [mean_with_interval(right, ["any"] * 400, groups)]
    ]
    assert widths[0] / widths[1] == pytest.approx(8**0.5, rel=0.15)


def test_the_mean_is_that_of_the_report():
    answers = [Answer(kind, "?", "yes", reply) for kind, reply in zip("aaab" * 5, ("yes", "no") * 10, strict=True)]
    right, kinds = np.array([answer.right for answer in answers]), [answer.kind for answer in answers]
    found = mean_with_interval(right, kinds, np.arange(20))
    assert found.value == pytest.approx(mean(scores(answers)))
    assert found.low < found.value < found.high
    assert found == mean_with_interval(right, kinds, np.arange(20))
    assert found != mean_with_interval(right, kinds, np.arange(20), seed=1)


def test_batches_of_resamples_do_not_change_the_interval(monkeypatch):
    rng = np.random.default_rng(1)
    right, kinds, clusters = rng.integers(0, 2, 60), ["a", "b", "c"] * 20, np.repeat(np.arange(20), 3)
    whole = mean_with_interval(right, kinds, clusters)
    monkeypatch.setattr(resampling, "MAX_ELEMENTS", 1000)
    assert mean_with_interval(right, kinds, clusters) == pytest.approx(whole, abs=1e-12)


def test_two_copies_of_one_run_differ_by_nothing():
    right = np.random.default_rng(2).integers(0, 2, 90).astype(bool)
    difference = mean_with_interval(right.astype(int) - right, ["any"] * 90, np.repeat(np.arange(30), 3))
    assert difference == Estimate(0, 0, 0)
    assert discordance(right, right) == (0, 0, 1.0)
    assert not is_significant(difference, 1.0)


def test_one_image_gives_no_interval():
    found = mean_with_interval(np.array([1, 0]), ["a", "a"], np.array([0, 0]))
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert not is_significant(found, 0.001)


def test_mcnemar_is_exact():
    one = np.array([True] * 2 + [False] * 8 + [True] * 5)
    other = np.array([False] * 2 + [True] * 8 + [True] * 5)
    found = discordance(one, other)
    assert found[:2] == (8, 2)
    assert found.p == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert discordance(other, one).p == pytest.approx(found.p)
    assert discordance(one, other / 2) == (8, 7, None)


@pytest.mark.parametrize(
    ("low", "high", "p", "apart"),
    [
        *((0.1, 0.3, 0.01, True), (-0.3, -0.1, 0.01, True), (0.1, 0.3, 0.06, False), (-0.1, 0.3, 0.01, False)),
        *((0.1, 0.3, None, True), (-0.1, 0.3, None, False), (1e-17, 0.3, None, False)),
    ],
)
def test_both_tests_must_agree(low, high, p, apart):
    assert is_significant(Estimate((low + high) / 2, low, high), p) is apart


def test_questions_that_share_an_image_fall_together():
    assert [*image_clusters([("a",), (), ("b", "c"), ("a",), ("c",), (), ("d",)])] == [0, 1, 2, 0, 2, 3, 4]
    assert [*image_clusters([(), ()])] == [0, 1]


def test_spread_over_seeds():
    assert spread([0.5, 0.6, 0.7]) == pytest.approx((0.6, 0.1, 0.5, 0.7))


@pytest.mark.parametrize("score", [0, 1])
def test_scores_that_are_all_the_same_are_not_certain(score):
    """Of 30 images without a right answer, up to 11.6 % right answers are possible: 0.884^30 is 0.025."""
    found = score_with_interval(np.full(60, score), ["a", "b"] * 30, np.repeat(np.arange(30), 2))
    far = 0.025 ** (1 / 30)
    assert found == pytest.approx((score, 0, 1 - far) if score == 0 else (score, far, 1))
    mixed = np.array([0, 1] * 30)
    assert score_with_interval(mixed, ["a"] * 60, np.arange(60)) == mean_with_interval(mixed, ["a"] * 60, np.arange(60))
