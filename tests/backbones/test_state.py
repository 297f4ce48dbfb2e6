"""A state owns its memory, knows its backbone, and comes back from its file."""

import json
import pickle
from copy import deepcopy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmrnn.backbones import (
    GLM,
    RWKV5,
    RWKV6,
    RWKV7,
    GatedCrossAttention,
    HFDecoder,
    HFEncoderDecoder,
    TinyAttention,
    Transformer,
    scan,
)
from mmrnn.model.vlm import VLM
from mmrnn.types import ImageSpan, Layout, Sequence, State

RWKV = (RWKV5, RWKV6, RWKV7)


def rwkv(kind, **knobs):
    return kind(**{"vocab": 50, "width": 32, "depth": 2, "head_size": 16, **knobs}).eval()


def opt():
    arch = {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 32}
    return HFDecoder(name="opt", vocab=50, width=32, arch=arch).eval()


def t5():
    arch = {"num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 32}
    return HFEncoderDecoder(vocab=50, width=32, arch=arch).eval()


MAKERS = {
    **{kind.__name__: lambda kind=kind: rwkv(kind) for kind in RWKV},
    "tuned": lambda: rwkv(RWKV6, learned_state=True),
    "transformer": lambda: Transformer(vocab=50, width=32, depth=2, heads=2, kv_heads=1, ffn=32).eval(),
    "glm": lambda: GLM(vocab=50, width=32, depth=2, heads=2, ffn=32).eval(),
    "opt": opt,
    "t5": t5,
}


def ids(rows=2, length=5):
    return torch.randint(0, 50, (rows, length))


@torch.no_grad()
def read(model, sequence, state=None):
    return model(sequence, state)[1]


def held(state):
    """Bytes of all memory that the tensors of a state keep alive."""
    storages = (value.untyped_storage() for value in state.tensors.values())
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("name", MAKERS)
def test_a_state_owns_its_memory(name):
    model = MAKERS[name]()
    state = read(model, Sequence(ids(length=40)))
    then = read(model, Sequence(ids(length=1)), state)
    for each in (model.state(2).detach(), state, then, then.select(torch.tensor([1])), state.clone()):
        assert held(each) == each.nbytes


@pytest.mark.parametrize("kind", RWKV)
def test_a_state_is_as_large_after_a_long_text(kind, tmp_path):
    model, sizes = rwkv(kind), []
    for length in (1000, 24000):
        state = read(model, Sequence(ids(1, length)))
        state.save(tmp_path / "state")
        sizes.append((held(state), state.nbytes, (tmp_path / "state").stat().st_size))
        assert len(pickle.dumps([*state.tensors.values()])) < 1.1 * state.nbytes + 9000
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("kind", RWKV)
def test_a_state_of_packed_rows_owns_its_memory(kind):
    state = read(rwkv(kind), Sequence(ids(length=40), segments=torch.arange(40).repeat(2, 1) // 9))
    assert "segment" in state.shared
    assert held(state) == state.nbytes


@pytest.mark.parametrize("images", ["latest", "all", None])
def test_a_state_with_a_hook_owns_its_memory(images):
    backbone = rwkv(RWKV6)
    hook = (
        GatedCrossAttention(backbone, 8, every=1, heads=2, head_size=8, images=images)
        if images
        else TinyAttention(backbone, heads=2)
    )
    span = ImageSpan(0, 2, Layout(cross_attention=4))
    given = {"image_spans": (span,), "media": torch.randn(1, 4, 8)} if images else {}
    model = VLM(backbone, {}, hook=hook).eval()
    with torch.no_grad():
        _, state = model.run_backbone(Sequence(ids(length=40), **given))
        _, then = model.run_backbone(Sequence(ids(length=1)), state)
    for each in (state, then):
        assert held(each) == each.nbytes


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("length", [0, 5])
def test_every_state_comes_back_from_its_file(name, length, tmp_path):
    model = MAKERS[name]()
    state = model.state(2) if length == 0 else model(Sequence(ids(length=length)))[1]
    state.save(tmp_path / "state")
    back = State.load(tmp_path / "state")
    assert back.tensors.keys() == state.tensors.keys()
    assert all(torch.equal(value, state.tensors[key]) for key, value in back.tensors.items())
    assert back.origin == state.origin == model.state_origin
    assert len(back.layers) == len(state.layers)
    assert held(back) == back.nbytes == state.nbytes
    step = Sequence(ids(length=1))
    assert torch.equal(model(step, back)[0], model(step, state)[0])


ORDERS = (scan.forward, scan.snake)

FOREIGN = {
    "another version": (lambda: rwkv(RWKV7).state(2), r"belongs to rwkv7 \(depth 2.*but this model is rwkv6"),
    "another depth": (lambda: rwkv(RWKV6, depth=3).state(2), "rwkv6 .depth 3"),
    "another width": (lambda: rwkv(RWKV6, width=64).state(2), "width 64"),
    "other heads": (lambda: rwkv(RWKV6, head_size=32).state(2), "head_size 32"),
    "a transformer": (lambda: MAKERS["transformer"]().state(2), "transformer"),
    "other rows": (lambda: rwkv(RWKV6).state(1), "1 rows for 2"),
    "fewer layers": (lambda: State(rwkv(RWKV6).state(2).layers[:1]), "1 layers for 2"),
    "other tensors": (lambda: State(MAKERS["transformer"]().state(2).layers), "layer 0 of the state has"),
    "other shapes": (lambda: State(rwkv(RWKV6, width=64).state(2).layers), "time_shift .* is 2 x 64 for any x 32"),
    "whole numbers": (
        lambda: State(rwkv(RWKV6).state(2).map(torch.Tensor.long).layers),
        "time_shift .* is torch.int64",
    ),
    "mixed rows": (
        lambda: State((rwkv(RWKV6).state(2).layers[0], rwkv(RWKV6).state(1).layers[0])),
        "differ in the number of rows",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("length", [1, 4])
def test_a_foreign_state_is_refused_by_name(name, length):
    make, message = FOREIGN[name]
    model = rwkv(RWKV6)
    for call in (model, VLM(model, {}).run_backbone):
        with torch.no_grad(), pytest.raises(ValueError, match=message):
            call(Sequence(ids(length=length)), make())


def test_models_around_one_backbone_refuse_each_others_states(tmp_path):
    backbone = rwkv(RWKV6)
    hooks = {"none": None, "small": TinyAttention(backbone, heads=2), "large": TinyAttention(backbone, width=64)}
    models = {(name, order): VLM(backbone, {}, order, hook=hook) for name, hook in hooks.items() for order in ORDERS}
    step = Sequence(ids(length=1))
    with torch.no_grad():
        for maker, model in models.items():
            _, state = model.run_backbone(Sequence(ids(length=4)))
            state.save(tmp_path / "state")
            for one in (state, State.load(tmp_path / "state")):
                model.run_backbone(step, one)
                deepcopy(model).run_backbone(step, one)
                for reader in models.keys() - {maker}:
                    what = "scan" if maker[1] is not reader[1] else "hook"
                    with pytest.raises(ValueError, match=f"a model with {what} .*use the model that made it"):
                        models[reader].run_backbone(step, one)
        # The initial state of a backbone has been read by no model yet, and serves all of them.
        models["none", scan.forward].run_backbone(step, backbone.state(2))


def test_a_transformer_wants_the_next_position():
    model = MAKERS["transformer"]()
    with pytest.raises(ValueError, match="lacks 'next_position'"):
        model(Sequence(ids()), State(model.state(2).layers))


def test_an_unnamed_state_that_fits_is_accepted():
    model = rwkv(RWKV6)
    state, step = read(model, Sequence(ids())), Sequence(ids(length=1))
    unnamed = State(state.layers)
    with torch.no_grad():
        hidden, after = model(step, unnamed)
        assert torch.equal(hidden, model(step, state)[0])
    assert after.origin is model.state_origin


def test_files_that_hold_no_state_are_refused(tmp_path):
    path = tmp_path / "state"
    with pytest.raises(FileNotFoundError, match="there is no state file"):
        State.load(path)
    save_file({"blocks.0.weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is no state file"):
        State.load(path)
    read(rwkv(RWKV6), Sequence(ids())).save(path)
    whole = path.read_bytes()
    for size in (0, 7, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="damaged or not a state file"):
            State.load(path)


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"depth": "999999"}, {}, "is no state file"),
        ({"depth": "two"}, {}, "is no state file"),
        ({"format": "mmrnn.state.9"}, {}, "is no state file"),
        ({}, {"layers.1.wkv": (2, 3)}, "'layers.1.wkv' is no tensor of a state of 1 layers"),
        ({}, {"wkv": (2, 3)}, "'wkv' is no tensor"),
        ({}, {"layers.0.wkv": ()}, "number of rows"),
        ({}, {"layers.0.wkv": (2, 3), "shared.segment": (1,)}, "number of rows"),
        ({"kind": "rwkv6"}, {}, "its sizes are None"),
        ({"kind": "rwkv6", "sizes": '{"depth": "two"}'}, {}, "its sizes are"),
        ({"kind": "rwkv6", "sizes": "[" * 100000}, {}, "its sizes are"),
    ],
)
def test_damaged_facts_are_named(metadata, tensors, message, tmp_path):
    made = {name: torch.zeros(shape) for name, shape in tensors.items()}
    save_file(made, tmp_path / "state", {"format": "mmrnn.state.1", "depth": "1", **metadata})
    with pytest.raises(ValueError, match=message):
        State.load(tmp_path / "state")


def test_facts_are_compared_by_name(tmp_path):
    path, state = tmp_path / "state", rwkv(RWKV6).state(1)
    state.save(path, {"weights": "abc"})
    assert State.load(path, facts={"weights": "abc"}).rows == 1
    with pytest.raises(ValueError, match="made with weights abc, but this model has weights def"):
        State.load(path, facts={"weights": "def"})
    with pytest.raises(ValueError, match="does not say which scan"):
        State.load(path, facts={"weights": "abc", "scan": "forward"})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["sizes"]) == {"depth": 2, "width": 32, "heads": 2, "head_size": 16}
    assert metadata["kind"] == "rwkv6"
