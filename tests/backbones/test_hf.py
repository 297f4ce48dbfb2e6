"""Backbones of `transformers`: golden cases of OPT, Persimmon, BLIP-2 and Fuyu; state and padding."""

import re
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmrnn.backbones.hf import HFDecoder, HFEncoderDecoder
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM
from mmrnn.types import IGNORE, Batch, Sequence
from mmrnn.weights import load

pytest.importorskip("transformers")
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


def opt(config, **more):
    arch = {"num_hidden_layers": config["layers"], "num_attention_heads": config["heads"], "ffn_dim": config["ffn"]}
    arch |= {"word_embed_proj_dim": config["width"], "dropout": 0.0, **more}
    return HFDecoder(vocab=config["vocab"], width=config["width"], arch=arch).eval()


def persimmon(config):
    arch = {"num_hidden_layers": config["layers"], "num_attention_heads": config["heads"]}
    arch |= {"intermediate_size": config["ffn"], "rope_theta": config["theta"], "layer_norm_eps": config["eps"]}
    arch |= {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    return HFDecoder(name="persimmon", vocab=config["vocab"], width=config["width"], arch=arch).eval()


def reply(backbone, ids, limit, embeds=None):
    model = VLM(backbone, {})
    embeds = backbone.embed(ids) if embeds is None else embeds
    model.embed = lambda batch: batch.sequence
    return generate(model, Batch(Sequence(ids, embeds=embeds)), max_new_tokens=limit)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["opt_hf", "persimmon_hf"])
def test_decoders(golden, params, name):
    case, tensors = golden(name)
    config = case["config"]
    backbone = opt(config, max_position_embeddings=config["max_pos"]) if name == "opt_hf" else persimmon(config)
    assert load(backbone, params(tensors)).format == "hf"
    hidden, _ = backbone(Sequence(tensors["in/ids"]))
    close(hidden, tensors["out/last_hidden"])
    close(backbone.head(hidden), tensors["out/logits"])
    real = tensors["in/mask_padded"].bool()
    hidden, _ = backbone(Sequence(tensors["in/ids_padded"]))
    close(backbone.head(hidden)[real], tensors["out/logits_padded"][real])
    assert torch.tensor(reply(backbone, tensors["in/ids"], config["new"])).equal(tensors["out/greedy_ids"])


@pytest.mark.parametrize("make", [opt, persimmon])
def test_continuing_from_a_state(make):
    config = {"vocab": 60, "width": 32, "layers": 2, "heads": 4, "ffn": 48, "theta": 1e4, "eps": 1e-5}
    backbone, ids = make(config), torch.randint(0, 60, (2, 9))
    with torch.no_grad():
        whole, _ = backbone(Sequence(ids))
        first, state = backbone(Sequence(ids[:, :4]))
        kept = state.clone()
        rest, _ = backbone(Sequence(ids[:, 4:]), state)
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=1e-4)
        assert all(torch.equal(old["key"], new["key"]) for old, new in zip(kept.layers, state.layers, strict=True))
        # Left padding does not change the results.
        padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), ids], dim=1)
        segments = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 9, dtype=torch.long)], dim=1)
        alike, _ = backbone(Sequence(padded, segments=segments))
    torch.testing.assert_close(alike[:, 3:], whole, atol=1e-5, rtol=1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("kind", ["no_prompt", "prompt"])
def test_blip2_opt(golden, params, kind):
    case, tensors = golden("blip2_opt_lavis")
    config = case["config"]
    weights = params(tensors)
    places = len(weights["opt_model.model.decoder.embed_positions.weight"]) - 2
    backbone = opt(config, max_position_embeddings=places)
    assert load(backbone, weights).format == "lavis"
    embeds, real = tensors[f"out/{kind}_embeds"], tensors[f"out/{kind}_mask"].bool()
    hidden, _ = backbone(Sequence(torch.zeros(embeds.shape[:2], dtype=torch.long), embeds=embeds))
    logits = backbone.head(hidden)
    close(logits[real], tensors[f"out/{kind}_logits"][real])
    targets = tensors[f"out/{kind}_targets"]
    close(F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten()), tensors[f"out/{kind}_loss"])


