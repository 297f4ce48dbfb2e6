"""Pretrained parts from packages match their originals, and `mmrnn train model=smol` joins them."""

import json

import pytest
import torch
from bench_quantize import smol_figures

import mmrnn
from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.inference.assistant import Assistant
from mmrnn.io.tensor_files import read
from mmrnn.model.build import build
from mmrnn.types import Sequence

pytestmark = pytest.mark.slow

TEXTS = (
    "Hello world 1234 it's  two\n\nnew\tline",
    "naïve café 🎉",
    "<|im_start|>user\nHi<|im_end|>\n",
    "   I'LL 12,345",
)


@pytest.fixture(scope="module")
def parts():
    pytest.importorskip("gguf")
    cfg = compose("model=smol")
    try:
        return build(cfg).eval(), instantiate(cfg.tokenizer), instantiate(cfg.prompt)
    except ImportError as fault:
        pytest.skip(str(fault))


def test_a_sensible_sentence(parts):
    assistant = Assistant(*parts)
    assert "Paris" in assistant.ask(None, "What is the capital of France?", max_new_tokens=10)


def test_the_same_as_transformers_reads_from_the_file(parts):
    transformers = pytest.importorskip("transformers")
    from mmrnn.io.packages import locate

    model, tokenizer, _ = parts
    file = locate(model.backbone.pretrained)
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for text in TEXTS:
        assert tokenizer.encode(text) == theirs(text, add_special_tokens=False).input_ids
    peer = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode("The penguin is a bird that")])
    with torch.inference_mode():
        ours = model.head(model.backbone(Sequence(ids))[0])
        torch.testing.assert_close(ours, peer.eval()(ids).logits, atol=1e-4, rtol=0)


def test_8_bit_codes_keep_the_next_tokens(parts):
    """A third of the size of fp32; `tools/bench_quantize.py smol` prints all figures."""
    [(_, same, divergence, size)] = smol_figures(512, ("quantize=int8",))
    assert same >= 0.94
    assert divergence < 0.02
    assert size.before / size.after >= 3


def test_the_encoder_trains_on_and_the_language_model_stays(tmp_path, parts):
    """A short alignment lowers the loss, moves the connector alone, and is kept without the parts it started from."""
    from mmrnn.training.run import train

    steps = ("stage.align.steps=24", "stage.align.batch_size=8", "schedule.warmup=1", "log_every=1")
    few = ("data.scenes=24", "data.rounds=4", "evaluate.samples=0", "save_frozen=false", "precision=fp32")
    train(plain(compose("model=smol", *steps, *few)), tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    kept = read(tmp_path / "run" / "model.safetensors")
    assert not any(name.startswith("backbone.") for name in kept)
    model = mmrnn.load(tmp_path / "run").model
    assert torch.equal(model.backbone.embedding.weight, parts[0].backbone.embedding.weight)
    name = next(name for name in kept if name.endswith("layers.0.weight"))
    assert torch.equal(model.state_dict()[name], kept[name])
