"""Intervals over seeds and images cover, planted effects are found and planted nulls are not."""

from math import isnan

import numpy as np
import pytest

from mmrnn.evaluation.reports.resampling import RESAMPLES, over_kinds, resample_images, student_quantile
from mmrnn.evaluation.reports.seed_statistics import (
    MAX_EXACT,
    SeedEstimate,
    holm,
    of_combinations,
    sign_flip_p,
    smallest_difference,
)
from mmrnn.evaluation.reports.statistics import is_significant, mean_with_interval

CLUSTERS = np.repeat(np.arange(80), 3)
KINDS = np.array(["colour", "count"])[np.arange(240) % 2]


def over_seeds(values, kinds, clusters, *, groups=None, resamples=RESAMPLES):
    """Estimates of the mean of some rows of scores, or of differences of pairs."""
    return of_combinations(resample_images(values, kinds, clusters, resamples), np.eye(len(values)), groups)


def study(rng, pairs, effect, *, seed_sd=0.018, image_sd=0.1, clusters=CLUSTERS):
    """Differences of two designs, right or wrong, for every pair of seeds and question: -1, 0 or 1.

    A seed of a design is better or worse than another, an image may suit one of the designs, and two runs agree on
    most questions.
    """
    images = clusters.max() + 1
    ease, suits = rng.uniform(0.3, 0.7, images)[clusters], rng.normal(0, image_sd, images)[clusters]
    moved = rng.normal(0, seed_sd, (2, pairs, 1))
    luck = rng.uniform(size=(2, pairs, len(clusters)))
    luck[1] = np.where(rng.uniform(size=luck[1].shape) < 0.5, luck[0], luck[1])
    right = luck < ease + moved + np.array([0, 1])[:, None, None] * (effect + suits)
    return right[1].astype(float) - right[0]


@pytest.mark.parametrize(
    ("seeds", "seed_sd"),
    [
        (5, 0.018),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((3, 0.018), (5, 0.0), (5, 0.05), (10, 0.018))),
    ],
)
def test_intervals_cover_the_true_difference(seeds, seed_sd):
    rng, covered = np.random.default_rng(seeds), 0
    for _ in range(1000):
        mean = over_seeds(study(rng, seeds, 0.05, seed_sd=seed_sd), KINDS, CLUSTERS, resamples=300).mean
        covered += mean.low <= 0.05 <= mean.high
    assert 930 <= covered <= 970


def test_intervals_over_one_source_of_error_are_too_short():
    """Images resampled with the seeds taken as given, and the other way round, miss the true difference too often."""
    rng, covered = np.random.default_rng(3), np.zeros(2)
    for _ in range(200):
        restless, choosy = study(rng, 5, 0.05, seed_sd=0.05), study(rng, 5, 0.05, seed_sd=0.005, image_sd=0.4)
        found = [
            mean_with_interval(restless.mean(axis=0), KINDS, CLUSTERS, resamples=300),
            over_seeds(np.repeat(choosy.mean(axis=1, keepdims=True), 240, axis=1), KINDS, CLUSTERS, resamples=300).mean,
        ]
        covered += [one.low <= 0.05 <= one.high for one in found]
    assert (covered < 170).all()


def test_a_planted_effect_is_found_and_a_planted_null_is_not():
    """Five points, with five seeds on each of two backbones, 240 images and 8 questions each; beside a null."""
    rng, found = np.random.default_rng(11), np.zeros(2)
    groups, clusters = np.repeat([0, 1], 5), np.repeat(np.arange(240), 8)
    kinds = np.array([*"abcdefgh"] * 240)
    for _ in range(100):
        contrasts = [study(rng, 10, effect, image_sd=0.05, clusters=clusters) for effect in (0.05, 0.0)]
        means = [over_seeds(values, kinds, clusters, groups=groups, resamples=200).mean for values in contrasts]
        ps = holm([sign_flip_p(values.mean(axis=1)) for values in contrasts])
        found += [is_significant(mean.interval, p) for mean, p in zip(means, ps, strict=True)]
    assert found[0] >= 95
    assert found[1] <= 5


