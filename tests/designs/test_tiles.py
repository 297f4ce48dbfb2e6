"""Regions (VisualRWKV v7.02), quarters (UHD) and tiles (LLaVA-1.6) as the original codes cut and join them."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from mmrnn import weights
from mmrnn.backbones import Transformer
from mmrnn.connectors import MLP, RowSeparators
from mmrnn.data import Collator, InMemoryImage
from mmrnn.data.preprocess import prepared_size, to_tensor
from mmrnn.encoders import BestGrid, Quarters, Regions, TiledEncoder, TimmViT
from mmrnn.encoders.tilings import quarters
from mmrnn.model.vlm import VLM, Modality
from mmrnn.prompts import RWKVChat, tokenize
from mmrnn.tokenizers import RWKVWorldTokenizer
from mmrnn.types import SLOT, Batch, ImageSpan, Layout, Sample, Sequence, Turn
from tests.designs.visualrwkv7 import close


def clip(**knobs) -> TimmViT:
    arch = {"patch_size": 8, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2.0}
    return TimmViT(name="vit_large_patch14_clip_quickgelu_336", size=32, depth=3, arch=arch, **knobs).eval()


@pytest.mark.golden
def test_sizes_of_regions(golden):
    case, _ = golden("visualrwkv72_regions")
    for row in case["table"]:
        side = row["region"][0]
        for criterion in ("smallest", "closest"):
            spec = Regions(criterion=criterion, most=64).image_spec(side)
            assert [*prepared_size(tuple(row["size"]), spec)] == row[criterion][::-1], row


@pytest.mark.golden
def test_pixels_of_regions(golden):
    case, tensors = golden("visualrwkv72_regions")
    for index, (_, _, side) in enumerate(case["config"]["pictures"]):
        image = Image.fromarray(tensors[f"in/picture/{index}"].numpy())
        for criterion in ("smallest", "closest"):
            tiling = Regions(criterion=criterion, most=64)
            pixels = to_tensor(image, tiling.image_spec(side))[None]
            found = (tiling.views(pixels, side)[0] * 255).round().to(torch.uint8).movedim(1, -1)
            assert torch.equal(found, tensors[f"out/{criterion}/{index}"])


@pytest.mark.golden
def test_text_of_regions(golden):
    """A group of slots for every region, without anything between them; of v7.03 one group."""
    case, _ = golden("visualrwkv72_regions")
    given = case["text"]
    for record in given["samples"]:
        turns = [
            Turn("user" if turn["from"] == "human" else "assistant", turn["value"]) for turn in record["conversations"]
        ]
        images = sum(turn.text.count("<image>") for turn in turns)
        for version, count in (("v7.02, v7.04", record["regions"]), ("v7.03", 1)):
            layout = Layout(rows=count, cols=given["tokens_a_region"])
            row = tokenize(
                RWKVChat(image_position="inline").spans(turns, images), RWKVWorldTokenizer(), [layout] * images
            )
            expected, length = record[version], len(row.ids)
            assert [given["picture_id"] if one == SLOT else one for one in row.ids][:40] == expected["ids"][:length]
            assert row.labels[:40] == expected["labels"][:length]


def test_a_large_image_is_scaled_down_first():
    spec = Regions(most=2).image_spec(16)
    assert prepared_size((640, 480), spec) == prepared_size((32, 24), spec) == (16, 32)
    image = Image.new("RGB", (640, 480), "red")
    assert to_tensor(image, spec).shape == (3, 16, 32)


@pytest.mark.golden
def test_quarters(golden, params):
    case, tensors = golden("visualrwkv_uhd")
    config = case["config"]
    for index in range(len(config["pictures"])):
        image = tensors[f"in/picture/{index}"].movedim(-1, 0)[None].float()
        found = torch.cat(quarters(image)).movedim(1, -1).to(torch.uint8)
        assert torch.equal(found, tensors[f"out/tiles/{index}"])
    given = {name: tensors[f"in/{name}"].requires_grad_() for name in ("dino", "siglip", "sam")}
    towers = torch.cat([*given.values()], dim=-1)
    view = Layout(rows=config["side"], cols=config["side"])
    fused = Quarters().join(towers, (8, 8), 4, view)
    close(fused, tensors["out/fused"], 2e-5)
    projector = MLP(fused.shape[-1], config["n_embd"], act="relu", bias=False)
    report = weights.load(projector, {name.removeprefix("proj."): one for name, one in params(tensors).items()})
    assert list(report.ignored) == ["gate.weight"]
    projected = projector(fused)
    close(projected, tensors["out/projected"], 2e-5)
    (projected * tensors["in/weights"]).sum().backward()
    compared = {
        "dino": given["dino"],
        "sam": given["sam"],
        "proj.proj.weight": projector.get_parameter("layers.0.weight"),
    }
    for name, value in compared.items():
        expected = tensors[f"grad/{name}"]
        assert (value.grad - expected).abs().max() <= 1e-4 * expected.abs().max(), name


SIZES = [(100, 60), (60, 100), (33, 32), (90, 30), (30, 91), (31, 64), (200, 20)]


@pytest.fixture(scope="module")
def peer():
    """LLaVA-1.6 of transformers in miniature, with its processor."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    text = transformers.LlamaConfig(
        vocab_size=1100, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    grids = [[32 * rows, 32 * cols] for rows, cols in BestGrid().grids]
    config = transformers.LlavaNextConfig(
        vision_config=vision, text_config=text, image_grid_pinpoints=grids, image_token_index=1099
    )
    torch.manual_seed(0)
    model = transformers.LlavaNextForConditionalGeneration(config).eval()
    torch.nn.init.normal_(model.model.image_newline)
    processor = transformers.LlavaNextImageProcessor(
        image_grid_pinpoints=grids, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return model, processor


@pytest.fixture(scope="module")
def ours(peer):
    encoder = TiledEncoder(tower=clip(layer=-2), tiling=BestGrid())
    connector = RowSeparators(encoder.width, 48, part=MLP)
    backbone = Transformer(vocab=1100, width=48, depth=2, heads=4, ffn=64, eps=1e-6)
    model = VLM(backbone, {"image": Modality(encoder, connector)}).eval()
    weights.load(model, dict(peer[0].state_dict()))
    return model


def photo(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(sum(size)).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_of_transformers(peer, ours, size):
    """Views within two levels of its processor's; from its own views the same visual tokens, row ends included."""
    model, processor = peer
    given = processor(photo(size), return_tensors="pt")
    encoder, connector = ours.modalities["image"].encoder, ours.modalities["image"].connector
    pixels = to_tensor(photo(size), encoder.image)[None]
    mean, std = (torch.tensor(values)[:, None, None] for values in (encoder.tower.image.mean, encoder.tower.image.std))
    views = (encoder.tiling.views(pixels, encoder.side) - mean) / std
    theirs = given["pixel_values"]
    assert views.shape == theirs.shape
    assert ((views - theirs) * std * 255).abs().max() < 2.5
    with torch.no_grad():
        [expected] = model.model.get_image_features(
            theirs, given["image_sizes"], vision_feature_layer=-2, return_dict=True
        ).pooler_output
        tokens = encoder.tower(theirs[0])[None]
        layout = encoder.layout(*pixels.shape[-2:])
        found = connector(encoder.tiling.join(tokens, tuple(pixels.shape[-2:]), encoder.side, encoder.view), layout)
    assert connector.layout(layout).tokens == len(expected)
    close(found[0], expected, 2e-5)


@torch.no_grad()
def test_logits_of_transformers(peer, ours):
    """From pixels to logits, with the views of its processor."""
    model, processor = peer
    given = processor(photo((100, 60)), return_tensors="pt")
    encoder, connector = ours.modalities["image"].encoder, ours.modalities["image"].connector
    tokens, layout = encoder.tower(given["pixel_values"][0])[None], encoder.layout(60, 100)
    visual = connector(encoder.tiling.join(tokens, (60, 100), encoder.side, encoder.view), layout)
    ids = torch.tensor([[3, 7, *[1099] * visual.shape[1], 5, 9, 2]])
    expected = model(ids, attention_mask=torch.ones_like(ids), vision_feature_layer=-2, **given).logits
    span = ImageSpan(0, 2, connector.layout(layout))
    output = ours(Batch(Sequence(ids.masked_fill(ids == 1099, SLOT), (span,)), visual={"image": visual}))
    close(ours.head(output.hidden), expected, 2e-4)


def test_images_of_several_sizes_in_a_batch(ours):
    """Rows have as many slots as each image has tokens, and an image alone has the tokens that it has beside others."""
    from mmrnn.tokenizers import DemoTokenizer

    modality = dict(ours.modalities)
    samples = [
        Sample((Turn("user", "<image>"), Turn("assistant", "a")), (InMemoryImage(photo(size), str(size)),))
        for size in SIZES[:3]
    ]
    collate = Collator(DemoTokenizer(), RWKVChat(), modality)
    with torch.no_grad():
        batch = collate(samples)
        together = ours.encode_images(batch, "image", ours.modalities["image"])
        for tokens, span, sample in zip(together, batch.sequence.image_spans, samples, strict=True):
            assert len(tokens) == span.layout.tokens
            [alone] = ours.encode_images(collate([sample]), "image", ours.modalities["image"])
            close(tokens, alone, 1e-5)


@pytest.mark.parametrize("tiling", [Regions(), BestGrid(), Quarters()])
def test_a_tower_with_a_class_token_is_refused(tiling):
    with pytest.raises(ValueError, match="emits other tokens than patches; set cls=drop"):
        TiledEncoder(tower=clip(cls="first"), tiling=tiling)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="has no quarters"):
        TiledEncoder(tower=clip(), tiling=Quarters()).layout(1, 50)
    with pytest.raises(ValueError, match="must be a multiple of the side of a region"):
        TiledEncoder(tower=clip(), tiling=Regions()).layout(33, 32)
    with pytest.raises(ValueError, match="must name at least one grid"):
        BestGrid(grids=())
