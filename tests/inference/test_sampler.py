"""The next token: ranges, limits, the rules of transformers, and one stream of random numbers for each row."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from mmrnn.inference.sampler import Sampler, choose_tokens, samplers_of_rows, seeded_generators

LOGITS = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
CPU = torch.device("cpu")


def draw(logits, sampler, count=50, reply=()):
    """Ids that as many seeds draw from the logits of one row."""
    samplers = [replace(sampler, seed=seed) for seed in range(count)]
    rows = logits.expand(count, -1)
    return {*choose_tokens(rows, samplers, seeded_generators(samplers, CPU), [reply] * count).tolist()}


def choose(logits, *samplers, replies=None):
    return choose_tokens(logits, samplers, seeded_generators(samplers, CPU), replies or [[]] * len(logits)).tolist()


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"top_p": 0.0},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": 1e-300},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "min_p": 1.0},
        {"temperature": 1e-45},
        {"temperature": 5e-324, "top_k": 2, "top_p": 0.5, "min_p": 0.5},
    ],
)
def test_the_limits_are_greedy(knobs):
    assert draw(LOGITS, Sampler(**knobs)) == {2}
    assert draw(1e30 * LOGITS, Sampler(**knobs)) == {2}


def test_a_large_temperature_reaches_every_token():
    assert draw(LOGITS, Sampler(temperature=1e300, top_k=1000), 200) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (-1.0, float("nan"), float("inf"), True, "1", None, 10**400)),
        ("top_p", (-1.0, 1.5, float("nan"), [0.5])),
        ("min_p", (-0.1, 1.01, float("nan"), float("-inf"))),
        ("top_k", (-1, 1.0, True, "2")),
        ("repetition_penalty", (-1.0, 0, 0.0, float("nan"), float("inf"))),
        ("seed", (-1, 2**63, 1.0, False, "7")),
    ],
)
def test_values_outside_their_range_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name} \(.*\) must"):
            Sampler(**{name: value})


def test_a_sampler_is_a_value():
    assert Sampler(top_k=3) == Sampler(top_k=3)
    assert len({Sampler(), Sampler(), Sampler(seed=1)}) == 2
    with pytest.raises(FrozenInstanceError):
        Sampler().temperature = 2.0


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(fault, temperature):
    logits = LOGITS.repeat(2, 1)
    logits[1, 3] = fault
    with pytest.raises(ValueError, match="the logits are not finite"):
        choose(logits, *[Sampler(temperature=temperature)] * 2)


def test_forbidden_tokens_are_never_drawn():
    logits = torch.tensor([[1.0, float("-inf"), 1.0]])
    for penalty in (1.0, 2.0, 1e-300):
        sampler = Sampler(temperature=9.0, repetition_penalty=penalty)
        assert draw(logits, sampler, 60, [1]) == {0, 2}
    with pytest.raises(ValueError, match="not finite"):
        choose(torch.full((1, 3), float("-inf")), Sampler(temperature=1.0))


def test_a_repeated_token_is_penalised_once():
    sampler = Sampler(repetition_penalty=1.6)
    assert choose(LOGITS, sampler, replies=[[2, 2]]) == [1]
    assert choose(LOGITS, sampler, replies=[[0, 2, 1]]) == [2]
    assert choose(-LOGITS, sampler, replies=[[3]]) == [3]
    assert choose(-LOGITS - 0.5, sampler, replies=[[3]]) == [3]
    assert choose(-LOGITS - 2, sampler, replies=[[3]]) == [0]
    # Of rows with and without a penalty, each keeps its own.
    assert choose(LOGITS.expand(3, -1), sampler, Sampler(), sampler, replies=[[2], [2], []]) == [1, 2, 2]
    assert choose(LOGITS, Sampler(repetition_penalty=1e-300), replies=[[0]]) == [0]
    assert choose(1e38 * LOGITS, Sampler(repetition_penalty=5e-324), replies=[[0]]) == [0]


@pytest.mark.parametrize(
    "knobs",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 7},
        {"temperature": 0.9, "top_p": 0.8},
        {"temperature": 2.0, "min_p": 0.1},
        {"temperature": 1.0, "repetition_penalty": 1.5},
        {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    ],
)
def test_the_same_tokens_as_in_transformers_can_be_drawn(knobs):
    """The set that is drawn from, and the probabilities within it, are those of transformers."""
    process = pytest.importorskip("transformers.generation.logits_process")
    torch.manual_seed(0)
    logits, reply = 3 * torch.randn(1, 40), [3, 9, 9, 31]
    processors = [
        process.RepetitionPenaltyLogitsProcessor(knobs.get("repetition_penalty", 1.0)),
        process.TemperatureLogitsWarper(knobs["temperature"]),
        process.TopKLogitsWarper(knobs.get("top_k") or 40),
        process.TopPLogitsWarper(knobs.get("top_p", 1.0)),
        process.MinPLogitsWarper(knobs.get("min_p", 0.0)),
    ]
    scores = logits
    for processor in processors:
        scores = processor(torch.tensor([reply]), scores)
    count = 4000
    samplers = [Sampler(**knobs, seed=seed) for seed in range(count)]
    ids = choose_tokens(logits.expand(count, -1), samplers, seeded_generators(samplers, CPU), [reply] * count)
    found = ids.bincount(minlength=40) / count
    wanted = scores.softmax(-1)[0]
    assert not found[wanted == 0].any()
    assert (found - wanted).abs().max() < 0.03


def test_a_row_draws_the_same_in_any_batch():
    torch.manual_seed(0)
    logits = torch.randn(7, 200)
    plain = Sampler(temperature=2.0, top_k=100, top_p=0.9)
    samplers = [
        *(replace(plain, seed=seed) for seed in (3, 1, 4)),
        Sampler(),
        Sampler(temperature=1.0, min_p=0.2, seed=1),
        Sampler(temperature=3.0, repetition_penalty=1.7, seed=5),
        Sampler(repetition_penalty=1.3),
    ]

    def replies(rows):
        """Twenty tokens of each row."""
        own = [samplers[row] for row in rows]
        generators, replies = seeded_generators(own, CPU), [[] for _ in rows]
        for _ in range(20):
            for reply, id in zip(replies, choose_tokens(logits[rows], own, generators, replies).tolist(), strict=True):
                reply.append(id)
        return replies

    together = replies(range(7))
    assert together == [replies([row])[0] for row in range(7)]
    assert replies([4, 2, 5]) == [together[4], together[2], together[5]]
    assert len({tuple(row) for row in together}) == 7
    assert together[3] == [logits[3].argmax().item()] * 20
    assert len({*together[6]}) > 1


def test_one_sampler_or_one_for_each_row():
    one, other = Sampler(top_k=1), Sampler(top_k=2)
    assert samplers_of_rows(None, 2) == [Sampler(), Sampler()]
    assert samplers_of_rows(one, 3) == [one, one, one]
    assert samplers_of_rows((one, other), 2) == [one, other]
    with pytest.raises(ValueError, match="1 samplers for 2 rows"):
        samplers_of_rows([one], 2)
    for wrong in ("greedy", [one, 0.7]):
        with pytest.raises(ValueError, match="is no Sampler"):
            samplers_of_rows(wrong, 2)


def test_seeds_that_are_not_given_follow_the_default_generator():
    drawing = Sampler(temperature=1.0)

    def seeds(*samplers):
        torch.manual_seed(7)
        return [each and each.initial_seed() for each in seeded_generators(samplers, CPU)]

    assert seeds(drawing) == seeds(drawing, drawing, drawing)[:1]
    assert len(set(seeds(drawing, drawing, drawing))) == 3
    # What draws nothing takes no random numbers.
    assert seeds(Sampler(), drawing, replace(drawing, seed=4)) == [None, *seeds(drawing), 4]


def test_the_draws_are_those_of_multinomial():
    torch.manual_seed(0)
    logits, seeds = 3 * torch.randn(5, 300), range(5)
    samplers = [Sampler(temperature=1.3, seed=seed) for seed in seeds]
    ours, theirs = seeded_generators(samplers, CPU), seeded_generators(samplers, CPU)
    probability = (logits.double() / 1.3).softmax(-1)
    for _ in range(20):
        drawn = [torch.multinomial(row, 1, generator=one).item() for row, one in zip(probability, theirs, strict=True)]
        assert choose_tokens(logits, samplers, ours, [[]] * 5).tolist() == drawn
