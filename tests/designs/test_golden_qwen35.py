"""Qwen3.5 as transformers computes it: pixels, tower, merger, positions, logits, loss, gradients, replies.

Limits: pixels 2/255, features 2e-5, whole models 3e-4 (their gated norms amplify rounding), gradients 1e-3.
"""

import pytest
import torch
from torch.nn import functional as F

from mmrnn.backbones.positions import mrope
from mmrnn.connectors import PatchMerger
from mmrnn.encoders import QwenViT
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Sequence
from mmrnn.weights import load
from mmrnn.weights.export import export
from tests.designs.qwen_images import by_blocks, images_of

pytestmark = pytest.mark.golden


def tower(config) -> Modality:
    sizes = {name: config[name] for name in ("width", "depth", "heads", "ffn", "patch", "merge")}
    least, most = config["pixels"]
    encoder = QwenViT(**sizes, table=int(config["pos"] ** 0.5), min_pixels=least, max_pixels=most)
    return Modality(encoder, PatchMerger(config["width"], config["out"]))


def close(found, truth, limit):
    torch.testing.assert_close(found, truth, atol=limit, rtol=0)


def test_tower_and_merger(golden, params):
    case, tensors = golden("qwen35_vision")
    modality, weights = tower(case["config"]), params(tensors)
    encoder = modality.encoder
    for part in (encoder, modality.connector):
        load(part, weights)
    found, images = images_of(tensors, encoder)
    merged, last, table = [], [], []
    for mine, image in zip(found, images, strict=True):
        close(mine, image, 0.016)
        grid = encoder.layout(*image.shape[-2:])
        size = (grid.rows, grid.cols)
        tokens = modality.encode(image[None])
        last.append(by_blocks(tokens[0], size, encoder.merge))
        table.append(by_blocks(encoder.resampled_positions(grid), size, encoder.merge))
        merged.append(modality.connect(tokens, grid)[0])
    close(torch.cat(table), tensors["out/pos_embeds"], 2e-5)
    close(torch.cat(last), tensors["out/last_hidden_state"], 2e-5)
    close(torch.cat(merged), tensors["out/merged"], 2e-5)
    (torch.cat(merged) * tensors["in/weights"]).sum().backward()
    for parameter in modality.parameters():
        parameter.data = parameter.grad
    for name, value in {**export(encoder, "qwen35"), **export(modality.connector, "qwen35")}.items():
        truth = tensors[f"grad/{name.removeprefix('model.').removeprefix('visual.')}"]
        assert (value - truth).abs().max() <= 1e-4 * truth.abs().max(), name


@pytest.fixture
def whole(golden, params, qwen35):
    case, tensors = golden("qwen35_vlm")
    config = case["config"]
    model = VLM(qwen35(config["text"]), {"image": tower(config["vision"])}, position=mrope).eval()
    load(model, params(tensors))
    return config, tensors, model


def batch(config, tensors, model, rows):
    """The first rows, with the images in their places."""
    ids = tensors["in/ids"][rows].clone()
    encoder, connector = model.modalities["image"].encoder, model.modalities["image"].connector
    _, images = images_of(tensors, encoder)
    spans, taken = [], iter(images)
    for row, line in enumerate(ids):
        for start in (line == config["vision_start"]).nonzero().flatten().tolist():
            layout = connector.layout(encoder.layout(*next(taken).shape[-2:]))
            spans.append(ImageSpan(row, start + 1, layout))
    ids[ids == config["image_id"]] = SLOT
    labels = tensors["in/labels"][rows]
    used = tuple(images[: len(spans)])
    return Batch(Sequence(ids, tuple(spans), labels=labels), {"image": used})


def test_the_whole_model(whole):
    config, tensors, model = whole
    given = batch(config, tensors, model, slice(None))
    real = tensors["in/mask"].bool()
    positions = mrope(given.sequence)
    assert torch.equal(positions[real], tensors["out/positions"].permute(1, 2, 0)[real])
    logits = model.head(model(given).hidden)
    close(logits[real], tensors["out/logits"][real], 3e-4)
    targets = given.sequence.labels[:, 1:].flatten()
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets, ignore_index=IGNORE)
    close(loss, tensors["out/loss"], 2e-5)
    loss.backward()
    for parameter in model.parameters():
        parameter.data = parameter.grad
    modality = model.modalities["image"]
    found = {**export(model.backbone, "qwen35"), **export(modality.encoder, "qwen35")}
    found |= export(modality.connector, "qwen35")
    known = {name.removeprefix("grad/"): value for name, value in tensors.items() if name.startswith("grad/")}
    for name, truth in known.items():
        value = next(found[one] for one in (name, name.removeprefix("model.visual.")) if one in found)
        assert (value - truth).abs().max() <= 1e-3 * truth.abs().max(), name


@torch.no_grad()
def test_replies(whole):
    """Positions go on after the images, whose sides are longer than their tokens are many."""
    config, tensors, model = whole
    given = batch(config, tensors, model, slice(0, 1))
    length = int(tensors["in/mask"][0].sum())
    output = model(given.slice(0, length))
    delta = int(tensors["out/position_delta"][0])
    assert output.state.shared["next_position"].tolist() == [length + delta]
    hidden, state, said = output.hidden, output.state, []
    for _ in range(tensors["out/greedy"].numel()):
        said.append(model.head(hidden[:, -1]).argmax(-1))
        output = model(Batch(Sequence(said[-1][:, None])), state)
        hidden, state = output.hidden, output.state
    assert torch.cat(said).tolist() == tensors["out/greedy"].flatten().tolist()