def test_values_are_those_of_the_report():
    values = np.array([[1, 0, 1, 1.0, 0, 0], [0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    kinds, clusters = ["a", "a", "b", "a", "b", "b"], np.arange(6)
    found = over_seeds(values, kinds, clusters, groups=[0, 0, 1], resamples=50)
    by_kind = np.stack([values[:, [0, 1, 3]].mean(axis=1), values[:, [2, 4, 5]].mean(axis=1)], axis=1)
    expected = (by_kind[:2].mean(axis=0) + by_kind[2]) / 2  # the groups weigh the same
    assert [one.value for one in found.kinds.values()] == pytest.approx([*expected])
    assert found.mean.value == pytest.approx(over_kinds(expected))
    assert all(
        isnan(one.low) and isnan(one.error) for one in (found.mean, *found.kinds.values())
    )  # one seed in a group
    assert isnan(smallest_difference(found.mean))


def test_seeds_alone_give_student_s_interval():
    """All images alike: what is left is the t interval of the means of the seeds."""
    values = np.repeat([[0.1], [0.4], [0.3], [0.6]], 2, axis=1)
    found = over_seeds(values, ["a", "b"], np.arange(2)).mean
    far = student_quantile(0.95, 3) * np.std(values[:, 0], ddof=1) / 2
    assert found.freedom == pytest.approx(3)
    assert [found.low, found.high] == pytest.approx([0.35 - far, 0.35 + far], abs=0.03 * far)


def test_equal_designs_differ_by_nothing():
    found = over_seeds(np.zeros((4, 240)), KINDS, CLUSTERS, resamples=20).mean
    assert found == SeedEstimate(0, 0, 0, 0, 3)
    assert smallest_difference(found) == 0
    assert sign_flip_p(np.zeros(4)) == 1


def test_one_image_gives_no_interval():
    values = np.array([[1.0, 0, 1], [0, 0, 1]])
    one = over_seeds(values, ["a", "b", "b"], np.zeros(3, int))
    assert all(isnan(each.low) for each in (one.mean, *one.kinds.values()))
    two = over_seeds(values, ["a", "b", "b"], np.array([0, 0, 1]), resamples=50)
    assert (isnan(two.mean.low), isnan(two.kinds["a"].low), isnan(two.kinds["b"].low)) == (False, True, False)


def test_a_kind_with_most_questions_about_one_image():
    """A mean over hardly any question, where that image is not drawn, is no reason for an interval beyond 0 and 1."""
    right = np.random.default_rng(0).uniform(size=(5, 31 + 20)) < 0.6
    clusters = np.concatenate([np.repeat([0, 1], [30, 1]), np.arange(20)])
    found = over_seeds(right.astype(float), ["a"] * 31 + ["b"] * 20, clusters)
    assert 0 < found.mean.low < found.mean.high < 1
    assert found.kinds["a"].error < 0.25


def test_the_smallest_difference_is_that_of_a_power_table():
    """Ten pairs, standard error 1: a paired t-test finds 3.2 in 80 of 100 studies (G*Power: d = 1.00 for n = 10)."""
    estimate = SeedEstimate(0.0, -1, 1, 10**-0.5, 9)
    assert smallest_difference(estimate) == pytest.approx(1.0, abs=0.02)


def test_signs_are_flipped_exactly():
    assert sign_flip_p(np.array([1.0, 2, 3, 4, 5, 6])) == 2 / 2**6
    assert sign_flip_p(np.array([1.0, -1])) == 1
    assert sign_flip_p(np.array([3.0, 1, -1])) == 6 / 8  # all but 3 - 1 - 1, and its opposite, are 3 or more
    rng = np.random.default_rng(0)
    many = rng.normal(0.5, 1, MAX_EXACT)
    exact, drawn = sign_flip_p(many), sign_flip_p(np.append(many, 0.0))  # a difference of 0 changes nothing
    assert drawn == pytest.approx(exact, rel=0.2)


def test_holm_corrects_for_the_number_of_contrasts():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1, 1]
    assert holm([]) == []
