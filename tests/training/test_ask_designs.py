"""A tiny model of each design, written to disk and read again, gives the same reply."""

import pytest
import torch
from PIL import Image

from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.load import load
from mmrnn.model.build import build

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))


@pytest.mark.parametrize("name", TINY)
def test_a_model_from_disk_replies_alike(name, tmp_path):
    torch.manual_seed(0)
    cfg = plain(compose(f"model={name}", "out=null"))
    model = build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    image = Image.linear_gradient("L").resize((30, 20))
    assistant = Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))
    reply = assistant.ask(image, "what is it?", max_new_tokens=4)
    save(model, tmp_path, config=cfg)
    assert load(tmp_path).ask(image, "what is it?", max_new_tokens=4) == reply
