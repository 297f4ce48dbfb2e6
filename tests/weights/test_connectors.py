"""Published names of connectors: all of them arrive, and what is left out has a reason."""

from functools import partial

import pytest
import torch
from torch import nn

from mmrnn.connectors import MLP, GatedLinear, GatedMLP, Linear, Pool, QFormer, Sequential
from mmrnn.weights import load
from mmrnn.weights.convert import WeightsError
from mmrnn.weights.formats.connectors import BLIP2_HEADS, FORMATS

KNOBS = {"queries": 5, "width": 16, "depth": 4, "heads": 4, "ffn": 24}


def affine(prefix, in_dim, out_dim, bias=True):
    tensors = {f"{prefix}.weight": torch.randn(out_dim, in_dim), f"{prefix}.bias": torch.randn(out_dim)}
    return tensors if bias else {f"{prefix}.weight": tensors[f"{prefix}.weight"]}


def norm(prefix, width):
    return {f"{prefix}.weight": torch.randn(width), f"{prefix}.bias": torch.randn(width)}


def bert(layer, inner, in_dim=12, text=False):
    """A random Q-Former under published names."""
    width, ffn = KNOBS["width"], KNOBS["ffn"]
    tensors = {"query_tokens": torch.randn(1, KNOBS["queries"], width)}
    for index in range(KNOBS["depth"]):
        for attention in ("attention", "crossattention") if index % 2 == 0 else ("attention",):
            path = f"{layer}.{index}.{attention}"
            source = width if attention == "attention" else in_dim
            tensors |= affine(f"{path}.{inner}.query", width, width)
            tensors |= affine(f"{path}.{inner}.key", source, width) | affine(f"{path}.{inner}.value", source, width)
            tensors |= affine(f"{path}.output.dense", width, width) | norm(f"{path}.output.LayerNorm", width)
        for branch in ("_query", "") if text else ("_query",):
            tensors |= affine(f"{layer}.{index}.intermediate{branch}.dense", width, ffn)
            tensors |= affine(f"{layer}.{index}.output{branch}.dense", ffn, width)
            tensors |= norm(f"{layer}.{index}.output{branch}.LayerNorm", width)
    return tensors


def lavis(**more):
    return bert("Qformer.bert.encoder.layer", "self", **more) | norm("Qformer.bert.embeddings.LayerNorm", 16)


def hf(**more):
    return bert("qformer.encoder.layer", "attention", **more) | norm("qformer.layernorm", 16)


LINEARS = {
    "plain": "",
    "llava": "model.mm_projector.",
    "prismatic": "projector.",
    "prismatic_file": "projector.projector.",
    "minigpt": "llama_proj.",
    "visualglm": "mixins.eva.model.glm_proj.",
    "visualglm_hf": "image_encoder.glm_proj.",
    "fuyu_hf": "vision_embed_tokens.",
    **{f"blip2_{head}": f"{head}." for head in BLIP2_HEADS},
}


@pytest.mark.parametrize("name", LINEARS)
def test_linear(name):
    source = affine("x", 12, 20)
    named = {LINEARS[name] + key.removeprefix("x."): value for key, value in source.items()}
    for connector in (Linear(12, 20), Sequential(12, 20, parts=[partial(Pool, grid=-1), Linear])):
        assert load(connector, named).format == name
        part = connector if isinstance(connector, Linear) else connector.parts[1]
        assert torch.equal(part.proj.weight, source["x.weight"])
        assert torch.equal(part.proj.bias, source["x.bias"])


def test_every_linear_format_is_tried():
    assert {format.name for format in FORMATS if format.part is Linear} == set(LINEARS)


def test_bias_that_the_module_lacks():
    with pytest.raises(WeightsError, match=r"unexpected: proj\.bias"):
        load(Linear(12, 20, bias=False), {"weight": torch.randn(20, 12), "bias": torch.randn(20)})


MLPS = {
    "plain": ("0", "2"),
    "llava": ("model.mm_projector.0", "model.mm_projector.2"),
    "prismatic": ("projector.0", "projector.2"),
    "prismatic_file": ("projector.projector.0", "projector.projector.2"),
    "llava_hf": ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2"),
    "llava_hf5": ("model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"),
    "mmrnn": ("layers.0", "layers.2"),  # VILA's mlp2x_gelu has our names
}


@pytest.mark.parametrize("name", MLPS)
def test_mlp(name):
    first, second = MLPS[name]
    source = affine(first, 12, 20) | affine(second, 20, 20)
    mlp = MLP(12, 20)
    assert load(mlp, source).format == name
    assert torch.equal(mlp.layers[0].weight, source[f"{first}.weight"])
    assert torch.equal(mlp.layers[2].bias, source[f"{second}.bias"])


def test_deeper_mlp():
    source = affine("0", 12, 20) | affine("2", 20, 20) | affine("4", 20, 20)
    mlp = MLP(12, 20, depth=3)
    load(mlp, source)
    assert torch.equal(mlp.layers[4].weight, source["4.weight"])


def test_vila_downsample():
    source = norm("layers.1", 12) | affine("layers.2", 12, 20) | affine("layers.4", 20, 20)
    mlp = MLP(12, 20, norm=True)
    assert load(mlp, source).format == "vila_downsample"
    assert torch.equal(mlp.norm.weight, source["layers.1.weight"])
    assert torch.equal(mlp.layers[0].weight, source["layers.2.weight"])
    assert torch.equal(mlp.layers[2].weight, source["layers.4.weight"])


