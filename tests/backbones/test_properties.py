"""Properties of every backbone: chunks, packing and padding do not change the results."""

from functools import partial

import pytest
import torch

from mmrnn.backbones import (
    RWKV5,
    RWKV6,
    RWKV7,
    GatedAttention,
    GatedDeltaNet,
    Hybrid,
    Mamba,
    RWKV7Mixer,
    Transformer,
    scan,
)
from mmrnn.types import SLOT, ImageSpan, Layout, Sequence, State

SCANS = ["forward", "bidirectional", "multidirectional", "spiral", "snake", "zigzag"]
LAYOUT = Layout(rows=3, cols=4, prefix=1, suffix=1, separators=1)


def rwkv6(**knobs):
    return randomised(RWKV6(vocab=50, width=32, depth=4, head_size=16, mix_rank=4, decay_rank=4, **knobs))


def rwkv7(**knobs):
    ranks = dict.fromkeys(("decay_rank", "rate_rank", "residual_rank", "gate_rank"), 4)
    return randomised(RWKV7(vocab=50, width=32, depth=4, head_size=16, **ranks, **knobs))


def rwkv5(**knobs):
    return randomised(RWKV5(vocab=50, width=32, depth=4, head_size=16, **knobs))


def mamba(**knobs):
    return randomised(Mamba(vocab=50, width=32, depth=4, state_size=4, **knobs))


def transformer(**knobs):
    return randomised(Transformer(vocab=50, width=32, depth=3, heads=4, kv_heads=2, ffn=48, **knobs))


DELTA = partial(GatedDeltaNet, heads=4, key_heads=2, key_size=8, value_size=16)
ATTENTION = partial(GatedAttention, heads=4, kv_heads=2, head_size=16, rotary=0.5, mrope_section=(2, 1, 1))
RANKS = dict.fromkeys(("decay_rank", "rate_rank", "residual_rank", "gate_rank"), 4)
MIXERS = {
    "delta": DELTA,
    "kda": partial(DELTA, decay_per="channel", gate="sigmoid"),
    "rwkv7": partial(RWKV7Mixer, head_size=16, **RANKS),
    "attention": ATTENTION,
    "window": partial(ATTENTION, window=4),
}


def hybrid(*pattern):
    """A function that makes a model of a pattern, in fp64: gated norms amplify the rounding of reads near zero."""
    return lambda: randomised(Hybrid(pattern=pattern, mixers=MIXERS, vocab=50, width=32, depth=4, ffn=48)).double()


