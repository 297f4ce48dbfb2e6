"""Connectors against what the original projects compute."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmrnn.connectors import MLP, Linear, MeanPool, Merge, Pool, QFormer, Sequential
from mmrnn.types import Layout
from mmrnn.weights import load

pytestmark = pytest.mark.golden
close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-5)


def test_grid_pooling(golden):
    case, tensors = golden("grid_pooling")
    side, width = case["config"]["patch_side"], case["config"]["width"]
    cls_first = tensors["in/features"]
    cls_last = torch.cat([cls_first[:, 1:], cls_first[:, :1]], dim=1)
    for grid, counts in case["config"]["tokens_v60_v50_by_grid_size"].items():
        pool = Pool(width, grid=int(grid))
        last, first = Layout(side, side, suffix=1), Layout(side, side, prefix=1)
        assert pool.layout(last).tokens == counts[0]
        close(pool(cls_last, last), tensors[f"out/v60/{grid}"])
        pool = MeanPool(width) if grid == "1" else pool
        assert pool.layout(first).tokens == counts[1]
        close(pool(cls_first, first), tensors[f"out/v50/{grid}"])


def ln_vision(checkpoint, tokens):
    """The norm between tower and connector."""
    scale, shift = checkpoint["ln_vision.weight"], checkpoint["ln_vision.bias"]
    return F.layer_norm(tokens, scale.shape, scale, shift, eps=1e-5)


def lavis_qformer(config):
    return QFormer(
        config["enc_width"],
        queries=config["queries"],
        width=config["width"],
        depth=config["layers"],
        heads=config["heads"],
        ffn=config["ffn"],
        cross_every=config["cross_every"],
    ).eval()


@pytest.fixture
def lavis(golden, params):
    case, tensors = golden("qformer_lavis")
    checkpoint = params(tensors)
    return case, tensors, checkpoint, ln_vision(checkpoint, tensors["in/image_feats_raw"])


def test_qformer(lavis):
    case, tensors, checkpoint, image = lavis
    qformer = lavis_qformer(case["config"])
    report = load(qformer, checkpoint)
    assert report.format == "lavis"
    assert report.loaded + len(report.ignored) == len(checkpoint)
    close(qformer(image), tensors["out/query_output"])


def test_qformer_without_text_branch(lavis):
    case, tensors, checkpoint, image = lavis
    qformer = lavis_qformer(case["config"])
    stripped = {name: checkpoint[name] for name in ["query_tokens", *case["stripped_qformer_keys"]]}
    assert load(qformer, stripped).ignored == {}
    close(qformer(image), tensors["out/stripped_query_output"])


def qformer_knobs(config):
    return {
        "queries": config["queries"],
        "width": config["q_width"],
        "depth": config["q_layers"],
        "heads": config["q_heads"],
        "ffn": config["q_ffn"],
    }


def test_blip2_hf(golden, params):
    case, tensors = golden("blip2_hf")
    config = case["config"]
    qformer = QFormer(config["v_width"], config["width"], **qformer_knobs(config)).eval()
    assert load(qformer, params(tensors)).format == "blip2_hf"
    close(qformer(tensors["out/vision_last_hidden"]), tensors["out/language_inputs"])
    chain = Sequential(
        config["v_width"], config["width"], parts=[partial(QFormer, **qformer_knobs(config)), Linear]
    ).eval()
    load(chain, params(tensors))
    close(chain.parts[0](tensors["out/vision_last_hidden"]), tensors["out/query_output"])
    close(chain(tensors["out/vision_last_hidden"]), tensors["out/language_inputs"])


def test_blip2_lavis(golden, params):
    case, tensors = golden("blip2_opt_lavis")
    config, checkpoint = case["config"], params(tensors)
    chain = Sequential(
        config["v_width"], config["width"], parts=[partial(QFormer, **qformer_knobs(config)), Linear]
    ).eval()
    load(chain, checkpoint)
    visual = chain(ln_vision(checkpoint, tensors["in/image_feats_raw"]))
    close(visual, tensors["out/no_prompt_embeds"][:, : config["queries"]])


def test_minigpt_v2(golden, params):
    case, tensors = golden("minigptv2")
    config, checkpoint = case["config"], params(tensors)
    chain = Sequential(config["v_width"], config["width"], parts=[partial(Merge, rows=1, cols=4), Linear])
    load(chain, {name: value for name, value in checkpoint.items() if name.startswith("llama_proj.")})
    patches = ln_vision(checkpoint, tensors["in/image_feats_raw"])[:, 1:]
    # Strips of four patches follow each other: how many of them a row of the image has changes nothing.
    close(chain(patches, Layout(config["n_tok"] // 4, 4)), tensors["out/visual_tokens"])


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_vila_downsample(golden, params, parity):
    case, tensors = golden("vila_downsample")
    config, image = case["config"], tensors[f"in/{parity}"]
    side = config[parity]
    merge = partial(Merge, order="col")
    chain = Sequential(config["v_width"], config["width"], parts=[merge, partial(MLP, norm=True)])
    assert load(chain, params(tensors, "param/mm_projector/")).format == "vila_downsample"
    close(chain.parts[0](image, Layout(side, side)), tensors[f"out/{parity}_merged"])
    close(Merge(config["v_width"])(image, Layout(side, side)), tensors[f"out/{parity}_merged_main"])
    close(chain(image, Layout(side, side)), tensors[f"out/{parity}_projected"])


def test_llava_hf(golden, params):
    case, tensors = golden("llava_hf")
    mlp = MLP(case["config"]["v_width"], case["config"]["width"])
    assert load(mlp, params(tensors)).format == "llava_hf"
    close(mlp(tensors["out/penultimate_patches"]), tensors["out/image_features"])


def test_prismatic(golden, params):
    case, tensors = golden("prismatic")
    linear = Linear(case["config"]["d_width"] + case["config"]["s_width"], case["config"]["width"])
    assert load(linear, params(tensors, "param/alone_linear.")).format == "prismatic"
    close(linear(tensors["out/fused_patches"]), tensors["out/linear_projected"])
    mlp = MLP(linear.proj.in_features, linear.width)
    assert load(mlp, params(tensors, "param/alone_mlp.")).format == "prismatic"
    close(mlp(tensors["out/fused_patches"]), tensors["out/mlp_projected"])
