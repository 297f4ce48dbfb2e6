"""Files that hold a part of a model alone: start states, adapters of RWKV-PEFT; and bases with holes."""

import json
from functools import partial

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6, RWKV7
from mmrnn.checkpoints.convert import to_folder
from mmrnn.config.compose import compose
from mmrnn.model.build import build
from mmrnn.weights import WeightsError, load
from mmrnn.weights.export import export

SIZES = {"vocab": 40, "width": 32, "depth": 2, "head_size": 16}
VERSIONS = {
    "rwkv5": partial(RWKV5, **SIZES),
    "rwkv6": partial(RWKV6, **SIZES, mix_rank=4, decay_rank=4),
    "rwkv7": partial(RWKV7, **SIZES, decay_rank=8, rate_rank=8, residual_rank=8, gate_rank=8),
}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def base(version):
    """A published file of random tensors."""
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in export(VERSIONS[version](), version).items()}


@pytest.fixture
def states():
    torch.manual_seed(2)
    return {f"blocks.{layer}.att.time_state": torch.randn(2, 16, 16) for layer in range(2)}


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("meta", [False, True])
def test_state_tuning_begins_at_a_published_base(version, base, meta):
    """The base has no start states: they are zero, even where the module had others."""
    with torch.device("meta" if meta else "cpu"):
        target = VERSIONS[version](learned_state=True)
    if not meta:
        torch.nn.init.ones_(target.start)
    report = load(target, base)
    assert target.start.requires_grad
    assert target.start.eq(0).all()
    assert report.notes == ["start: the source has no start states; they are zero"]
    assert equal(base, export(target, version))


def test_state_tuning_on_the_command_line(tmp_path):
    """The whole way: compose, build, and the next run loads the states alone onto the same base."""
    tiny = build(compose("model=visualrwkv6_tiny"))
    torch.save({name: value.clone() for name, value in export(tiny.backbone, "rwkv6").items()}, tmp_path / "base.pth")
    command = ("model=visualrwkv6_tiny", "backbone.learned_state=true")
    model = build(compose(*command, f"weights.backbone={tmp_path / 'base.pth'}"))
    assert model.backbone.start.eq(0).all()
    note = "start: the source has no start states; they are zero"
    assert f"weights.backbone: {note}" in model.load_notes
    heads, size = model.backbone.start.shape[1:3]
    states = {f"blocks.{layer}.att.time_state": torch.randn(heads, size, size) for layer in range(model.backbone.depth)}
    torch.save(states, tmp_path / "state.pth")
    both = build(compose(*command, f"weights.backbone=[{tmp_path / 'base.pth'},{tmp_path / 'state.pth'}]"))
    assert torch.equal(both.backbone.start[1], states["blocks.1.att.time_state"].mT)
    before = {name: value.clone() for name, value in model.state_dict().items() if name != "backbone.start"}
    report = load(model, tmp_path / "state.pth")
    assert report.loaded == 1
    assert torch.equal(model.backbone.start, both.backbone.start)
    assert equal(before, model.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_start_states_alone(version, base, states, strict):
    target = VERSIONS[version](learned_state=True)
    load(target, base)
    report = load(target, states, strict=strict)
    assert (report.format, report.loaded) == (version, 1)
    assert "transposed" in report.notes[0]
    assert equal({**base, **states}, export(target, version))


def test_start_states_that_find_no_place(states):
    make = VERSIONS["rwkv6"]
    with pytest.raises(WeightsError, match="build its backbone with learned_state=true"):
        load(make(), states)
    with torch.device("meta"):
        empty = make(learned_state=True)
    with pytest.raises(WeightsError, match="load the base first"):
        load(empty, states)
    target = make(learned_state=True)
    with pytest.raises(WeightsError, match=r"of another shape: start: \(1, 2, 16, 16\)"):
        load(target, {"blocks.0.att.time_state": states["blocks.0.att.time_state"]})
    assert target.start.eq(0).all()


def test_holes_are_listed(version, base):
    """`strict=False` hid that a base had no channel mix at all."""
    target = VERSIONS[version](learned_state=True)
    report = load(target, {name: value for name, value in base.items() if ".ffn.key." not in name}, strict=False)
    holes = "start, blocks.0.channel_mix.key.weight, blocks.1.channel_mix.key.weight"
    assert report.notes[-1] == f"not in the source, values kept: {holes}"


def test_a_lightning_checkpoint(version, base, tmp_path):
    """{"state_dict": {"model.emb.weight": ...}}, which a training program writes around the whole."""
    torch.save({"state_dict": {f"model.{name}": value for name, value in base.items()}}, tmp_path / "a.ckpt.pth")
    target = VERSIONS[version]()
    assert load(target, tmp_path / "a.ckpt.pth").format == version
    assert equal(base, export(target, version))
    assert to_folder(tmp_path / "a.ckpt.pth", tmp_path / "out").format == version
    ours = {f"model.{name}": value + 1 for name, value in target.state_dict().items()}
    assert load(target, ours).format == "mmrnn"


def test_a_file_of_another_version_is_called_what_it_is(version, base):
    for other in VERSIONS.keys() - {version}:
        with pytest.raises(WeightsError, match=rf"they are those of RWKV{version[-1]} \(format {version}\)"):
            load(VERSIONS[other](), base)


def test_rwkv4_is_called_what_it_is(tmp_path):
    names = ("emb.weight", "blocks.0.att.time_first", "blocks.0.att.time_mix_k", "blocks.0.att.time_decay")
    tensors = {name: torch.zeros(4) for name in names}
    with pytest.raises(WeightsError, match="they are those of RWKV-4, which mmrnn does not have"):
        load(VERSIONS["rwkv6"](), tensors)
    torch.save(tensors, tmp_path / "four.pth")
    with pytest.raises(WeightsError, match="they are those of RWKV-4, which mmrnn does not have"):
        to_folder(tmp_path / "four.pth", tmp_path / "out")


KEY, FFN = "blocks.1.att.key", "blocks.0.ffn.value"


def lora(rank=4):
    """The layout of RWKV-PEFT and RWKV-LM-LoRA: no `.weight` at the end."""
    tensors = {}
    for module, (rows, columns) in {KEY: (32, 32), FFN: (32, 96 if rank else 0)}.items():
        tensors |= {f"{module}.lora_A": torch.randn(rank, columns), f"{module}.lora_B": torch.randn(rows, rank)}
    return tensors


def merged(version, base, update, names=(KEY, FFN)):
    return {**base, **{f"{name}.weight": base[f"{name}.weight"] + update(name) for name in names}}


def check(found, expected):
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-5)


