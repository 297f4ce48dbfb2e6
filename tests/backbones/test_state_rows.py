"""Rows of several states in one, for every backbone, hook and scan: each row continues as it does alone."""

from functools import cache

import pytest
import torch
import yaml

from mmrnn.backbones import RWKV6, HFDecoder, HFEncoderDecoder, Hybrid, Transformer
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import find_target, instantiate
from mmrnn.config.tree import plain
from mmrnn.model.vlm import VLM
from mmrnn.types import SLOT, ImageSpan, Layout, Sequence, State

VOCAB, WIDTH = 64, 32
SIZES = {
    **{"vocab": VOCAB, "width": WIDTH, "depth": 3, "heads": 2, "head_size": 16, "kv_heads": 1, "ffn": 48},
    **dict.fromkeys(("mix_rank", "decay_rank", "rate_rank", "residual_rank", "gate_rank"), 4),
    **{"train_length": 4, "dropout": 0.0},
}
"""Sizes in place of those of a card; a knob that is null stays null."""
ARCH = {
    "opt": {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 32},
    "persimmon": {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "t5": {"num_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 32},
}
CARDS = sorted(path.stem for path in (conf_dir() / "backbone").glob("*.yaml"))
GENERATING = [name for name in CARDS if not name.startswith("none_")]
SCANS = sorted(path.stem for path in (conf_dir() / "scan").glob("*.yaml"))
HOOKS = sorted(path.stem for path in (conf_dir() / "hook").glob("*.yaml"))
LAYOUT = Layout(rows=2, cols=3, prefix=1)
T5_NOISE = 0.02
"""Of its weights: it does not scale its queries, so that more would amplify rounding."""
LENGTHS = (5, 1, 9, 0, 5)
"""Tokens that the states have read; 0: the initial state."""


def small_mixer(mixer: dict) -> dict:
    """The card of a mixer at tiny size; a knob that is null stays null."""
    sizes = {"heads": 2, "kv_heads": 1, "key_heads": 1, "head_size": 16, "key_size": 8, "value_size": 16, "window": 6}
    sizes |= {knob: value for knob, value in SIZES.items() if knob.endswith("_rank")}
    half = int(16 * mixer.get("rotary", 1)) // 2
    sizes["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
    return mixer | {knob: value for knob, value in sizes.items() if mixer.get(knob) is not None}


def written(name: str) -> dict:
    """Content of a card and of those that it builds on."""
    found = yaml.safe_load((conf_dir() / "backbone" / f"{name}.yaml").read_text(encoding="utf-8"))
    before = [written(base) for base in found.pop("defaults", ()) if base != "_self_"]
    return {knob: value for content in (*before, found) for knob, value in content.items()}


def different(names: list[str]) -> list[str]:
    """The first of all cards that differ in nothing but sizes, which are replaced: they make the same backbone."""
    kept = {}
    for name in names:
        form = sorted((knob, value is None if knob in SIZES else value) for knob, value in written(name).items())
        kept.setdefault(repr(form), name)
    return [*kept.values()]


@cache
def backbone(name: str):
    """The backbone of a card at tiny size, with random weights."""
    content = plain(compose(config=f"backbone/{name}"))["backbone"]
    knobs = {knob: SIZES[knob] for knob in SIZES.keys() & content.keys() if content[knob] is not None}
    if "arch" in content:
        knobs |= {"arch": (content["arch"] or {}) | ARCH[content["name"]]}
    if "mixers" in content:
        knobs["mixers"] = {kind: small_mixer(mixer) for kind, mixer in content["mixers"].items()}
    model = randomised(instantiate(content | knobs), T5_NOISE if "t5" in name else 0.1)
    # Gated norms of hybrids amplify the rounding of reads near zero.
    return model.double() if isinstance(model, Hybrid) else model


@pytest.fixture(autouse=True)
def same_numbers():
    """Rounding is that of the same inputs in each run."""
    torch.manual_seed(0)


def randomised(model, noise=0.1):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


def option(group: str, name: str):
    return plain(compose(config=f"{group}/{name}"))[group]


def model_of(name: str, **policies) -> VLM:
    policies = {"position": "glm_2d_tiny", "mask": "glm_tiny"} if name.startswith("glm") else policies
    return VLM(backbone(name), {}, **{group: instantiate(option(group, value)) for group, value in policies.items()})


def text(length: int, rows: int = 1) -> Sequence:
    return Sequence(torch.randint(3, VOCAB, (rows, length)))


def image_first(length: int, layout: Layout = LAYOUT) -> Sequence:
    """A row with an image before its text, whose slots or media are random."""
    ids = torch.randint(3, VOCAB, (1, layout.tokens + length))
    ids[:, : layout.tokens] = SLOT
    media = torch.randn(1, layout.cross_attention, 8) if layout.cross_attention else None
    return Sequence(ids, (ImageSpan(0, 0, layout),), torch.randn(*ids.shape, WIDTH), media=media)


def states_of(model: VLM, sequences) -> list[State]:
    """State after each sequence; one of no tokens is the initial state."""
    return [
        model.run_backbone(each)[1] if each.ids.shape[1] else model.backbone.state(len(each.ids)) for each in sequences
    ]


def decoded(model: VLM, state: State, ids, steps: int = 4):
    """Greedy tokens (`b steps`) and logits (`b steps vocab`) that follow the ids, and the state after them."""
    tokens, logits = [], []
    for _ in range(steps):
        hidden, state = model.run_backbone(Sequence(ids), state)
        logits.append(model.head(hidden[:, -1]))
        ids = logits[-1].argmax(-1, keepdim=True)
        tokens.append(ids)
    return torch.cat(tokens, 1), torch.stack(logits, 1), state


def close(found, wanted):
    """Check logits to 2e-6, or to as much of their largest where that is above 1."""
    tolerance = 2e-6 * wanted.abs().max().clamp(min=1).item()
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)


def assert_same(found: State, wanted: State):
    assert found.tensors.keys() == wanted.tensors.keys()
    assert found.nbytes == wanted.nbytes
    for name, value in wanted.tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value), name
    assert sum(value.untyped_storage().nbytes() for value in found.tensors.values()) == found.nbytes


@torch.no_grad()
def check_rows(model: VLM, states: list[State]):
    """Check that concatenated states go on as alone, give back each other, and go on when they were given back."""
    joined = State.cat(states)
    assert joined.rows == sum(state.rows for state in states)
    first = torch.randint(3, VOCAB, (joined.rows, 2))
    together = decoded(model, joined, first)
    start = 0
    for state in states:
        rows = torch.arange(start, start + state.rows)
        start += state.rows
        assert_same(joined.select(rows), state)
        alone = decoded(model, state, first[rows])
        for found in (
            (together[0][rows], together[1][rows]),
            decoded(model, joined.select(rows), first[rows]),
        ):
            assert torch.equal(found[0], alone[0])
            close(found[1], alone[1])
        # Padding that was decoded over is cut off as well.
        after, own = together[2].select(rows), alone[2]
        assert after.nbytes == own.nbytes
        assert after.tensors.keys() == own.tensors.keys()
    order = torch.tensor([joined.rows - 1, 0, 0])
    close(decoded(model, joined.select(order), first[order])[1], together[1][order])


@pytest.mark.parametrize("name", different(GENERATING))
def test_rows_go_on_as_alone(name):
    model = model_of(name)
    assert model.backbone.generates
    # An encoder-decoder has to read its context first.
    lengths = [length or 2 for length in LENGTHS] if "t5" in name else LENGTHS
    with torch.no_grad():
        states = states_of(model, map(text, lengths))
        states.append(model.run_backbone(text(3, rows=2))[1])
    check_rows(model, states)


@pytest.mark.parametrize("name", ["mt5", "umt5"])
def test_rows_of_other_encoder_decoders(name):
    model = VLM(randomised(HFEncoderDecoder(name=name, vocab=VOCAB, width=WIDTH, arch=ARCH["t5"]), T5_NOISE), {})
    with torch.no_grad():
        states = states_of(model, map(text, (5, 2, 9)))
        # The second reply is three tokens longer.
        states[1] = decoded(model, states[1], torch.randint(3, VOCAB, (1, 1)), steps=3)[2]
    check_rows(model, states)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt2"])
def test_rows_of_decoders_with_windows_or_learned_positions(name):
    arch = {"num_hidden_layers": 2, "num_attention_heads": 2}
    if name != "gpt2":
        arch |= {"num_key_value_heads": 1, "intermediate_size": 64, "head_dim": 16, "sliding_window": 4}
    model = VLM(randomised(HFDecoder(name=name, vocab=VOCAB, width=WIDTH, arch=arch)), {})
    with torch.no_grad():
        states = states_of(model, map(text, LENGTHS))
    check_rows(model, states)


@torch.no_grad()
@pytest.mark.parametrize("name", SCANS)
def test_rows_go_on_as_alone_behind_scanned_images(name):
    for version in ("rwkv6_tiny", "rwkv7_tiny"):
        model = model_of(version, scan=name)
        check_rows(model, states_of(model, [image_first(4), text(2), image_first(1), text(0)]))


HOOKED = [
    (which, name)
    for which in ("rwkv6_tiny", "transformer_tiny")
    for name in HOOKS
    if set(find_target(option("hook", name)).needs) <= set(backbone(which).hooks)
]


@torch.no_grad()
@pytest.mark.parametrize(("which", "name"), HOOKED)
def test_rows_go_on_as_alone_with_a_hook(which, name):
    inner = backbone(which)
    content = option("hook", name)
    small = {"every": 1, "heads": 2, "head_size": 8, "width": None}
    hook = instantiate(content | {knob: value for knob, value in small.items() if knob in content}, inner, 8)
    hook.init_from(inner)
    randomised(hook)
    model = VLM(inner, {}, hook=hook)
    beside = hook.needs_cross_attention_tokens
    layouts = [Layout(cross_attention=4)] if beside else [LAYOUT]
    sequences = [image_first(4, layouts[0]), text(2), image_first(7, layouts[0]), text(0)]
    if beside:
        two = image_first(6, layouts[0])
        spans = (*two.image_spans, ImageSpan(0, 3, layouts[0]))
        sequences.append(Sequence(two.ids, spans, two.embeds, media=torch.randn(2, 4, 8)))
    check_rows(model, states_of(model, sequences))


@torch.no_grad()
@pytest.mark.parametrize("name", ["rwkv6_tiny", "transformer_tiny", "opt_tiny", "glm_tiny", "flant5_tiny"])
def test_padded_prompts_and_rows_of_rows(name):
    """States of padded batches, of batches of batches and of rows without segments become one."""
    model = model_of(name)
    padded = Sequence(torch.randint(3, VOCAB, (2, 6)), segments=torch.tensor([[0, 0, 0, 1, 1, 1], [1] * 6]))
    states = states_of(model, [padded, text(4), padded, text(9)])
    joined = State.cat([State.cat(states[:2]), State.cat(states[2:])])
    for rows, state in (([0, 1], states[0]), ([2], states[1]), ([3, 4], states[2]), ([5], states[3])):
        assert_same(joined.select(torch.tensor(rows)), state)
    check_rows(model, [State.cat(states[:2]), State.cat(states[2:])])
    check_rows(model, states)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "hooked"),
    [
        *((name, False) for name in ("rwkv6_tiny", "rwkv7_tiny", "transformer_tiny", "opt_tiny")),
        *((name, True) for name in ("rwkv6_tiny", "rwkv7_tiny", "transformer_tiny")),
    ],
)
def test_segments_that_come_later_continue_each_row(name, hooked):
    """A row without segments belongs to those that come next, one with segments to its own alone."""
    model = model_of(name)
    if hooked:
        hook = instantiate(option("hook", "tiny_attention_tiny"), model.backbone)
        model = VLM(model.backbone, {}, hook=randomised(hook))
    marked = Sequence(torch.randint(3, VOCAB, (1, 5)), segments=torch.tensor([[0, 0, 1, 1, 1]]))
    states = states_of(model, [marked, text(3), text(0)])
    after = Sequence(torch.randint(3, VOCAB, (3, 4)), segments=torch.tensor([[1, 1, 2, 2]]).expand(3, -1))
    together, _ = model.run_backbone(after, State.cat(states))
    for row, state in enumerate(states):
        one = Sequence(after.ids[row : row + 1], segments=after.segments[:1])
        close(together[row : row + 1], model.run_backbone(one, state)[0])