def randomised(model):
    """Add noise: the published initialisations zero many paths."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


delta, mixed, windowed = hybrid("delta", "kda"), hybrid("delta", "rwkv7", "rwkv7", "attention"), hybrid("kda", "window")
ALL = [rwkv7, rwkv6, rwkv5, mamba, transformer, delta, mixed, windowed]


def close(a, b, tolerance=2e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=1e-4)


def close_states(a: State, b: State):
    for x, y in zip(a.layers, b.layers, strict=True):
        for name in x:
            close(x[name], y[name], 5e-5)


def make_image(length=30, start=7, rows=2, dtype=torch.float32):
    ids = torch.randint(0, 50, (rows, length))
    ids[:, start : start + LAYOUT.tokens] = SLOT
    blocks = tuple(ImageSpan(row, start, LAYOUT) for row in range(rows))
    return Sequence(ids, blocks, embeds=torch.randn(rows, length, 32, dtype=dtype))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("cut", [1, 2, 12, 16])
def test_reading_in_two_chunks(make, cut):
    model, ids = make(), torch.randint(0, 50, (2, 17))
    whole, end = model(Sequence(ids))
    first, state = model(Sequence(ids[:, :cut]))
    kept = state.clone()
    second, state = model(Sequence(ids[:, cut:]), state)
    close(torch.cat([first, second], 1), whole)
    close_states(state, end)
    again, _ = model(Sequence(ids[:, cut:]), kept)
    close(again, second, 0)


@pytest.mark.parametrize("make", [rwkv7, rwkv6, rwkv5, mamba, mixed])
@pytest.mark.parametrize("name", SCANS)
def test_prefill_and_decoding_equal_the_full_forward(make, name):
    model, order = make(), getattr(scan, name)
    sequence = make_image(dtype=model.norm.weight.dtype)
    whole, end = model(sequence, scan=order)
    stop = sequence.image_spans[0].stop
    hidden, state = model(sequence.slice(0, stop), scan=order)
    parts = [hidden]
    for step in range(stop, sequence.ids.shape[1]):
        hidden, state = model(sequence.slice(step, step + 1), state, order)
        parts.append(hidden)
    close(torch.cat(parts, 1), whole)
    close_states(state, end)


def test_a_scan_changes_nothing_before_the_image():
    model, sequence = rwkv6(), make_image()
    plain, _ = model(sequence)
    turned, _ = model(sequence, scan=scan.bidirectional)
    start = sequence.image_spans[0].start
    close(plain[:, :start], turned[:, :start])
    # The class token at `start` precedes every patch, so the order does not affect it either.
    assert (plain[:, start + 1 :] - turned[:, start + 1 :]).abs().amax(-1).min() > 1e-4


def test_first_layer_values_are_reordered_with_the_scan():
    """Layers with another order than the first take the first-layer value of the same patch."""
    model, sequence = rwkv7(), make_image(rows=1)
    order = scan.scan_permutations(scan.bidirectional, 2, sequence)[1][0]
    x, first = sequence.embeds, ()
    for layer, (block, state) in enumerate(zip(model.blocks, model.state(1).layers, strict=True)):
        place = order if layer % 2 else torch.arange(len(order))
        y, _, given = block(x[:, place], state, None, tuple(v[:, place] for v in first))
        x = y[:, place.argsort()]
        first = first or given
    close(model(sequence, scan=scan.bidirectional)[0], model.norm(x))


@pytest.mark.parametrize("make", ALL)
def test_packed_rows_equal_separate_rows(make):
    model = make()
    lengths = [5, 1, 8]
    ids = torch.randint(0, 50, (2, sum(lengths)))
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).expand(2, -1)
    packed, state = model(Sequence(ids, segments=segments))
    alone = [model(Sequence(part)) for part in ids.split(lengths, dim=1)]
    close(packed, torch.cat([hidden for hidden, _ in alone], 1))
    if model.recurrent:
        close_states(state, alone[-1][1])
    follow = torch.randint(0, 50, (2, 3))
    close(model(Sequence(follow), state)[0], model(Sequence(follow), alone[-1][1])[0])


@pytest.mark.parametrize("make", ALL)
def test_packed_gradients_equal_those_of_separate_rows(make):
    model = make()
    ids, lengths = torch.randint(0, 50, (1, 9)), [4, 5]
    segments = torch.tensor([[0] * 4 + [1] * 5])

    def grads(hiddens):
        model.zero_grad()
        torch.cat(hiddens, 1).square().sum().backward()
        return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    packed = grads([model(Sequence(ids, segments=segments))[0]])
    alone = grads([model(Sequence(part))[0] for part in ids.split(lengths, dim=1)])
    for name, value in alone.items():
        assert (packed[name] - value).abs().max() <= 1e-4 * value.abs().max() + 1e-6, name


@pytest.mark.parametrize("make", ALL)
def test_left_padding_changes_nothing(make):
    model = make()
    rows = [torch.randint(0, 50, (length,)) for length in (6, 2, 9)]
    ids = torch.stack([torch.cat([row.new_zeros(9 - len(row)), row]) for row in rows])
    segments = torch.stack([(torch.arange(9) >= 9 - len(row)).long() for row in rows])
    batch = Sequence(ids, segments=segments)
    hidden, state = model(batch)
    first, mid = model(batch.slice(0, 4))
    parts, end = model(batch.slice(4, 9), mid)
    close(torch.cat([first, parts], 1), hidden)
    step = torch.randint(0, 50, (3, 1))
    joint, joint_state = model(Sequence(step), state)
    close(model(Sequence(step), end)[0], joint)
    for index, row in enumerate(rows):
        alone, own = model(Sequence(row[None]))
        close(hidden[index, -len(row) :], alone[0])
        close(joint[index], model(Sequence(step[index : index + 1]), own)[0][0])
    kept = joint_state.select(torch.tensor([2, 0]))
    more = torch.randint(0, 50, (2, 1))
    close(
        model(Sequence(more), kept)[0],
        model(Sequence(more.flip(0)), joint_state.select(torch.tensor([0, 2])))[0].flip(0),
    )


@pytest.mark.parametrize("make", ALL)
def test_state_file_round_trip(make, tmp_path):
    model, ids = make(), torch.randint(0, 50, (2, 5))
    _, state = model(Sequence(ids))
    state.save(tmp_path / "state.safetensors")
    back = State.load(tmp_path / "state.safetensors")
    assert back.nbytes == state.nbytes > 0
    step = torch.randint(0, 50, (2, 1))
    close(model(Sequence(step), back)[0], model(Sequence(step), state)[0], 0)


def test_state_of_an_rnn_does_not_grow_and_a_cache_does():
    ids = torch.randint(0, 50, (1, 40))
    sizes = {}
    for make in ALL:
        model = make()
        sizes[make] = [model(Sequence(ids[:, :length]))[1].nbytes for length in (10, 40)]
    assert sizes[rwkv6][0] == sizes[rwkv6][1] == rwkv6().state(1).nbytes
    assert sizes[transformer][0] < sizes[transformer][1]
    assert sizes[delta][0] == sizes[delta][1] == delta().state(1).nbytes
    assert sizes[windowed][0] == sizes[windowed][1], "a window keeps a number of keys"
    assert sizes[mixed][1] - sizes[mixed][0] == 30 * 2 * 2 * 16 * 8, "one layer of four has a cache"


@pytest.mark.parametrize("make", ALL)
def test_every_parameter_gets_a_gradient(make):
    model = make()
    hidden, state = model(Sequence(torch.randint(0, 50, (2, 6))))
    (
        model.head(hidden).square().sum() + sum(v.square().sum() for layer in state.layers for v in layer.values())
    ).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize("make", ALL)
def test_bf16_autocast_is_near_fp32(make):
    model, ids = make().float(), torch.randint(0, 50, (2, 12))
    exact = model.head(model(Sequence(ids))[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.head(model(Sequence(ids))[0])
    error, scale = (exact - rough).abs(), exact.abs()
    if make in (delta, mixed, windowed):  # whose gated norms amplify the rounding of single reads near zero
        assert error.median() < 0.1 * scale.median()
    else:
        assert error.max() < 0.1 * scale.max()


def test_a_transformer_refuses_a_scan():
    with pytest.raises(ValueError, match="scan=forward"):
        transformer()(make_image(), scan=scan.bidirectional)
    transformer()(make_image(), scan=scan.forward)


def test_errors_name_the_sizes():
    with pytest.raises(ValueError, match=r"width \(100\) must be a multiple of head_size \(64\)"):
        RWKV6(width=100)
    with pytest.raises(ValueError, match=r"heads \(6\) must be a multiple of kv_heads \(4\)"):
        Transformer(width=48, heads=6, kv_heads=4)
    with pytest.raises(ValueError, match="splits the image at 7:"):
        make_image().slice(0, 10)