@pytest.fixture
def rwkv6():
    """A base whose layers have the sizes of `lora`, and its module."""
    torch.manual_seed(3)
    target = VERSIONS["rwkv6"](ffn=96)
    base = {name: torch.randn_like(value) for name, value in export(target, "rwkv6").items()}
    load(target, base)
    return base, target


@pytest.mark.parametrize("way", ["argument", "file", "together"])
def test_a_lora_of_rwkv_peft(rwkv6, way, tmp_path):
    """Its scale stands in no tensor: it is given, or read beside the file. Other trained tensors replace the base's."""
    base, target = rwkv6
    tensors, norm = lora(), {"blocks.0.ln1.weight": torch.randn(32)}
    if way == "argument":
        report = load(target, tensors | norm, lora_alpha=16.0)
    else:
        torch.save(tensors | (norm if way == "file" else {}), tmp_path / "rwkv-0.pth")
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 16}))
        (tmp_path / "base").mkdir()
        torch.save(base, tmp_path / "base" / "a.pth")
        source = tmp_path / "rwkv-0.pth"
        report = load(target, source if way == "file" else [tmp_path / "base" / "a.pth", source])
    if way != "together":
        assert report.notes == ["2 tensors of an adapter were merged into the weights of the module"]
        assert report.loaded == 3
    expected = merged("rwkv6", base, lambda name: 16 / 4 * tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"])
    check(export(target, "rwkv6"), expected | (norm if way != "together" else {}))


def test_a_pissa_of_rwkv_peft(rwkv6):
    """Its initial matrices, taken from the base, are given back: both files, no scale."""
    base, target = rwkv6
    trained, first = lora(), lora()
    initial = {name.replace(".lora_", ".init_lora_"): value for name, value in first.items()}
    with pytest.raises(ValueError, match=r"initial matrices of a PiSSA alone; name the trained file as well"):
        load(target, initial)
    with pytest.raises(ValueError, match=r"a PiSSA needs its init_pissa\.pth as a second file"):
        load(target, trained)
    load(target, trained | initial)

    def product(of, name):
        return of[f"{name}.lora_B"] @ of[f"{name}.lora_A"]

    check(export(target, "rwkv6"), merged("rwkv6", base, lambda name: product(trained, name) - product(first, name)))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", ["bone", "disha of bone", "disha"])
def test_blocks_of_rwkv_peft(rwkv6, kind, together):
    """As its layers compute, from the activations: the merged weight is compared with the product."""
    base, target = rwkv6
    rank, suffix = 8, kind.partition(" ")[0]
    sizes = {KEY: 32, FFN: 96}
    shape = (lambda size: (rank, 32)) if kind == "disha" else (lambda size: (size // rank, rank, rank))
    blocks = {name: torch.randn(shape(size)) for name, size in sizes.items()}
    tensors = {f"{name}.{suffix}": value for name, value in blocks.items()}
    load(target, base | tensors if together else tensors)
    found = export(target, "rwkv6")
    for name, size in sizes.items():
        x, weight, block = torch.randn(5, size), base[f"{name}.weight"], blocks[name]
        if kind == "disha":
            expected = x @ weight.T + x.view(5, -1, rank).sum(1) @ block
        else:
            grid = weight.view(32 // rank, rank, size // rank, rank).transpose(1, 2)
            change = (grid @ block + block).transpose(1, 2).reshape(32, size)
            expected = x @ (weight + change).T
        torch.testing.assert_close(x @ found[f"{name}.weight"].T, expected, atol=1e-3, rtol=1e-4)
    assert equal({name: base[name] for name in base if not name.startswith((KEY, FFN))}, found)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{KEY}.bone": torch.zeros(5, 8, 8)}, r"blocks \(5, 8, 8\) do not fit a weight \(32, 32\)"),
        ({f"{KEY}.disha": torch.zeros(8, 5)}, r"blocks \(8, 5\) do not fit a weight \(32, 32\)"),
        ({f"{KEY}.lora_A": torch.zeros(4, 32)}, "lacks the other matrix of the pair"),
        ({f"{KEY}.hada_w1_a": torch.zeros(4, 32)}, "belongs to an adapter that is not a plain LoRA"),
        ({f"{KEY}.lora_magnitude_vector": torch.zeros(32)}, "belongs to an adapter that is not a plain LoRA"),
    ],
)
def test_adapters_that_do_not_fit(rwkv6, tensors, message):
    base, target = rwkv6
    with pytest.raises(ValueError, match=message):
        load(target, tensors, lora_alpha=8.0)
    assert equal(base, export(target, "rwkv6"))


def test_an_adapter_needs_a_base():
    with torch.device("meta"):
        empty = VERSIONS["rwkv6"](ffn=96)
    with pytest.raises(WeightsError, match="load the base first"):
        load(empty, lora(), lora_alpha=8.0)
