"""Generation at its edges: nothing to read, nothing to write, and states of others."""

import jaxtyping
import pytest
import torch

from mmrnn.backbones import RWKV6, RWKV7, Transformer
from mmrnn.inference.generate import generate, prefill, stream
from mmrnn.inference.sampler import Sampler
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Sequence, State


def rwkv(kind=RWKV6, depth=2):
    made = kind(vocab=20, width=32, depth=depth, head_size=16).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return VLM(made, {})


def batch(rows=2, length=4):
    return Batch(Sequence(torch.randint(0, 20, (rows, length))))


def test_an_empty_prompt_is_refused():
    model = rwkv()
    for state in (None, model.backbone.state(2)):
        with pytest.raises(ValueError, match="the prompt is empty"):
            generate(model, batch(length=0), max_new_tokens=2, state=state)


def test_no_rows_get_no_replies():
    assert generate(rwkv(), batch(rows=0), max_new_tokens=2) == []


def test_no_tokens_are_an_empty_reply():
    assert generate(rwkv(), batch(), max_new_tokens=0) == [[], []]
    assert list(stream(rwkv(), batch(), max_new_tokens=0)) == []


def test_negative_numbers_are_named():
    with pytest.raises(ValueError, match=r"max_new_tokens \(-1\)"):
        generate(rwkv(), batch(), max_new_tokens=-1)
    for read in (generate, prefill):
        with pytest.raises(ValueError, match=r"prefill_chunk \(-3\)"):
            read(rwkv(), batch(), prefill_chunk=-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rwkv().backbone.state(1), "1 rows for 2"),
        (lambda: rwkv(depth=3).backbone.state(2), "rwkv6 .depth 3"),
        (lambda: rwkv(RWKV7).backbone.state(2), "belongs to rwkv7"),
        (lambda: Transformer(vocab=20, width=32, depth=2, heads=2).state(2), "belongs to transformer"),
    ],
)
def test_a_foreign_state_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        generate(rwkv(), batch(), max_new_tokens=2, state=make())


def test_ids_without_rows_are_refused(monkeypatch):
    # Outside of the tests nothing checks the shapes before the constructor.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="two axes, rows and positions, not 1"):
        Sequence(torch.ones(4, dtype=torch.long))


def test_a_sampled_reply_does_not_depend_on_its_neighbours():
    model, whole, seeds = rwkv(), batch(rows=4), [5, 6, 7, 5]
    options = {"max_new_tokens": 12, "finished": lambda ids: ids[-1] < 3}
    samplers = [Sampler(temperature=1.5, seed=seed) for seed in seeds]
    together = generate(model, whole, sampler=samplers, **options)
    alone = [
        generate(model, Batch(Sequence(whole.sequence.ids[row : row + 1])), sampler=samplers[row], **options)[0]
        for row in range(4)
    ]
    assert together == alone
    assert len({len(reply) for reply in together}) > 1


def test_greedy_generation_leaves_the_random_numbers_alone():
    model, given = rwkv(), batch()
    before = torch.get_rng_state()
    generate(model, given, max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), before)


def transformer():
    return rwkv(lambda **_: Transformer(vocab=20, width=32, depth=2, heads=2, ffn=48))


@torch.no_grad()
@pytest.mark.parametrize("make", [rwkv, lambda: rwkv(RWKV7), transformer])
def test_dialogues_of_different_lengths_go_on_in_one_batch(make):
    torch.manual_seed(1)
    model = make()
    states = [prefill(model, batch(rows=1, length=length))[1] for length in (3, 11, 1, 6, 6)]
    following = batch(rows=5, length=2)
    free = generate(model, following, state=State.cat(states), max_new_tokens=9)
    options = {"max_new_tokens": 9, "finished": lambda ids: ids[-1] == free[1][2]}
    together = generate(model, following, state=State.cat(states), **options)
    alone = [
        generate(model, Batch(Sequence(ids)), state=state, **options)[0]
        for ids, state in zip(following.sequence.ids.split(1), states, strict=True)
    ]
    assert together == alone
    assert len(together[1]) <= 3


@pytest.mark.parametrize("make", [rwkv, transformer])
def test_padding_between_a_state_and_its_prompt_is_refused(make):
    model = make()
    padded = Batch(Sequence(batch().sequence.ids, segments=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])))
    with torch.no_grad():
        _, state = prefill(model, padded)
        with pytest.raises(ValueError, match=r"read each row alone, and join the states with `State\.cat`"):
            prefill(model, padded, state)
        # Before anything was read, padding comes between nothing.
        last, _ = prefill(model, padded, model.backbone.state(2))
        torch.testing.assert_close(last, prefill(model, padded)[0])