def test_one_state_and_no_state():
    state = backbone("transformer_tiny").state(3)
    assert_same(State.cat([state]), state)
    assert_same(State.cat([state]).select(torch.tensor([], dtype=torch.long)), state.select(torch.arange(0)))
    assert State.cat([State(()), State(())]) == State(())
    with pytest.raises(ValueError, match="there are no states to concatenate"):
        State.cat([])


def small(kind=RWKV6, **knobs):
    return kind(**{"vocab": 50, "width": 32, "depth": 2} | knobs).eval()


@torch.no_grad()
def test_foreign_states_are_refused():
    ours = small(head_size=16)
    scanned = VLM(ours, {}, instantiate(option("scan", "snake")))
    attending = small(Transformer, heads=2, ffn=32)
    short = Sequence(torch.ones(1, 2, dtype=torch.long))
    (plain_state,), (snake,) = (states_of(model, [short]) for model in (VLM(ours, {}), scanned))
    (cached,) = states_of(VLM(attending, {}), [short])
    unnamed = State(cached.layers, cached.shared)
    wide = small(Transformer, heads=1, ffn=32).state(1)
    t5 = model_of("flant5_tiny")
    damaged = State(({"key": cached.layers[0]["key"]}, {"key": cached.layers[0]["key"][:, :, :1]}))
    for states, message in (
        (
            [plain_state, small(head_size=16, depth=3).state(1)],
            r"state 2 belongs to rwkv6 \(depth 3.*one to .*depth 2",
        ),
        ([plain_state, snake], "belongs to a model with scan .*concatenate those of one model"),
        ([plain_state, cached], "belongs to .*transformer"),
        ([State(plain_state.layers), unnamed], "only one of the states 1 and 2 has 'layers.0"),
        ([unnamed, State(unnamed.layers)], "only one of the states 1 and 2 has 'shared.next_position'"),
        ([unnamed, State(wide.layers, wide.shared)], "layers.0.key of the states 1 and 2 differs in shape"),
        ([t5.backbone.state(1), *states_of(t5, [text(2)])], "only one of the states 1 and 2 has 'shared.encoder"),
        ([damaged, damaged], "a state is damaged: its key, value"),
        ([plain_state, plain_state.to("meta")], "state 2 is on meta, state 1 on cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            State.cat(states)
    # The initial state of a backbone has been read by no model yet, and serves all of them.
    joined = State.cat([ours.state(1), snake])
    assert joined.origin is scanned.state_origin
    scanned.run_backbone(Sequence(short.ids.view(2, 1)), joined)
    State.cat([plain_state, State(plain_state.layers)])


@torch.no_grad()
@pytest.mark.parametrize("name", ["rwkv7_tiny", "transformer_tiny"])
def test_gradients_reach_every_row(name):
    model = model_of(name)
    states = states_of(model, [text(3), text(5)])
    leaves = [state.map(lambda value: value.clone().requires_grad_(value.is_floating_point())) for state in states]
    with torch.enable_grad():
        hidden, _ = model.run_backbone(text(2, rows=2), State.cat(leaves))
        hidden.sum().backward()
    for state in leaves:
        assert all(value.grad.abs().sum() > 0 for value in state.layers[-1].values())
