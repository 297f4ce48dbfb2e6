"""The visual token compressor of VisualRWKV v7.03 and v7.04, as the original code computes it.

The case is not in the repository's copies: a clone without the full set skips these tests.
"""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmrnn import weights
from mmrnn.backbones import RWKV6, RWKV7, scan
from mmrnn.config.compose import compose
from mmrnn.connectors import GatedLinear, TokenCompressor
from mmrnn.encoders import Regions, TiledEncoder
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import LanguageModel
from mmrnn.types import SLOT, Batch, ImageSpan, Layout, Output, Sequence
from tests.designs.visualrwkv7 import close, compare_gradients, language, tower


@pytest.fixture(scope="module")
def case(golden):
    return golden("visualrwkv73_vtc")


@pytest.fixture(scope="module")
def model(case, params):
    meta, tensors = case
    config, given = meta["config"], params(tensors)
    backbone = language(config, given)
    ranks = {
        name: given[f"vtc.blocks.1.att.{short}1"].shape[1] for name, short in (("decay_rank", "w"), ("rate_rank", "a"))
    }
    ranks |= {
        "residual_rank": given["vtc.blocks.1.att.v1"].shape[1],
        "gate_rank": given["vtc.blocks.1.att.g1"].shape[1],
    }
    heads, size = given["vtc.blocks.0.att.r_k"].shape
    blocks = partial(RWKV7, vocab=0, depth=config["n_vtc_layer"], heads=heads, head_size=size, **ranks)
    encoder = TiledEncoder(tower=tower(config), tiling=Regions())
    connector = TokenCompressor(
        encoder.width,
        config["n_embd"],
        part=GatedLinear,
        blocks=blocks,
        scan=scan.bidirectional,
        tokens=config["tokens"],
    )
    model = VLM(backbone, {"image": Modality(encoder, connector)})
    assert weights.load(model, given).format == "visualrwkv_vtc"
    encoder.requires_grad_(False)
    return model


@pytest.mark.golden
def test_the_blocks(case, model):
    """Upstream puts zero vectors in front to make multiples of 16 of the length."""
    _, tensors = case
    connector = model.modalities["image"].connector
    for name in ("even", "odd"):
        given = tensors[f"in/vtc_{name}"]
        number = given.shape[1]
        found = connector.read(F.pad(given, (0, 0, -number % 16, 0)))[:, -number:]
        close(found, tensors[f"out/vtc_{name}"], 1e-4)
        for pool in ("mean", "step"):
            connector.pool = pool
            close(connector.pooled(found), tensors[f"out/vtc_{name}_{'pool' if pool == 'mean' else pool}"], 1e-4)
    connector.pool = "mean"


def features(model, images):
    """Features of the regions of an image, one region after the other."""
    return model.modalities["image"].encoder.tower(images).flatten(0, 1)


@pytest.mark.golden
def test_images_of_several_regions(case, model):
    """The longest sample; shorter ones upstream pads in front, and pools over the padding."""
    _, tensors = case
    regions = tensors["in/images/1"]
    rows = len(regions) * 4
    tokens = model.modalities["image"].connect(features(model, regions)[None], Layout(rows=rows, cols=4))
    close(tokens, tensors["out/compressed"][1:], 1e-4)


@pytest.mark.golden
def test_v704(case, model):
    meta, tensors = case
    connector = model.modalities["image"].connector
    views = torch.stack([features(model, images) for images in tensors["in/images4"]])
    close(connector.part(views).unflatten(1, (meta["config"]["regions4"], -1)), tensors["out/projected4"], 5e-5)
    tokens, connector.tokens = connector.tokens, meta["config"]["regions4"] * meta["config"]["tokens"]
    close(connector(views), tensors["out/compressed4"], 1e-4)
    connector.tokens = tokens


