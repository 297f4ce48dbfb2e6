"""Images into slots, and replies over the state."""

import pytest
import torch
from torch import nn

from mmrnn.backbones import RWKV6, Transformer, scan
from mmrnn.connectors import Linear
from mmrnn.encoders import PatchEmbed
from mmrnn.inference.generate import generate, prefill, stream
from mmrnn.inference.sampler import Sampler, choose_tokens, seeded_generators
from mmrnn.model.splice import splice
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import SLOT, Batch, ImageSpan, Layout, Sequence


def model(backbone="rwkv6", order=None):
    encoder = PatchEmbed(patch=4, size=8, width=12)
    if backbone == "rwkv6":
        reader = RWKV6(vocab=40, width=32, depth=2, head_size=16, mix_rank=4, decay_rank=4)
    else:
        reader = Transformer(vocab=40, width=32, depth=2, heads=2, ffn=48)
    made = VLM(reader, {"image": Modality(encoder, Linear(12, 32))}, order)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


def batch(rows, images=None):
    """Rows of ids in which None is an image; padded on the left."""
    layout = Layout(rows=2, cols=2)
    lengths = [sum(4 if token is None else 1 for token in row) for row in rows]
    ids, blocks = torch.zeros(len(rows), max(lengths), dtype=torch.long), []
    for index, row in enumerate(rows):
        place = max(lengths) - lengths[index]
        for token in row:
            if token is None:
                blocks.append(ImageSpan(index, place, layout))
            ids[index, place : place + (4 if token is None else 1)] = SLOT if token is None else token
            place += 4 if token is None else 1
    segments = (torch.arange(max(lengths)) >= max(lengths) - torch.tensor(lengths)[:, None]).long()
    placed = tuple(blocks)
    images = torch.randn(len(placed), 3, 8, 8, generator=torch.Generator().manual_seed(1)) if images is None else images
    sequence = Sequence(ids, placed, segments=segments if len(set(lengths)) > 1 else None)
    return Batch(sequence, {"image": images} if placed else {})


ROWS = [[1, 2, None, 3], [None, 5, None, 6, 7], [8, 9]]


@pytest.mark.parametrize("backbone", ["rwkv6", "transformer"])
def test_any_number_of_images_and_text_alone_in_one_batch(backbone):
    together, made = batch(ROWS), model(backbone)
    hidden = made(together).hidden
    seen = 0
    for index, row in enumerate(ROWS):
        count = row.count(None)
        alone = made(batch([row], together.images["image"][seen : seen + count])).hidden
        torch.testing.assert_close(hidden[index, -alone.shape[1] :], alone[0], atol=2e-5, rtol=1e-4)
        seen += count


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("transformer", "forward"), *(("rwkv6", name) for name in ("forward", "bidirectional", "multidirectional"))],
)
def test_replies_equal_those_of_reading_everything_anew(backbone, name):
    made, prompts = model(backbone, getattr(scan, name)), batch(ROWS)
    replies = generate(made, prompts, max_new_tokens=6)
    seen = 0
    for row, reply in zip(ROWS, replies, strict=True):
        count = row.count(None)
        images = prompts.images["image"][seen : seen + count]
        seen += count
        for step in range(6):
            hidden = made(batch([row + reply[:step]], images)).hidden
            assert made.head(hidden[0, -1]).argmax().item() == reply[step]


def test_rows_stop_by_themselves():
    made, prompts = model(), batch(ROWS)
    free = generate(made, prompts, max_new_tokens=6)
    ends = {row[3] for row in free}
    expected = [row[: next(i for i, token in enumerate(row) if token in ends) + 1] for row in free]
    assert generate(made, prompts, max_new_tokens=6, finished=lambda ids: ids[-1] in ends) == expected
    steps = list(stream(made, prompts, max_new_tokens=6, finished=lambda ids: ids[-1] in ends))
    assert len(steps) == max(map(len, expected))


def test_prefill_in_pieces_cuts_no_image():
    made, prompts = model(order=scan.bidirectional), batch(ROWS)
    whole, state = prefill(made, prompts)
    for chunk in (1, 3, 5):
        parts, other = prefill(made, prompts, prefill_chunk=chunk)
        torch.testing.assert_close(parts, whole, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(other.layers[1]["wkv"], state.layers[1]["wkv"], atol=5e-5, rtol=1e-4)


def test_a_image_matters_to_the_reply_and_gets_gradients():
    made = model().train()
    one = batch([[1, None, 2]])
    other = Batch(one.sequence, {"image": one.images["image"] + 1})
    assert (made(one).hidden - made(other).hidden)[0, -1].abs().max() > 1e-4
    made(one).hidden[:, -1].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.modalities["image"].parameters())


def test_cached_features_stand_for_images():
    made, one = model(), batch([[1, None, 2]])
    features = made.modalities["image"].encode(one.images["image"])
    torch.testing.assert_close(made(Batch(one.sequence, features={"image": features})).hidden, made(one).hidden)


def test_visual_tokens_stand_for_images():
    made, two = model(), batch([[1, None, 2, None, 3]])
    visual = made.encode_images(two, "image", made.modalities["image"]).detach()
    expected = made(two).hidden
    for given in (visual, tuple(visual)):
        known = Batch(two.sequence, visual={"image": given}).to("cpu")
        torch.testing.assert_close(made(known).hidden, expected)
        part = known.slice(6, 11)
        assert len(part.visual["image"]) == 1
        torch.testing.assert_close(part.visual["image"][0], visual[1])


def test_a_frozen_encoder_keeps_no_graph():
    made, one = model(), batch([[1, None, 2]])
    made.modalities["image"].encoder.requires_grad_(False)
    assert not made.modalities["image"].encode(one.images["image"]).requires_grad
    assert made(one).hidden.requires_grad


def test_wrong_counts_are_named():
    embeds, visual = torch.zeros(1, 9, 2), torch.ones(1, 4, 2)
    layout = Layout(rows=2, cols=2)
    assert splice(embeds, visual, (ImageSpan(0, 3, layout),))[0, :, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    with pytest.raises(ValueError, match="1 images, but slots for 2"):
        splice(embeds, visual, (ImageSpan(0, 0, layout), ImageSpan(0, 4, layout)))
    with pytest.raises(ValueError, match="4 visual tokens, but row 0 has 2 slots"):
        splice(embeds, visual, (ImageSpan(0, 0, Layout(rows=1, cols=2)),))
    made, one = model(), batch([[1, None, 2]])
    with pytest.raises(ValueError, match="has 4 slots, but its 0 images have 0 visual tokens"):
        made(Batch(Sequence(one.sequence.ids)))
    with pytest.raises(ValueError, match="but the batch has none"):
        made(Batch(one.sequence))


def test_sampling():
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]])

    def draw(**knobs):
        samplers = [Sampler(seed=seed, **knobs) for seed in range(200)]
        generators = seeded_generators(samplers, logits.device)
        return {*choose_tokens(logits.expand(200, -1), samplers, generators, [[]] * 200).tolist()}

    assert draw() == {1}

    assert draw(temperature=1.0, top_k=1) == {1}
    assert draw(temperature=1.0, top_p=0.5) == {1}
    assert draw(temperature=1.0, top_k=2) == {1, 2}
    assert draw(temperature=1.0, top_p=0.95) == {1, 2}
    assert draw(temperature=50.0) == {0, 1, 2, 3}


def test_a_model_is_an_ordinary_module():
    made = model()
    assert isinstance(made, nn.Module)
    copy = model()
    copy.load_state_dict(made.state_dict())
    torch.testing.assert_close(copy(batch(ROWS)).hidden, made(batch(ROWS)).hidden)
