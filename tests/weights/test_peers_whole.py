"""Whole small models of transformers, image and all: the same logits, and the same words."""

import importlib.util
from functools import partial

import pytest
import torch

from mmrnn.backbones import RWKV7
from mmrnn.connectors import QFormer, TextQFormer
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM
from mmrnn.types import SLOT, Batch, ImageSpan, Sequence
from mmrnn.weights import load
from mmrnn.weights.export import export
from tests.peers import tiny_models
from tests.peers.tiny_models import transformers

close = partial(torch.testing.assert_close, atol=1e-5, rtol=0)

SLOTS = 59
"""The word that transformers has where an image stands."""


def asked(model, before, after, images):
    """Our batch of one image a row between two texts, and the ids that transformers wants."""
    layout = model.modalities["image"].layout(*images.shape[-2:])
    rows, at = len(images), len(before)
    middle = torch.full((rows, layout.tokens), SLOT)
    ids = torch.cat([torch.tensor([before] * rows).long(), middle, torch.tensor([after] * rows)], dim=1)
    blocks = tuple(ImageSpan(row, at, layout) for row in range(rows))
    return Batch(Sequence(ids, blocks), {"image": images}), ids.masked_fill(ids == SLOT, SLOTS)


@torch.no_grad()
def test_opt(tmp_path):
    text, ours = tiny_models.opt(60)
    peer = tiny_models.randomised(transformers.OPTForCausalLM(text))
    peer.save_pretrained(tmp_path)
    assert load(ours, tmp_path).format == "hf"
    ids = torch.randint(4, 59, (2, 9))
    close(ours.head(ours(Sequence(ids))[0]), peer(ids).logits)
    written = peer.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)[:, 9:]
    assert generate(VLM(ours, {}), Batch(Sequence(ids)), max_new_tokens=6) == written.tolist()


@torch.no_grad()
def test_llava(tmp_path):
    peer, ours = tiny_models.llava(60, SLOTS)
    peer.save_pretrained(tmp_path)
    for source in (tmp_path, peer.state_dict()):
        assert load(ours, source).format.startswith("llava_hf")
    images = torch.randn(2, 3, 32, 32)
    batch, ids = asked(ours, [1, 5], [7, 9, 11], images)
    close(ours.head(ours(batch).hidden), peer(input_ids=ids, pixel_values=images).logits)
    written = peer.generate(input_ids=ids, pixel_values=images, max_new_tokens=6, do_sample=False)
    assert generate(ours, batch, max_new_tokens=6) == written[:, ids.shape[1] :].tolist()


@torch.no_grad()
def test_blip2(tmp_path):
    peer, ours = tiny_models.blip2(*tiny_models.opt(60), SLOTS)
    peer.save_pretrained(tmp_path)
    report = load(ours, tmp_path)
    assert report.format == "hf_vlm, blip2_hf"
    assert report.ignored == {}
    images = torch.randn(2, 3, 32, 32)
    batch, ids = asked(ours, [], [2, 9, 11], images)
    close(ours.head(ours(batch).hidden), peer(input_ids=ids, pixel_values=images).logits)
    written = peer.generate(input_ids=ids, pixel_values=images, max_new_tokens=6, do_sample=False)
    assert generate(ours, batch, max_new_tokens=6) == written[:, -6:].tolist()