def test_whole_llava_checkpoint():
    source = affine("model.mm_projector.0", 12, 20) | affine("model.mm_projector.2", 20, 20)
    source |= {"model.layers.0.mlp.up_proj.weight": torch.randn(2, 2), "lm_head.weight": torch.randn(2, 2)}
    report = load(MLP(12, 20), source)
    assert report.loaded == 4
    assert set(report.ignored) == {"model.layers.0.mlp.up_proj.weight", "lm_head.weight"}


def test_lora_run_of_llava():
    source = affine("base_model.model.model.mm_projector.0", 12, 20)
    source |= affine("base_model.model.model.mm_projector.2", 20, 20)
    assert load(MLP(12, 20), source).format == "llava"


def test_gates():
    x = torch.randn(2, 3, 12)
    hd = affine("proj", 12, 20, bias=False) | affine("gate", 20, 20, bias=False)
    hd |= affine("o_proj", 20, 20, bias=False)
    p = x @ hd["proj.weight"].T

    gated = GatedMLP(12, 20)
    assert load(gated, hd).format == "visualrwkv_hd"
    expected = (torch.sigmoid(p @ hd["gate.weight"].T) * p) @ hd["o_proj.weight"].T
    torch.testing.assert_close(gated(x), expected)

    relu = MLP(12, 20, act="relu", bias=False)
    report = load(relu, hd)
    assert report.format == "visualrwkv_uhd"
    assert list(report.ignored) == ["gate.weight"]
    torch.testing.assert_close(relu(x), p.relu() @ hd["o_proj.weight"].T)

    v7 = affine("gate", 12, 12, bias=False) | affine("o_proj", 12, 20, bias=False) | norm("ln_v", 20)
    gated = GatedLinear(12, 20)
    assert load(gated, v7).format == "visualrwkv_v7"
    mixed = (x * torch.sigmoid(x @ v7["gate.weight"].T)) @ v7["o_proj.weight"].T
    expected = nn.functional.layer_norm(mixed, (20,), v7["ln_v.weight"], v7["ln_v.bias"])
    torch.testing.assert_close(gated(x), expected)


@pytest.mark.parametrize(("names", "format"), [(lavis, "lavis"), (hf, "blip2_hf")])
def test_qformer(names, format):
    source = names()
    qformer = QFormer(12, **KNOBS)
    report = load(qformer, source)
    assert report.format == format
    assert report.loaded == len(source) == len(qformer.state_dict())
    assert torch.equal(qformer.queries, source["query_tokens"][0])


@pytest.mark.parametrize(("names", "format"), [(lavis, "lavis"), (hf, "blip2_hf")])
def test_same_tensors_under_either_name(names, format):
    """Each tensor has a place of its own: no two names are swapped unnoticed."""
    source = {name: torch.full_like(value, index) for index, (name, value) in enumerate(names().items())}
    qformer = QFormer(12, **KNOBS)
    load(qformer, source, format=format)
    numbers = {value.flatten()[0].item() for value in qformer.state_dict().values()}
    assert numbers == set(range(len(source)))


def test_both_projects_name_the_same():
    torch.manual_seed(1)
    theirs = lavis()
    torch.manual_seed(1)
    others = hf()
    one, other = QFormer(12, **KNOBS).eval(), QFormer(12, **KNOBS).eval()
    load(one, theirs)
    load(other, others)
    tokens = torch.randn(2, 9, 12)
    torch.testing.assert_close(one(tokens), other(tokens))


def test_first_stage_of_blip2():
    source = lavis(text=True) | norm("ln_vision", 12) | affine("vision_proj", 16, 8) | affine("text_proj", 16, 8)
    source |= affine("itm_head", 16, 2) | {"temp": torch.tensor(0.07)}
    source |= {
        "Qformer.bert.embeddings.word_embeddings.weight": torch.randn(30, 16),
        "Qformer.bert.embeddings.position_embeddings.weight": torch.randn(9, 16),
        "Qformer.bert.embeddings.position_ids": torch.arange(9)[None],
        "Qformer.cls.predictions.bias": torch.randn(30),
    }
    qformer = QFormer(12, **KNOBS)
    report = load(qformer, source)
    assert report.loaded == len(qformer.state_dict())
    assert report.loaded + len(report.ignored) == len(source)
    assert report.ignored["ln_vision.weight"].startswith("belongs to the encoder")


@pytest.mark.parametrize("head", BLIP2_HEADS)
def test_second_stage_of_blip2(head):
    names = hf if head == "language_projection" else lavis
    source = names() | affine(head, 16, 20)
    projected = QFormer(12, 20, **KNOBS).eval()
    load(projected, source)
    assert torch.equal(projected.head.weight, source[f"{head}.weight"])

    alone = QFormer(12, **KNOBS)
    report = load(alone, source)
    assert "projection after the Q-Former was left out" in report.notes[0]

    chain = Sequential(12, 20, parts=[partial(QFormer, **KNOBS), Linear]).eval()
    assert load(chain, source).loaded == len(chain.state_dict())
    tokens = torch.randn(2, 9, 12)
    torch.testing.assert_close(chain(tokens), projected(tokens))


def test_missing_layer():
    source = {name: value for name, value in lavis().items() if ".layer.3." not in name}
    with pytest.raises(WeightsError, match=r"missing: layers\.3\.attention\.key\.bias"):
        load(QFormer(12, **KNOBS), source)


def test_round_trip_of_our_own():
    connector = Sequential(12, 20, parts=[partial(QFormer, **KNOBS), Linear])
    twin = Sequential(12, 20, parts=[partial(QFormer, **KNOBS), Linear])
    assert load(twin, connector.state_dict()).format == "mmrnn"
    assert all(torch.equal(a, b) for a, b in zip(connector.parameters(), twin.parameters(), strict=True))
