"""Cobra: its row, its text, and a file as its training writes it."""

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.model.build import build
from mmrnn.types import SLOT, Batch, ImageSpan, Sequence, Turn
from mmrnn.weights import load
from mmrnn.weights.export import export


@pytest.fixture
def cobra():
    torch.manual_seed(0)
    return build(compose("model=cobra_tiny")).eval()


@torch.no_grad()
def test_a_file_of_its_training_opens(cobra, tmp_path):
    """`{"model": {"projector", "llm_backbone"}}`: the towers stay as they are."""
    connector, backbone = cobra.modalities["image"].connector, cobra.backbone
    projector = {f"projector.{name}": value for name, value in export(connector, "prismatic").items()}
    assert next(iter(projector)).startswith("projector.projector.0.")
    language = {f"llm.{name}": value for name, value in export(backbone, "mamba").items()}
    inner = {name.removeprefix("projector."): value for name, value in projector.items()}
    torch.save({"model": {"projector": inner, "llm_backbone": language}}, tmp_path / "cobra.pt")
    other = build(compose("model=cobra_tiny")).eval()
    report = load(other, tmp_path / "cobra.pt", strict=False)
    assert report.format.startswith("cobra")
    for part in ("backbone", "modalities.image.connector"):
        ours, theirs = (model.get_submodule(part).state_dict() for model in (cobra, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@torch.no_grad()
def test_patches_stand_in_front_of_the_ids(cobra):
    """As upstream: [patches][ids], DINOv2's channels first, and the language model reads them as embeddings."""
    modality = cobra.modalities["image"]
    images = modality.encoder.image
    layout = modality.layout(*images.size)
    assert layout.tokens == 16
    features = torch.randn(1, 16, modality.encoder.width)
    ids = torch.randint(1, 50, (1, 7))
    slots = torch.full((1, 16), SLOT)
    sequence = Sequence(torch.cat([slots, ids], 1), (ImageSpan(0, 0, layout),))
    output = cobra(Batch(sequence, features={"image": features}))
    embeds = torch.cat([modality.connector(features), cobra.backbone.embed(ids)], 1)
    hidden, _ = cobra.backbone(Sequence(sequence.ids, embeds=embeds))
    torch.testing.assert_close(output.hidden, hidden)


def test_the_prompt_is_zephyrs():
    prompt = instantiate(plain(compose(config="prompt/cobra"))["prompt"])
    turns = [
        Turn("user", "<image> what is it? "),
        Turn("assistant", "A shed."),
        Turn("user", "How old?"),
        Turn("assistant", ""),
    ]
    spans = prompt.spans(turns, 1)
    text = "".join("<image>" if span.image else span.text for span in spans)
    assert text == (
        "<image><|user|>\nwhat is it?<|endoftext|>\n<|assistant|>\nA shed.<|endoftext|>"
        "\n<|user|>\nHow old?<|endoftext|>\n<|assistant|>\n"
    )
    assert "".join(span.text for span in spans if span.target) == "A shed.<|endoftext|>"
