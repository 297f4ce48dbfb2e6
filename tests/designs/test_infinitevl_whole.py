"""InfiniteVL whole, beside a composition of transformers' parts on the same random weights, in a process of its own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmrnn.config.compose import compose
from mmrnn.model.build import build
from mmrnn.types import SLOT, Batch, ImageSpan, Sequence
from mmrnn.weights import load
from tests.designs.peer_process import run_peer

SCRIPT = Path(__file__).parent / "infinitevl_peer.py"
IMAGE = 1000


def test_logits_with_an_image(tmp_path):
    pytest.importorskip("transformers")
    file = tmp_path / "peer.safetensors"
    run_peer(SCRIPT, file)
    tensors = load_file(file)
    model = build(compose("model=infinitevl_tiny")).eval()
    weights = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    assert load(model, weights).format == "infinitevl"
    ids, pixels = tensors["ids"].clone(), tensors["pixels"][None]
    modality = model.modalities["image"]
    layout = modality.connector.layout(modality.encoder.layout(*pixels.shape[-2:]))
    slots = ids == IMAGE
    start = int(slots[0].nonzero()[0])
    ids[slots] = SLOT
    with torch.no_grad():
        given = Batch(Sequence(ids, (ImageSpan(0, start, layout),)), {"image": pixels})
        found = model.head(model(given).hidden)
    torch.testing.assert_close(found, tensors["logits"], atol=3e-4, rtol=0)
