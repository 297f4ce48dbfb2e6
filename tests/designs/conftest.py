"""Parts in the sizes of a golden case, and its ids in our form."""

from collections.abc import Iterable
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmrnn.backbones import GatedAttention, GatedDeltaNet, Hybrid, Transformer
from mmrnn.encoders import TimmViT
from mmrnn.types import IGNORE, SLOT, ImageSpan, Layout, Sequence


@pytest.fixture(scope="session")
def llama():
    """`llama(config)`: a Llama of these sizes."""

    def make(config: dict) -> Transformer:
        knobs = {name: config[name] for name in ("vocab", "width", "heads", "ffn", "eps")}
        names = {"kv_heads": "kv_heads", "theta": "rope_theta"}
        more = {names[name]: config[name] for name in names if name in config}
        return Transformer(depth=config["layers"], **knobs, **more)

    return make


@pytest.fixture(scope="session")
def vit():
    """`vit(name, config, **knobs)`: a tower of that name of timm with the sizes that a case has for it."""

    def make(name: str, config: dict, **knobs) -> TimmViT:
        sizes = {"patch_size": config["patch"], "embed_dim": config["v_width"], "num_heads": config["v_heads"]}
        ratio = config["v_ffn"] / config["v_width"]
        knobs = {"size": config["img"], "depth": config["v_layers"], "layer": -1, **knobs}
        return TimmViT(name=name, arch={**sizes, "mlp_ratio": ratio, **knobs.pop("arch", {})}, **knobs).eval()

    return make


@pytest.fixture(scope="session")
def filled():
    """`filled(ids, mark, layout)`: ids in which every slot of an image has a mark, as a sequence."""

    def make(ids: torch.Tensor, mark: int, layout: Layout, **more) -> Sequence:
        places = (ids == mark).nonzero().tolist()[:: layout.tokens]
        blocks = tuple(ImageSpan(row, at, layout) for row, at in places)
        return Sequence(ids.masked_fill(ids == mark, SLOT), blocks, **more)

    return make


@pytest.fixture(scope="session")
def spread():
    """`spread(ids, real, labels, layouts)`: ids in which every image is one -200, as a sequence padded with 0."""

    def make(ids: torch.Tensor, real: torch.Tensor, labels: torch.Tensor, layouts: Iterable[Layout]) -> Sequence:
        layouts, rows, targets, blocks = iter(layouts), [], [], []
        for row, known in enumerate(real.bool()):
            written, learnt = [], []
            for token, label in zip(ids[row, known].tolist(), labels[row, known].tolist(), strict=True):
                if token == SLOT:
                    blocks.append(ImageSpan(row, len(written), next(layouts)))
                count = blocks[-1].layout.tokens if token == SLOT else 1
                written += [token] * count
                learnt += [IGNORE if token == SLOT else label] * count
            rows.append(torch.tensor(written))
            targets.append(torch.tensor(learnt))
        labels = pad_sequence(targets, batch_first=True, padding_value=IGNORE)
        return Sequence(pad_sequence(rows, batch_first=True), tuple(blocks), labels=labels)

    return make


@pytest.fixture(scope="session")
def loss():
    """`loss(logits, labels)`: the mean over the targets, each predicted from the position before it."""
    return lambda logits, labels: F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.fixture(scope="session")
def qwen35():
    """`qwen35(config)`: a language model of Qwen3.5 of these sizes."""

    def make(config: dict) -> Hybrid:
        delta = {"heads": config["v_heads"], "key_heads": config["k_heads"], "key_size": config["k_dim"]}
        attention = {"heads": config["heads"], "kv_heads": config["kv_heads"], "head_size": config["head_dim"]}
        attention |= {
            "rope_theta": config["theta"],
            "rotary": config["partial"],
            "mrope_section": tuple(config["mrope"]),
        }
        kinds = {"linear_attention": "delta", "full_attention": "attention"}
        return Hybrid(
            pattern=[kinds[kind] for kind in config["layer_types"]],
            mixers={"delta": partial(GatedDeltaNet, **delta), "attention": partial(GatedAttention, **attention)},
            vocab=config["vocab"],
            width=config["width"],
            depth=config["layers"],
            ffn=config["ffn"],
            tie_embeddings=config["tied"],
        )

    return make
