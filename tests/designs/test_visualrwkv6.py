"""VisualRWKV v6.0 as the original code computes it, from pixels to replies."""

import pytest
import torch

from mmrnn import weights
from mmrnn.backbones import scan
from mmrnn.connectors import Pool
from mmrnn.inference.generate import stream
from mmrnn.model.vlm import Output
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.types import Sequence
from tests.designs.visualrwkv import build, close, prompt, replies, side, spliced, upstream

pytestmark = pytest.mark.golden


def test_v6_tower_pooling_and_projection(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    images = tensors["in/images"][:, 0]
    model = build(case, params(tensors), "last")
    features = model.modalities["image"].encode(images)
    close(features, torch.cat([tensors["out/vit_features"][:, 1:], tensors["out/vit_features"][:, :1]], 1), 2e-5)
    for grid in (int(name.split("/")[1][4:]) for name in tensors if name.endswith("/projected")):
        pooled = build(case, params(tensors), "last", pool=lambda i, o, g=grid: Pool(i, o, grid=g))
        modality = pooled.modalities["image"]
        close(
            modality.connector.parts[0](features, modality.encoder.layout(*modality.image.size)),
            tensors[f"out/grid{grid}/features"],
            2e-5,
        )
        close(modality.connect(features), tensors[f"out/grid{grid}/projected"], 2e-5)


def test_v6_logits_loss_and_gradients(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    sequence = upstream(tensors, "out/", side(case), side(case), 1)
    hidden, state = model.backbone(sequence, scan=model.scan)
    close(model.head(hidden), tensors["out/logits"], 2e-4)
    loss = LanguageModel(reduction="sample", l2wrap=0.0)(model, Output(hidden, state, sequence))
    close(loss, tensors["out/loss"], 2e-5)


def test_v6_gradients_through_the_whole_path(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    sequence = upstream(tensors, "out/", side(case), side(case), 1)
    # The projected images enter where upstream put them, so that the projection gets its gradient.
    shown = [i for i, sample in enumerate(case["config"]["samples"]) if sample["image_index"] is not None]
    visual = model.modalities["image"].connect(model.modalities["image"].encode(tensors["in/images"][shown, 0]))
    embeds = sequence.embeds.clone()
    for row, image in zip(shown, visual, strict=True):
        close(image, tensors["out/image_features"][row], 2e-5)
        block = sequence.image_spans[row]
        embeds[row, block.start : block.stop] = image
    sequence = Sequence(sequence.ids, sequence.image_spans, embeds, sequence.labels)
    hidden, state = model.backbone(sequence, scan=model.scan)
    LanguageModel(reduction="sample", l2wrap=1e-4)(model, Output(hidden, state, sequence)).backward()
    expected = params(tensors, "grad/")
    for prefix, part, format in (
        ("rwkv.", model.backbone, "rwkv6"),
        ("proj.", model.modalities["image"].connector, None),
    ):
        group = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
        assert group
        grads = {name: value.grad for name, value in part.named_parameters()}
        for name, value in weights.convert(part, group, format=format).items():
            assert (grads[name] - value).abs().max() <= 2e-4 * value.abs().max(), name


def test_v6_other_grids(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    grids = [
        int(name.split("/")[1][4:]) for name in tensors if name.startswith("out/grid") and name.endswith("/logits")
    ]
    assert grids
    for grid in grids:
        model = build(case, params(tensors), "last", scan.bidirectional, pool=lambda i, o, g=grid: Pool(i, o, grid=g))
        batch, places = spliced(case, tensors, model, "v60")
        logits = model.head(model(batch).hidden)
        labels = tensors[f"out/grid{grid}/labels"]
        for row, place in enumerate(places):
            assert labels[row, place].tolist() == batch.sequence.labels[row, : len(place)].tolist()
            if place[0] == 0:
                close(logits[row, : len(place)], tensors[f"out/grid{grid}/logits"][row, place], 2e-4)


def test_v6_splice_puts_everything_where_upstream_does(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    batch, places = spliced(case, tensors, model, "v60")
    sequence = model.embed(batch)
    for row, place in enumerate(places):
        close(sequence.embeds[row, : len(place)], tensors["out/embeds"][row, place], 2e-5)
        assert tensors["out/labels"][row, place].tolist() == sequence.labels[row, : len(place)].tolist()
    # The row that upstream does not pad equals ours in its logits, too.
    logits = model.head(model(batch).hidden)
    unpadded = [row for row, place in enumerate(places) if place[0] == 0]
    assert unpadded
    for row in unpadded:
        close(logits[row, : len(places[row])], tensors["out/logits"][row, places[row]], 2e-4)


def test_v6_replies(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    expected = tensors["out/gen_tokens"].tolist()
    tokens, logits = replies(model, prompt(tensors, model), len(expected))
    assert tokens == expected
    close(logits, tensors["out/gen_step_logits"], 2e-4)
    close(logits.max(-1).values, tensors["out/gen_token_logits"], 2e-4)
    close(logits.softmax(-1).max(-1).values, tensors["out/gen_token_probs"], 2e-4)
    stopped = list(stream(model, prompt(tensors, model), finished=lambda ids: ids[-1] == expected[3]))
    assert [step[0].id for step in stopped] == tensors["out/gen_stop_tokens"].tolist()
