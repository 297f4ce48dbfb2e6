"""The next token: ranges, limits, and one stream of random numbers for each row."""

import pytest
import torch

from mmrnn.inference.sampler import Sampler, seeded_generators

LOGITS = torch.tensor([[1.0, 2.0, 3.0, 0.0]])


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"top_p": 0.0},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": 1e-300},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1e-45},
        {"temperature": 5e-324, "top_k": 2, "top_p": 0.5},
    ],
)
def test_the_limits_are_greedy(knobs):
    sampler = Sampler(**knobs)
    assert {sampler(LOGITS).item() for _ in range(50)} == {2}
    assert sampler(1e30 * LOGITS).tolist() == [2]


def test_a_large_temperature_reaches_every_token():
    generators = seeded_generators(range(1), 1, torch.device("cpu"))
    sampler = Sampler(temperature=1e300, top_k=1000)
    assert {sampler(LOGITS, generators).item() for _ in range(200)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (-1.0, float("nan"), float("inf"))),
        ("top_p", (-1.0, 1.5, float("nan"))),
        ("top_k", (-1,)),
    ],
)
def test_values_outside_their_range_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name} \({value}\) must"):
            Sampler(**{name: value})


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(fault, temperature):
    logits = LOGITS.repeat(2, 1)
    logits[1, 3] = fault
    with pytest.raises(ValueError, match="the logits are not finite"):
        Sampler(temperature=temperature)(logits)


def test_forbidden_tokens_are_never_drawn():
    logits = torch.tensor([[1.0, float("-inf"), 1.0]])
    assert {Sampler(temperature=9.0)(logits).item() for _ in range(60)} == {0, 2}
    with pytest.raises(ValueError, match="not finite"):
        Sampler(temperature=1.0)(torch.full((1, 3), float("-inf")))


def test_a_row_draws_the_same_in_any_batch():
    logits, seeds = torch.randn(5, 200), [3, 1, 4, 1, 5]
    sampler, device = Sampler(temperature=2.0, top_k=100, top_p=0.9), torch.device("cpu")

    def draw(rows):
        generators = seeded_generators([seeds[row] for row in rows], len(rows), device)
        return torch.stack([sampler(logits[rows], generators) for _ in range(20)], 1).tolist()

    together = draw([0, 1, 2, 3, 4])
    assert together == [draw([row])[0] for row in range(5)]
    assert draw([4, 2]) == [together[4], together[2]]
    assert len({tuple(row) for row in together}) == 5


def test_wrong_seeds_are_named():
    device = torch.device("cpu")
    with pytest.raises(ValueError, match="1 seeds for 2 rows"):
        seeded_generators([1], 2, device)
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=f"the seed {seed} must lie"):
            seeded_generators([seed], 1, device)


def test_seeds_that_are_not_given_follow_the_default_generator():
    def draw(rows):
        torch.manual_seed(7)
        return [generator.initial_seed() for generator in seeded_generators(None, rows, torch.device("cpu"))]

    assert draw(1) == draw(3)[:1]
    assert len(set(draw(3))) == 3
