"""A tiny model of each design, written to disk and read again, says what it said."""

import pytest
import torch
from PIL import Image

from mmrnn import checkpoint
from mmrnn.assistant import Assistant
from mmrnn.config import build, compose, conf_dir, make, plain

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))


@pytest.mark.parametrize("name", TINY)
def test_a_model_from_disk_replies_alike(name, tmp_path):
    torch.manual_seed(0)
    cfg = plain(compose(f"model={name}", "out=null"))
    model = build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    picture = Image.linear_gradient("L").resize((30, 20))
    said = Assistant(model, make(cfg["tokenizer"]), make(cfg["prompt"])).ask(picture, "what is it?", limit=4)
    checkpoint.save(tmp_path, model, cfg)
    assert checkpoint.load(tmp_path).ask(picture, "what is it?", limit=4) == said
