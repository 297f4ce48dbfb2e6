"""VisualRWKV v7.01 and its contrastive alignment, as the original code computes them.

The case is not in the repository's copies: a clone without the full set skips these tests.
"""

from dataclasses import replace

import pytest
import torch

from mmrnn import weights
from mmrnn.connectors import AdaptivePool, GatedLinear, Sequential
from mmrnn.inference.embedding import similarity
from mmrnn.model.vlm import VLM, Modality
from mmrnn.prompts import RWKVChat, tokenize
from mmrnn.tokenizers import RWKVWorldTokenizer
from mmrnn.training import Contrastive, LanguageModel, WeightedSum
from mmrnn.types import SLOT, Batch, ImageSpan, Layout, Sequence, Turn
from tests.designs.visualrwkv7 import close, compare_gradients, language, tower

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def case(golden):
    return golden("visualrwkv71_contrast")


@pytest.fixture(scope="module")
def built(case, params):
    meta, tensors = case
    config, given = meta["config"], params(tensors)
    encoder, backbone = tower(config), language(config, given)
    parts = [lambda i, o: AdaptivePool(i, o, tokens=config["tokens"]), GatedLinear]
    model = VLM(backbone, {"image": Modality(encoder, Sequential(encoder.width, backbone.width, parts=parts))})
    assert weights.load(model, given).format == "visualrwkv_mlp"
    encoder.requires_grad_(False)
    return model


@pytest.fixture(scope="module")
def batch(case, built):
    meta, tensors = case
    mark = meta["config"]["image_id"]
    layout = built.modalities["image"].layout(*built.modalities["image"].image.size)
    ids = tensors["in/ids"]
    spans = tuple(ImageSpan(row, int((ids[row] == mark).nonzero()[0]), layout) for row in range(len(ids)))
    sequence = Sequence(ids.masked_fill(ids == mark, SLOT), spans, labels=tensors["in/labels"])
    return Batch(sequence, {"image": tensors["in/images"][:, 0]})


def objective(temperature: float) -> tuple[LanguageModel, Contrastive]:
    return LanguageModel(l2wrap=0.0), Contrastive(temperature=temperature, marks=True, text="in_row")


def test_from_pixels_to_logits(case, built, batch):
    meta, tensors = case
    modality = built.modalities["image"]
    features = modality.encode(batch.images["image"])
    close(features, tensors["out/tower"], 5e-5)
    layout = modality.encoder.layout(*modality.image.size)
    for tokens in (meta["config"]["tokens"], *meta["config"]["pools"]):
        name = "out/pooled" if tokens == meta["config"]["tokens"] else f"out/pooled_{tokens}"
        close(AdaptivePool(features.shape[-1], tokens=tokens)(features, layout), tensors[name], 5e-5)
    close(modality.connect(features), tensors["out/image_features"], 5e-5)
    output = built(batch)
    close(output.sequence.embeds, tensors["out/embeds"], 5e-5)
    close(built.head(output.hidden), tensors["out/logits"], 2e-4)


def test_marks_losses_and_gradients(case, built, batch, params):
    meta, tensors = case
    predict, contrast = objective(meta["config"]["temperature"])
    pairs = contrast.find_pairs(batch.sequence)
    assert [pair.image for pair in pairs] == tensors["out/image_mark"].tolist()
    assert [pair.stop - 1 for pair in pairs] == tensors["out/text_mark"].tolist()
    output = built(batch)
    images, texts = contrast.features(built, output)
    close(images, tensors["out/image_mark_features"], 5e-5)
    close(texts, tensors["out/text_features"], 5e-5)
    unit = [torch.nn.functional.normalize(x, dim=-1)[:, None] for x in (texts, images)]
    close(similarity(*unit) / contrast.temperature, tensors["out/similarity"], 2e-4)
    loss = contrast(built, output)
    close(loss, tensors["out/contrastive_loss"], 2e-5)
    close(predict(built, output), tensors["out/loss"], 2e-5)
    for name, value in (("grad_contrastive/", loss), ("grad/", None)):
        built.zero_grad()
        if value is None:
            both = WeightedSum(built, parts=[LanguageModel(l2wrap=1e-4), contrast])
            value = both(built, built(batch))
            close(value, tensors["out/total_loss"], 2e-5)
        value.backward()
        expected = params(tensors, name)
        for prefix, part in (("rwkv.", built.backbone), ("proj.", built.modalities["image"].connector)):
            own = {key.removeprefix(prefix): grad for key, grad in expected.items() if key.startswith(prefix)}
            compare_gradients(part, own, 2e-4)
    # The head has no part in the contrast.
    built.zero_grad()
    contrast(built, built(batch)).backward()
    assert built.backbone.output.weight.grad is None


def written(record: dict, prompt: RWKVChat, tokens: int) -> tuple[list[int], list[int]]:
    """Ids and labels of a dialogue; upstream shows a blank image where there is none."""
    turns = [
        Turn("user" if turn["from"] == "human" else "assistant", turn["value"]) for turn in record["conversations"]
    ]
    if not any("<image>" in turn.text for turn in turns):
        turns[0] = replace(turns[0], text=f"<image>\n{turns[0].text}")
    row = tokenize(prompt.spans(turns, 1), RWKVWorldTokenizer(), [Layout(prefix=tokens)])
    return row.ids, row.labels


@pytest.mark.parametrize("version", ["contrastive", "v7.01"])
def test_text(case, version):
    meta, _ = case
    given = meta["text"]
    marks = {"image_mark": 65534, "text_mark": 65535} if version == "contrastive" else {}
    image = 65533 if marks else given["v7.01 picture id"]
    for record in given[version]:
        ids, labels = written(record, RWKVChat(**marks), 4)
        length = len(ids)
        assert [image if one == SLOT else one for one in ids] == record["ids"][:length]
        assert labels == record["labels"][:length]
        assert not any(record["ids"][length:])