@pytest.mark.golden
def test_logits_loss_and_gradients(case, model, params):
    """With upstream's padding in front of the shorter sample, which its numbers contain."""
    meta, tensors = case
    connector, ids = model.modalities["image"].connector, tensors["in/ids"]
    rows = [features(model, tensors[f"in/images/{index}"]) for index in range(2)]
    longest = max(len(row) for row in rows)
    padded = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    projected = connector.part(padded)
    close(projected, tensors["out/projected"], 5e-5)
    compressed = connector.pooled(connector.read(projected))
    close(compressed, tensors["out/compressed"], 1e-4)
    mark = meta["config"]["image_id"]
    layout = Layout(rows=1, cols=meta["config"]["tokens"])
    spans = tuple(ImageSpan(row, int((ids[row] == mark).nonzero()[0]), layout) for row in range(2))
    sequence = Sequence(ids.masked_fill(ids == mark, SLOT), spans, labels=tensors["in/labels"])
    output: Output = model(Batch(sequence, visual={"image": compressed}))
    close(output.sequence.embeds, tensors["out/embeds"], 1e-4)
    close(model.head(output.hidden), tensors["out/logits"], 2e-4)
    close(LanguageModel()(model, output), tensors["out/loss"], 2e-5)
    LanguageModel(l2wrap=1e-4)(model, output).backward()
    compare_gradients(connector, params(tensors, "grad/"), 2e-4)


@pytest.mark.golden
def test_the_start(case, model, params):
    _, tensors = case
    connector = model.modalities["image"].connector
    connector.init_from(model.backbone)
    rows = [features(model, tensors[f"in/images/{index}"]) for index in range(2)]
    longest = max(len(row) for row in rows)
    padded = torch.stack([F.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    found = connector.pooled(connector.read(connector.part(padded)))
    close(found, tensors["out/compressed_at_start"], 1e-4)
    weights.load(model, params(tensors))


def compressor(**knobs) -> TokenCompressor:
    blocks = partial(RWKV6, vocab=0, depth=2, head_size=8, mix_rank=4, decay_rank=4)
    return TokenCompressor(12, 16, part=GatedLinear, blocks=blocks, scan=scan.bidirectional, **knobs)


@pytest.mark.parametrize("pool", ["mean", "step"])
@pytest.mark.parametrize(("knobs", "number"), [({"tokens": 5}, 5), ({"tokens": None, "reduction": 3}, 8)])
def test_other_versions_and_other_numbers(pool, knobs, number):
    """As many tokens as the layout says, and an image alone has those that it has beside others."""
    connector, layout = compressor(pool=pool, **knobs), Layout(rows=6, cols=4)
    tokens = torch.randn(2, layout.tokens, 12)
    found = connector(tokens, layout)
    assert found.shape == (2, number, 16)
    assert connector.layout(layout).tokens == number
    close(connector(tokens[1:], layout)[0], found[1], 1e-5)


def test_a_model_begins_with_the_blocks_of_its_language_model():
    model = build(compose("model=visualrwkv73_tiny", "weights={}"))
    own, source = model.modalities["image"].connector.blocks.state_dict(), model.backbone.state_dict()
    assert own.keys() < source.keys()
    assert all(torch.equal(value, source[name]) for name, value in own.items())
    other = ("model=visualrwkv73_tiny", "weights={}", "backbone=rwkv6_tiny")
    with pytest.raises(ValueError, match=r"connector: its blocks cannot begin as the first of RWKV6, .*inherit=false"):
        build(compose(*other))
    build(compose(*other, "connector.inherit=false"))


def test_blocks_alone_are_no_language_model():
    blocks = RWKV7(vocab=0, width=16, depth=1, head_size=8)
    assert not {name.partition(".")[0] for name in blocks.state_dict()} & {"embedding", "output"}
    with pytest.raises(ValueError, match=r"blocks alone \(vocab=0\).* none for ids"):
        blocks.embed(torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="have no head"):
        blocks.head(torch.ones(1, 2, 16))
