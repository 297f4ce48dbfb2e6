"""VisualRWKV v5.0 and v5.1 as the original code computes them, from pixels to replies."""

import pytest
import torch

from mmrnn import weights
from mmrnn.backbones import scan
from mmrnn.connectors import MeanPool, Pool
from mmrnn.model.vlm import Output
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.types import Sequence
from tests.designs.visualrwkv import build, close, prompt, replies, side, spliced, upstream

pytestmark = pytest.mark.golden

SCANS = {"uni": "forward", "bi": "bidirectional", "multi": "multidirectional"}


def test_v5_0(golden, params):
    case, tensors = golden("visualrwkv5_scan")
    model = build(case, params(tensors), "first")
    batch, places = spliced(case, tensors, model, "v50")
    output = model(batch)
    logits = model.head(output.hidden)
    for row, place in enumerate(places):
        close(output.sequence.embeds[row, : len(place)], tensors["out/v50/embeds"][row, place], 2e-5)
        close(logits[row, : len(place)], tensors["out/v50/logits"][row, place], 2e-4)
    close(LanguageModel(reduction="token")(model, output), tensors["out/v50/loss"], 2e-5)
    expected = tensors["out/v50/gen_tokens"].tolist()
    tokens, steps = replies(model, prompt(tensors, model), len(expected))
    assert tokens == expected
    close(steps, tensors["out/v50/gen_step_logits"], 2e-4)


def test_v5_0_gradients(golden, params):
    case, tensors = golden("visualrwkv5_scan")
    model = build(case, params(tensors), "first")
    # Upstream fills rows with zero vectors, and its pull on the largest logits covers them as well.
    embeds = tensors["out/v50/embeds"].clone()
    batch, places = spliced(case, tensors, model, "v50")
    ours = model.embed(batch).embeds
    for row, place in enumerate(places):
        embeds[row, place] = ours[row, : len(place)]
    labels = tensors["out/v50/labels"]
    sequence = Sequence(labels.clamp(min=0), embeds=embeds, labels=labels)
    hidden, state = model.backbone(sequence)
    LanguageModel(reduction="token", l2wrap=1e-4)(model, Output(hidden, state, sequence)).backward()
    expected = params(tensors, "grad/")
    group = {name.removeprefix("rwkv."): value for name, value in expected.items() if name.startswith("rwkv.")}
    grads = {name: value.grad for name, value in model.backbone.named_parameters()}
    for name, value in weights.convert(model.backbone, group, format="rwkv5").items():
        assert (grads[name] - value).abs().max() <= 2e-4 * value.abs().max(), name
    (projection,) = (p.grad for p in model.modalities["image"].connector.parameters())
    value = expected["proj.weight"]
    assert (projection - value).abs().max() <= 2e-4 * value.abs().max()


def test_v5_0_pooling(golden, params):
    case, tensors = golden("visualrwkv5_scan")
    for name in [name for name in tensors if name.startswith("out/v50/grid") and name.endswith("/features")]:
        grid = int(name.split("/")[2][4:])
        pool = MeanPool if grid == 1 else (lambda i, o, g=grid: Pool(i, o, grid=g))
        model = build(case, params(tensors), "first", pool=pool)
        modality = model.modalities["image"]
        features = modality.encode(tensors["in/images"][:, 0])
        close(modality.connector.parts[0](features, modality.encoder.layout(*modality.image.size)), tensors[name], 2e-5)


@pytest.mark.parametrize("mode", ["uni", "bi", "multi", "spiral", "snake", "zigzag"])
def test_v5_1_scans(mode, golden, params):
    case, tensors = golden("visualrwkv5_scan")
    order = getattr(scan, SCANS.get(mode, mode))
    model = build(case, params(tensors), "last", order)
    sequence = upstream(tensors, "out/v51/", side(case), side(case), 1)
    hidden, state = model.backbone(sequence, scan=order)
    logits = model.head(hidden)
    theirs = tensors[f"out/v51_{mode}/logits"].clone()
    if f"out/v51_{mode}/order" in tensors:
        # Upstream never undoes these orders: its logits of the patches stand in scan order.
        start, stop = tensors["out/v51/img_span"].tolist()
        theirs[:, start + tensors[f"out/v51_{mode}/order"]] = theirs[:, start:stop].clone()
    close(logits, theirs, 2e-4)
    loss = LanguageModel(reduction="token")(model, Output(hidden, state, sequence))
    close(loss, tensors[f"out/v51_{mode}/loss"], 2e-5)
    if f"out/v51_{mode}/gen_tokens" in tensors:
        expected = tensors[f"out/v51_{mode}/gen_tokens"].tolist()
        tokens, steps = replies(model, prompt(tensors, model), len(expected))
        assert tokens == expected
        close(steps, tensors[f"out/v51_{mode}/gen_step_logits"], 2e-4)


@pytest.mark.parametrize("whole", [True, False])
def test_v5_pair_of_files(whole, tmp_path, golden, params):
    """The released v5 comes as two files: both are one source for the model, or each is one for its part."""
    case, tensors = golden("visualrwkv5_scan")
    named = params(tensors)
    files = tmp_path / "a_rwkv.pth", tmp_path / "a_visual.pth"
    language = {name: value.clone() for name, value in named.items() if name.startswith("rwkv.")}
    torch.save({name.removeprefix("rwkv."): value for name, value in language.items()}, files[0])
    torch.save({name: value.clone() for name, value in named.items() if name not in language}, files[1])
    expected, model = build(case, named, "first"), build(case, named, "first")
    for value in model.parameters():
        value.data.zero_()
    if whole:
        assert weights.load(model, files).format == "visualrwkv5"
    else:
        weights.load(model.backbone, files[0])
        assert weights.load(model.modalities["image"], files[1]).format == "visualrwkv5"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
