"""Beam search: the replies of transformers with the same weights, for every kind of backbone."""

from itertools import product

import pytest
import torch

from mmrnn.backbones import RWKV6, RWKV7, HFDecoder, HFEncoderDecoder
from mmrnn.inference.beam_search import BeamSearch
from mmrnn.inference.generate import generate
from mmrnn.inference.sampler import Sampler
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Sequence

VOCAB, WIDTH = 40, 32
ENDS = (1, 5, 7, 9, 11)
OPT = {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 32}
T5 = {"num_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 32}


def randomised(backbone, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.3)
    return VLM(backbone.eval(), {})


def batch(rows=3, length=4):
    return Batch(Sequence(torch.randint(12, VOCAB, (rows, length))))


def finished(ids):
    return ids[-1] in ENDS


def cut(row):
    """Ids up to the end id."""
    return next((row[: i + 1] for i, id in enumerate(row) if id in ENDS), row)


@pytest.mark.parametrize("kind", ["opt", "t5"])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.7, 1.0, 3.0])
def test_replies_of_transformers(kind, penalty):
    pytest.importorskip("transformers")
    make = HFDecoder if kind == "opt" else HFEncoderDecoder
    lengths = set()
    for seed, num_beams, shortest in ((0, 5, 0), (1, 2, 3), (2, 5, 6)):
        model = randomised(make(name=kind, vocab=VOCAB, width=WIDTH, arch=OPT if kind == "opt" else T5), seed)
        prompts = batch()
        ids = prompts.sequence.ids
        options = {"num_beams": num_beams, "length_penalty": penalty, "min_new_tokens": shortest}
        found = generate(model, prompts, beams=BeamSearch(**options), max_new_tokens=9, finished=finished)
        wanted = model.backbone.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **options,
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=[*ENDS],
            pad_token_id=0,
        )
        start = ids.shape[1] if kind == "opt" else 1
        assert found == [cut(row) for row in wanted[:, start:].tolist()]
        lengths |= {len(row) for row in found}
    assert len(lengths) > 1 or penalty > 1


def test_one_beam_is_greedy():
    for kind in (RWKV6, RWKV7):
        model, prompts = randomised(kind(vocab=VOCAB, width=WIDTH, depth=2, head_size=16)), batch()
        greedy = generate(model, prompts, max_new_tokens=8, finished=finished)
        assert generate(model, prompts, beams=BeamSearch(num_beams=1), max_new_tokens=8, finished=finished) == greedy
        for beams in (BeamSearch(), BeamSearch(num_beams=1)):
            assert generate(model, prompts, beams=beams, max_new_tokens=0) == [[], [], []]
        assert generate(model, batch(rows=0), beams=BeamSearch(), max_new_tokens=3) == []


@torch.no_grad()
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_as_many_beams_as_there_are_replies_find_the_best_one(penalty):
    vocab, length = 4, 3
    model = randomised(RWKV6(vocab=vocab, width=WIDTH, depth=1, head_size=16))
    prompts = Batch(Sequence(torch.randint(0, vocab, (3, 2))))
    found = generate(
        model,
        prompts,
        beams=BeamSearch(vocab**length, penalty),
        max_new_tokens=length,
        finished=lambda ids: ids[-1] == 0,
    )
    for row, reply in enumerate(found):
        scores = {}
        for ids in product(range(vocab), repeat=length):
            ids = ids[: ids.index(0) + 1] if 0 in ids else ids
            whole = torch.cat([prompts.sequence.ids[row], torch.tensor(ids)])[None]
            log_probs = model.head(model.run_backbone(Sequence(whole))[0])[0, 1:-1].log_softmax(-1)
            scores[ids] = log_probs.gather(1, torch.tensor(ids)[:, None]).sum().item() / len(ids) ** penalty
        assert tuple(reply) == max(scores, key=scores.get)


def test_a_row_does_not_depend_on_its_neighbours():
    model, prompts = randomised(RWKV7(vocab=VOCAB, width=WIDTH, depth=2, head_size=16)), batch(rows=7)
    options = {"beams": BeamSearch(num_beams=3), "max_new_tokens": 12, "finished": finished}
    together = generate(model, prompts, **options)
    rows = prompts.sequence.ids.split(1)
    assert together == [generate(model, Batch(Sequence(row)), **options)[0] for row in rows]
    assert len({len(reply) for reply in together}) > 1


def test_many_ends_leave_enough_beams():
    """The beams are found among more candidates where most tokens end a reply."""
    model, prompts = randomised(RWKV6(vocab=VOCAB, width=WIDTH, depth=2, head_size=16)), batch()
    beams = BeamSearch(num_beams=2, min_new_tokens=3)
    replies = generate(model, prompts, beams=beams, max_new_tokens=5, finished=lambda ids: ids[-1] > 2)
    assert all(max(reply[:-1]) <= 2 and len(reply) > 3 for reply in replies)
    # No reply is possible: every token would end the reply too early.
    assert generate(model, prompts, beams=beams, max_new_tokens=5, finished=lambda ids: True) == [[], [], []]


def test_a_search_with_logits_that_are_not_finite_is_refused():
    model = randomised(RWKV6(vocab=VOCAB, width=WIDTH, depth=1, head_size=16))
    with torch.no_grad():
        model.backbone.output.weight[3] = float("nan")
    with pytest.raises(ValueError, match="the logits are not finite"):
        generate(model, batch(), beams=BeamSearch(), max_new_tokens=2)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_beams", (0, -1, 2.0, True, "5", None)),
        ("min_new_tokens", (-1, 1.5, False)),
        ("length_penalty", (float("nan"), float("inf"), -1e9, 51, "1", True)),
    ],
)
def test_values_outside_their_range_are_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"{name} \(.*\) must"):
            BeamSearch(**{name: value})


def test_beams_are_not_sampled():
    model = randomised(RWKV6(vocab=VOCAB, width=WIDTH, depth=1, head_size=16))
    for options in ({"sampler": Sampler()}, {"log_probs": 0}):
        with pytest.raises(ValueError, match="leave out sampler and log_probs"):
            generate(model, batch(), beams=BeamSearch(), **options)
    with pytest.raises(ValueError, match=r"max_new_tokens \(-2\)"):
        generate(model, batch(), beams=BeamSearch(), max_new_tokens=-2)
