"""InternViT beside that of transformers, and its file as its own project writes it."""

import pytest
import torch

from mmrnn.encoders import InternViT
from mmrnn.weights import WeightsError, load

SIZES = {"size": 32, "patch": 8, "width": 24, "depth": 3, "heads": 3, "ffn": 40}


@pytest.fixture
def theirs():
    transformers = pytest.importorskip("transformers")
    config = transformers.InternVLVisionConfig(
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=32,
        patch_size=8,
        norm_type="rms_norm",
        use_qk_norm=True,
    )
    model = transformers.InternVLVisionModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize(("layer", "prefix"), [(-1, ""), (-2, "vision_tower.")])
def test_as_transformers_runs_it(theirs, layer, prefix):
    tensors = theirs.state_dict()
    # A final norm, where a configuration has one, is behind what is read here.
    tensors = {prefix + name: value for name, value in tensors.items() if not name.startswith("layernorm.")}
    tower = InternViT(**SIZES, layer=layer).eval()
    assert load(tower, tensors).format == "hf_internvl"
    images = torch.randn(2, 3, 32, 32)
    hidden = theirs(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(tower(images), hidden[layer][:, 1:], atol=2e-5, rtol=1e-4)


def test_every_head_is_normed_with_the_others():
    """Norms of single heads, which timm has, give something else."""
    norm = InternViT(**SIZES).trunk.blocks[0].attn.q_norm
    assert norm.weight.shape == (24,)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, 5, 8)  # m h n k
    rms = torch.nn.functional.rms_norm
    together = rms(x.transpose(1, 2).flatten(2), (24,), norm.weight, eps=1e-6).unflatten(2, (3, 8)).transpose(1, 2)
    torch.testing.assert_close(norm(x), together)
    alone = rms(x, (8,), eps=1e-6) * norm.weight.view(3, 1, 8)
    assert (alone - together).abs().max() > 0.1


OWN = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "blocks": "encoder.layers",
}


def test_a_file_of_its_project():
    """Blocks behind the one that is read are left out, and the table is resampled."""
    source, tower = InternViT(**SIZES), InternViT(**{**SIZES, "size": 48}, layer=-2)
    tensors = {}
    for name, value in source.trunk.state_dict().items():
        old = next(old for old in OWN if name.startswith(old))
        tensors[OWN[old] + name.removeprefix(old).replace(".gamma", "")] = value
    report = load(tower, tensors)
    assert report.format == "intern_vit"
    assert report.notes == [
        "the blocks from 2 on were left out: the tower ends after block 1",
        "the position table was resampled from 4 x 4 to 6 x 6 (antialias bicubic)",
    ]
    assert torch.equal(tower.trunk.blocks[1].attn.qkv.weight, source.trunk.blocks[1].attn.qkv.weight)
    del tensors["encoder.layers.1.attn.k_norm.weight"]
    with pytest.raises(WeightsError, match=r"missing: trunk\.blocks\.1\.attn\.k_norm\.weight"):
        load(tower, tensors)