@pytest.mark.golden
def test_fuyu(golden, params):
    case, tensors = golden("fuyu_hf")
    backbone = persimmon(case["config"])
    assert load(backbone, params(tensors)).format == "hf_vlm"
    ids = tensors["in/ids"]
    embeds = backbone.embed(ids)
    embeds[:, : len(tensors["out/patch_index_0"])][:, tensors["out/patch_index_0"] >= 0] = tensors["out/patch_embeds"]
    hidden, _ = backbone(Sequence(ids, embeds=embeds))
    close(backbone.head(hidden), tensors["out/logits"])
    assert torch.tensor(reply(backbone, ids, case["config"]["new"], embeds)).equal(tensors["out/greedy_ids"])


@pytest.mark.golden
def test_blip2_t5(golden, params):
    case, tensors = golden("blip2_t5_hf")
    config, weights = case["config"], params(tensors)
    arch = {"num_layers": config["layers"], "num_heads": config["heads"], "d_kv": config["d_kv"], "d_ff": config["ffn"]}
    table = weights["language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    farthest = int(re.search(r"max distance (\d+)", " ".join(case["notes"]))[1])
    arch |= {"relative_attention_num_buckets": len(table), "relative_attention_max_distance": farthest}
    arch |= {"dropout_rate": 0.0}
    arch |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    backbone = HFEncoderDecoder(vocab=config["vocab"], width=config["width"], arch=arch).eval()
    assert load(backbone, weights).format == "hf_vlm"
    query = tensors["out/query_output"]
    visual = F.linear(query, weights["language_projection.weight"], weights["language_projection.bias"])
    given = backbone.embed(tensors["in/ids"])
    given[:, : config["queries"]] = visual
    lengths = tensors["in/mask"].sum(1).tolist()

    # Our rows: context, reply, padding; the hidden states that predict the reply are not zero.
    replies = [row[row != IGNORE] for row in tensors["in/labels"]]
    size = max(n + len(reply) for n, reply in zip(lengths, replies, strict=True))
    ids, labels = torch.zeros(len(replies), size, dtype=torch.long), torch.full((len(replies), size), IGNORE)
    embeds = torch.zeros(len(replies), size, config["width"])
    for row, (n, answer) in enumerate(zip(lengths, replies, strict=True)):
        ids[row, n : n + len(answer)] = labels[row, n : n + len(answer)] = answer
        embeds[row, :n], embeds[row, n : n + len(answer)] = given[row, :n], backbone.embed(answer[None])[0]
    hidden, _ = backbone(Sequence(ids, embeds=embeds, labels=labels))
    logits = backbone.head(hidden)
    for row, (n, answer) in enumerate(zip(lengths, replies, strict=True)):
        close(logits[row, n - 1 : n - 1 + len(answer)], tensors["out/logits"][row, : len(answer)])
        assert not hidden[row, : n - 1].any()
    close(F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), tensors["out/loss"])

    for row, n in enumerate(lengths):
        asked = tensors["in/ids"][row : row + 1, :n]
        [reply_ids] = reply(backbone, asked, config["new"], given[row : row + 1, :n])
        assert reply_ids == tensors["out/greedy_ids"][row].tolist()


def test_flan_t5_saved_by_transformers_5(tmp_path):
    """Its head is tied, whatever the configuration says, and is not in the file."""
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"num_layers": 2, "num_heads": 2, "d_kv": 16, "d_ff": 48, "feed_forward_proj": "gated-gelu"}
    sizes |= {"dropout_rate": 0.0, "tie_word_embeddings": False}
    peer = T5ForConditionalGeneration(T5Config(vocab_size=60, d_model=32, **sizes)).eval()
    peer.save_pretrained(tmp_path)
    ours = HFEncoderDecoder(vocab=60, width=32, arch=sizes).eval()
    report = load(ours, tmp_path / "model.safetensors")
    assert any("the file has no head" in note for note in report.notes)
    ids = torch.randint(1, 60, (2, 6))
    with torch.no_grad():
        hidden, _ = ours(Sequence(ids))
        expected = peer(input_ids=ids, decoder_input_ids=torch.zeros(2, 1, dtype=torch.long)).logits
    close(ours.head(hidden[:, -1]), expected[:, 0])
