"""InfiniteVL as its own code computes it: the mixer with its state and gradients, three-axis positions, the tower."""

import pytest
import torch
from torch import nn

from mmrnn.backbones import GatedDeltaNet, Hybrid
from mmrnn.backbones.mixer import MixerInputs
from mmrnn.connectors import PatchMerger
from mmrnn.encoders import QwenViT
from mmrnn.layers.rotary import frequency_axes, rotary_angles, rotate
from mmrnn.model.vlm import Modality
from mmrnn.weights import load
from mmrnn.weights.export import export
from mmrnn.weights.formats.infinitevl import adapt, inverse
from tests.designs.qwen_images import by_blocks, images_of

pytestmark = pytest.mark.golden


def close(found, truth, limit):
    torch.testing.assert_close(found, truth, atol=limit, rtol=0)


@pytest.fixture
def mixer(golden, params):
    """The mixer, filled by the names of a whole file."""
    meta, tensors = golden("infinitevl_delta")
    config = meta["config"]
    sizes = {"heads": config["heads"], "key_size": config["k_dim"], "value_size": 2 * config["k_dim"]}

    def make(width, index=0):
        return GatedDeltaNet(width, index, **sizes, eps=config["norm_eps"])

    model = Hybrid(pattern=["delta"], mixers={"delta": make}, vocab=4, width=config["width"], depth=2, ffn=8)
    theirs = {f"model.layers.1.self_attn.{name}": value for name, value in params(tensors).items()}
    rest = {name: value for name, value in export(model, "infinitevl").items() if name not in theirs}
    load(model, {**rest, **theirs})
    return config, tensors, model


def test_mixer(mixer):
    config, tensors, model = mixer
    part, x = model.blocks[1].mixer, tensors["in/x"]
    found, state, _ = part(x, part.state(len(x)), MixerInputs())
    close(found, tensors["out/y"], 2e-5)
    close(state["delta"], tensors["out/state/delta"], 1e-4)
    close(state["conv"], tensors["out/state/conv"][..., 1:], 1e-4)
    first, middle, _ = part(x[:, : config["cut"]], part.state(len(x)), MixerInputs())
    close(middle["delta"], tensors["out/state_cut/delta"], 1e-4)
    rest, _, _ = part(x[:, config["cut"] :], middle, MixerInputs())
    close(torch.cat([first, rest], 1), tensors["out/y"], 2e-5)
    (found * tensors["in/weights"]).sum().backward()
    for parameter in part.parameters():
        parameter.data = parameter.grad
    names = {name.rpartition("self_attn.")[2]: name for name in export(model, "infinitevl") if ".1.self_attn" in name}
    for name, value in export(model, "infinitevl").items():
        if name in names.values():
            truth = tensors[f"grad/{name.rpartition('self_attn.')[2]}"]
            assert (value - truth).abs().max() <= 1e-4 * truth.abs().max(), name


def test_positions_in_blocks(mixer):
    config, tensors, _ = mixer
    _, size = config["att"]
    axes = frequency_axes(config["mrope"], interleaved=False)
    angle = rotary_angles(tensors["in/positions"].permute(1, 2, 0), size, config["theta"], axes)
    for name in ("q", "k"):
        close(rotate(tensors[f"in/{name}"], angle), tensors[f"out/{name}"], 2e-5)


def test_tower(golden, params):
    meta, tensors = golden("infinitevl_tower")
    config = meta["config"]
    sizes = {name: config[name] for name in ("width", "depth", "heads", "ffn", "patch", "merge")}
    least, most = config["pixels"]
    encoder = QwenViT(
        **sizes,
        patch_bias=False,
        table=0,
        swiglu=True,
        window=config["window"] // config["patch"],
        whole=tuple(config["full"]),
        min_pixels=least,
        max_pixels=most,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    modality = Modality(encoder, PatchMerger(config["width"], config["out"], rms=True))
    for part in (encoder, modality.connector):
        load(part, params(tensors))
    found, images = images_of(tensors, encoder)
    merged, last = [], []
    for mine, image in zip(found, images, strict=True):
        close(mine, image, 0.03)
        grid = encoder.layout(*image.shape[-2:])
        tokens = modality.encode(image[None])
        last.append(by_blocks(tokens[0], (grid.rows, grid.cols), encoder.merge))
        merged.append(modality.connect(tokens, grid)[0])
    close(torch.cat(last), tensors["out/last_hidden_state"], 3e-5)
    close(torch.cat(merged), tensors["out/merged"], 3e-5)
    (torch.cat(merged) * tensors["in/weights"]).sum().backward()
    for parameter in modality.parameters():
        parameter.data = parameter.grad
    for name, value in {**export(encoder, "qwen25_vl"), **export(modality.connector, "qwen25_vl")}.items():
        truth = tensors[f"grad/{name.removeprefix('model.').removeprefix('visual.')}"]
        assert (value - truth).abs().max() <= 1e-4 * truth.abs().max(), name


def test_the_convolutions_are_joined_and_split_again():
    rows = {"query": 2, "key": 2, "value": 3}
    theirs = {f"blocks.0.mixer.{one}.weight": torch.randn(count, 4) for one, count in rows.items()}
    theirs |= {f"blocks.0.mixer.{one[0]}@conv.weight": torch.randn(count, 1, 4) for one, count in rows.items()}
    ours = adapt(theirs, nn.Linear(1, 1), [])
    assert ours["blocks.0.mixer.conv.weight"].shape == (7, 1, 4)
    back = inverse(ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
