"""The connectors of single designs against what the original projects compute."""

from functools import partial
from math import isqrt

import pytest
import torch
from torch.nn import functional as F

from mmrnn.connectors import (
    GLU,
    BeginEndTokens,
    CrossAttentionTokens,
    Linear,
    Perceiver,
    QFormer,
    Resampler,
    RowSeparators,
    TextQFormer,
)
from mmrnn.connectors.resampler import position_table, resample_table
from mmrnn.types import Layout
from mmrnn.weights import load

pytestmark = pytest.mark.golden
close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-5)


def test_qwen_resampler(golden, params):
    case, tensors = golden("qwen_visual")
    config = case["config"]
    resampler = Resampler(config["width"], config["out"], queries=config["queries"], heads=config["pool_heads"])
    report = load(resampler, params(tensors))
    assert report.format == "qwen_vl"
    table = position_table(isqrt(config["queries"]), config["out"])
    close(table.flatten(0, 1), tensors["param/transformer.visual.attn_pool.pos_embed"])
    for number, size in enumerate(config["sizes"]):
        side = size // config["patch"]
        close(resample_table(table, side, side).flatten(0, 1), tensors[f"out/key_pos_{number}"])
        tokens, layout = tensors[f"out/vit_tokens_{number}"], Layout(side, side)
        close(resampler.cross_attend(tokens, layout), tensors[f"out/pooled_{number}"])
        close(resampler(tokens, layout), tensors[f"out/visual_{number}"])


def perceiver(config):
    knobs = {"latents": config["latents"], "depth": config["depth"], "heads": config["p_heads"]}
    return Perceiver(config["v_width"], head_size=config["dim_head"], **knobs)


def test_perceiver(golden, params):
    case, tensors = golden("perceiver")
    config = case["config"]
    made = CrossAttentionTokens(config["v_width"], config["width"], part=lambda width, out: perceiver(config))
    weights = {name: value for name, value in params(tensors).items() if not name.startswith("alone_")}
    assert load(made.part, weights).format == "openflamingo"
    tokens = tensors["out/vision_tokens"]
    close(made(tokens.flatten(0, 2)), tensors["out/media"].flatten(0, 1))
    assert made.layout(Layout(4, 4)) == Layout(cross_attention=config["latents"])
    assert made.layout(Layout(4, 4)).tokens == 0


def test_perceiver_on_frames(golden, params):
    """The frames of a video are laid end to end; where a checkpoint has embeddings of their times they are added."""
    case, tensors = golden("perceiver")
    made, weights = perceiver(case["config"]), params(tensors, "param/alone_perceiver.")
    frames, times = weights.pop("frame_embs"), weights.pop("media_time_embs")
    load(made, weights)
    features = tensors["in/alone_features"]
    b, t, f = features.shape[:3]
    timed = (features + frames[:f, None]).flatten(2, 3) + times[:t]
    close(made(timed.flatten(0, 1)).unflatten(0, (b, t)), tensors["out/alone_latents"])


@pytest.mark.parametrize("names", ["sat", "hf"])
def test_cogvlm_adapter(golden, params, names):
    case, tensors = golden("cogvlm_expert")
    config, weights = case["config"], params(tensors)
    if names == "hf":
        weights = {case["hf_names"][name]: value for name, value in weights.items()}
    made = BeginEndTokens(config["v_width"], config["width"], part=partial(GLU, hidden=config["ffn"]))
    assert load(made, weights).format == f"cogvlm_{names}"
    visual = made(tensors["out/vit_features"])
    close(visual[:, 1:-1], tensors["out/glu_features"])
    close(visual, tensors["out/embeds"][:, 1 : 1 + visual.shape[1]])
    assert made.layout(Layout(35, 35)).tokens == 1225 + 2


def test_fuyu_rows(golden, params):
    case, tensors = golden("fuyu_hf")
    config, weights = case["config"], params(tensors)
    made = RowSeparators(3 * config["patch"] ** 2, config["width"], part=Linear)
    newline = weights["language_model.model.embed_tokens.weight"][config["newline_id"]]
    assert load(made, {**weights, "newline": newline}).format == "fuyu_hf"
    rows, cols = case["images"]["image_0"]["rows_cols"]
    visual = made(tensors["in/patches"], Layout(rows, cols))
    patches = tensors["out/patch_index_0"] >= 0
    close(visual[:, patches], tensors["out/patch_embeds"])
    close(visual[0, ~patches], newline.expand(rows, -1))
    assert made.layout(Layout(36, 64)).tokens == 2340


def test_fuyu_takes_the_end_of_a_row_from_the_released_vocabulary():
    made, table = RowSeparators(12, 4, part=Linear), torch.randn(71100, 4)
    weights = {f"vision_embed_tokens.{name}": value for name, value in Linear(12, 4).proj.state_dict().items()}
    load(made, {**weights, "language_model.model.embed_tokens.weight": table})
    assert made.newline.equal(table[71019])


def test_visualglm_qformer(golden, params):
    case, tensors = golden("visualglm")
    config = case["config"]
    knobs = {
        "queries": case["image_length"],
        "width": config["q_width"],
        "depth": config["q_layers"],
        "heads": config["q_heads"],
        "ffn": config["q_ffn"],
    }
    qformer = QFormer(config["v_width"], config["width"], **knobs).eval()
    assert load(qformer, params(tensors)).format == "visualglm"
    close(qformer(tensors["out/vit_features"]), tensors["out/visual_tokens"])
    qformer = QFormer(config["v_width"], **knobs).eval()
    load(qformer, params(tensors))
    close(qformer(tensors["out/vit_features"]), tensors["out/query_output"])


@pytest.fixture
def stage1(golden, params):
    case, tensors = golden("qformer_lavis")
    config, weights = case["config"], params(tensors)
    knobs = {
        name: config[theirs] for name, theirs in (("depth", "layers"), ("vocab", "vocab"), ("positions", "max_pos"))
    }
    knobs |= {name: config[name] for name in ("queries", "width", "heads", "ffn", "cross_every")}
    made = TextQFormer(config["enc_width"], **knobs).eval()
    report = load(made, weights)
    assert (report.format, report.loaded + len(report.ignored)) == ("lavis", len(weights))
    norm = weights["ln_vision.weight"], weights["ln_vision.bias"]
    image = F.layer_norm(tensors["in/image_feats_raw"], norm[0].shape, *norm)
    return case, tensors, weights, made, image


def test_text_branch(stage1):
    case, tensors, _, made, image = stage1
    ids, known = tensors["in/text_ids"], tensors["in/text_mask"].bool()
    close(made(image), tensors["out/query_output"])
    close(made.forward_text(ids, known), tensors["out/text_output"])
    close(torch.cat(made.forward_joint(image, ids, known), dim=1), tensors["out/joint_output"])
    opened = ids.clone()
    opened[:, 0] = case["config"]["bos_id"]
    queries, words = made.forward_joint(image, opened, known, "causal")
    close(words, tensors["out/lm_hidden"])
    close(made.next_token_logits(words), tensors["out/lm_logits"], atol=5e-5)
    close(queries, tensors["out/query_output"])


def test_queries_see_words_only_where_they_may(stage1):
    case, tensors, _, made, image = stage1
    ids, known = tensors["in/text_ids"], tensors["in/text_mask"].bool()
    other = (ids + 1) % case["config"]["bos_id"]
    for mode, same in (("causal", True), ("bidirectional", False)):
        first, second = (made.forward_joint(image, text, known, mode)[0] for text in (ids, other))
        assert torch.equal(first, second) is same