@torch.no_grad()
def test_flan_t5_has_a_head_of_its_own():
    """transformers 5 ties every T5 that it builds; the released FlanT5 has two tables, and so have we."""
    text, ours = tiny_models.t5(60)
    peer = transformers.T5ForConditionalGeneration(text)
    peer.lm_head.weight = torch.nn.Parameter(torch.randn(60, 32))
    peer.eval()
    tensors = {name: value.clone() for name, value in peer.state_dict().items()}
    load(ours, tensors)
    assert torch.equal(ours.model.lm_head.weight, peer.lm_head.weight)
    assert torch.equal(ours.model.shared.weight, peer.shared.weight)
    ids = torch.randint(1, 60, (1, 7))
    hidden, _ = ours(Sequence(ids))
    expected = peer(input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits
    close(ours.head(hidden[:, -1]), expected[:, 0])


@torch.no_grad()
def test_the_qformer_of_instructblip():
    """With the instruction beside the queries, and without it."""
    config = transformers.InstructBlipQFormerConfig(**tiny_models.QUERIES)
    peer = tiny_models.randomised(transformers.InstructBlipQFormerModel(config))
    queries, tokens = torch.randn(1, 4, 16), torch.randn(2, 9, 24)
    source = {f"qformer.{name}": value for name, value in peer.state_dict().items()} | {"query_tokens": queries}
    alone = QFormer(24, **tiny_models.QFORMER).eval()
    assert load(alone, source).format == "instructblip_hf"
    asked = {"query_embeds": queries.expand(2, -1, -1), "encoder_hidden_states": tokens}
    close(alone(tokens), peer(None, **asked).last_hidden_state)

    qformer = TextQFormer(24, **tiny_models.QFORMER, vocab=30, positions=20).eval()
    load(qformer, source, strict=False)  # InstructBLIP predicts no words
    ids, known = torch.randint(0, 30, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    known[1, 3:] = False
    mask = torch.cat([torch.ones(2, 4), known], dim=1).long()
    expected = peer(ids, attention_mask=mask, **asked).last_hidden_state
    close(qformer.forward_joint(tokens, ids, known)[0], expected[:, :4])


@torch.no_grad()
def test_fuyu(tmp_path):
    """Rows of patches, each closed by a word."""
    peer, ours = tiny_models.fuyu(60, SLOTS, patch=30, size=(60, 90))
    peer.save_pretrained(tmp_path)
    newline = 40
    backbone, connector = ours.backbone, ours.modalities["image"].connector
    for source in (tmp_path, peer.state_dict()):
        load(backbone, source)
        load(connector, source, strict=False)  # the released vocabulary alone has the word at its place
    connector.newline.copy_(backbone.embed(torch.tensor([[newline]]))[0, 0])
    images = torch.randn(1, 3, 60, 90)
    batch, ids = asked(ours, [], [1, 9, 11], images)
    ids[:, [3, 7]] = newline
    patches = ours.modalities["image"].encode(images)
    close(ours.head(ours(batch).hidden), peer(input_ids=ids, pixel_values=patches).logits)
    written = peer.generate(input_ids=ids, pixel_values=patches, max_new_tokens=6, do_sample=False)
    assert generate(ours, batch, max_new_tokens=6) == written[:, ids.shape[1] :].tolist()


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_rwkv7_in_its_package(tmp_path, monkeypatch):
    """The package has RWKV-7 in it where the environment says so before it is imported."""
    found = importlib.util.find_spec("rwkv.model")
    if found is None:
        pytest.skip("rwkv is not installed")
    for name, value in {"RWKV_V7_ON": "1", "RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0"}.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("rwkv_model_of_version_7", found.origin)
    package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    ours = RWKV7(vocab=50, width=64, depth=2, head_size=16, heads=4, ffn=96)
    for value in ours.parameters():
        torch.nn.init.normal_(value, std=0.3)
    torch.save({name: value.clone() for name, value in export(ours, "rwkv7").items()}, tmp_path / "a.pth")
    peer = package.RWKV(model=str(tmp_path / "a"), strategy="cpu fp32")
    twin = RWKV7(vocab=50, width=64, depth=2, head_size=16, heads=4, ffn=96).eval()
    load(twin, tmp_path / "a.pth")
    ids = torch.randint(1, 50, (11,)).tolist()
    expected, state = peer.forward(ids, None, full_output=True)
    hidden, _ = twin(Sequence(torch.tensor([ids])))
    torch.testing.assert_close(twin.head(hidden)[0], expected.float(), atol=1e-4, rtol=0)
    written, logits = [], expected[-1]
    for _ in range(6):
        written.append(int(logits.argmax()))
        logits, state = peer.forward([written[-1]], state)
    assert generate(VLM(twin, {}), Batch(Sequence(torch.tensor([ids]))), max_new_tokens=6)[0] == written
