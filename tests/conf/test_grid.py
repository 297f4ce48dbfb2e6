"""Parts of every kind together, at tiny size: what makes sense trains a step and replies, the rest is refused."""

from copy import deepcopy
from functools import cache
from itertools import cycle, product

import pytest
import torch

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.config.validate import check, faults
from mmrnn.data import Collator
from mmrnn.inference.generate import generate
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM
from mmrnn.prompts import Template
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.training import LanguageModel
from mmrnn.types import Batch, Sample, Sequence, Turn


def cards(group: str) -> list[str]:
    """Options of a group, the miniature in place of an option that has one."""
    names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
    return [name for name in names if f"{name}_tiny" not in names]


# One for each layout of tokens: a grid, a class token before and after it, row ends, raw patches.
LAYOUTS = ("clip_tiny", "eva_tiny", "clip_tiny_v6", "eve_tiny", "fuyu_tiny")
# States, sounds and clips have tests of their own; vit_tiny is a size of clip_tiny.
OTHER_ENCODERS = {"state_tiny", "vit_tiny", "whisper_tiny", "clip_tiny_frames"}
ENCODERS = [name for name in cards("encoder") if "_tiny" in name and name not in {*LAYOUTS, *OTHER_ENCODERS}]
# Like others, or for one width alone; those of the study are chains of the others behind a norm.
OTHER_CONNECTORS = {
    "linear_nobias",
    "mlp_prismatic",
    "identity",
    "llava16",
    *(one for one in cards("connector") if one.startswith("vtc")),  # of one language model
    "patch_merger_rms",
    "modrwkv_auto",
    "modrwkv_clip",
    "modrwkv_merge",
    "modrwkv_speech",
    *(one for one in cards("connector") if "study" in one),
}
FOR_CROSS_ATTENTION = ("flamingo_tiny",)
CONNECTORS = [name for name in cards("connector") if name not in {*OTHER_CONNECTORS, *FOR_CROSS_ATTENTION}]
OTHER_BACKBONES = {"rwkv7_hybrid_tiny", "infinitevl_tiny"}  # hybrid_tiny with layers of RWKV-7, with a window
BACKBONES = [name for name in cards("backbone") if name.endswith("_tiny") and name not in OTHER_BACKBONES]
RECURRENT = [name for name in BACKBONES if name.startswith(("rwkv", "mamba", "delta"))]
HYBRID = ("hybrid_tiny",)
SCANS = ["forward", *(name for name in cards("scan") if name != "forward")]
BESIDE = ("gated_cross_attention_tiny", "gated_cross_attention_all_tiny")
"""Hooks that attend to tokens outside the text."""
HOOKS = [None, *cards("hook")]
POSITIONS, MASKS = cards("position"), cards("mask")
BASE = plain(compose("model=llava15_tiny"))
OWN = {"glm_tiny": {"position": "glm_2d_tiny", "mask": "glm_tiny"}}
"""Options that a backbone needs."""


@cache
def card(group: str, name: str):
    content = plain(compose(config=f"{group}/{name}"))[group]
    if name == "pool":
        content["parts"][0]["grid"] = 2  # the tiny towers have 4 x 4 patches
    if name == "perceiver":
        content |= {"latents": 4, "depth": 1, "heads": 2, "head_size": 8}
    return content


def tree(**chosen) -> dict:
    """The configuration that chooses these cards, and for the rest what the backbone cannot do without."""
    chosen = OWN.get(chosen.get("backbone"), {}) | chosen
    return deepcopy({**BASE, **{group: name and card(group, name) for group, name in chosen.items()}})


def made(**chosen) -> VLM:
    torch.manual_seed(0)
    return build(tree(**chosen))


class Slope:
    """An image that is wider than high."""

    key = "slope"

    def open(self):
        from PIL import Image

        return Image.linear_gradient("L").resize((30, 20)).convert("RGB")


PROMPT = Template(
    system="", first="{text}:", image_position="inline", image_separator="", reply="{text}\n\n", stops=("\n\n",)
)
ROWS = [("<image>what?", "a cat", 1), ("and <image> or <image>", "two", 2), ("no image", "text", 0)]
SAMPLES = [Sample((Turn("user", asked), Turn("assistant", text)), (Slope(),) * count) for asked, text, count in ROWS]


def trains(model: VLM) -> None:
    """Rows with one image, with two and with none."""
    loss = LanguageModel()(model, model(Collator(DemoTokenizer(), PROMPT, dict(model.modalities))(SAMPLES)))
    loss.backward()
    assert loss.isfinite()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


def replies(model: VLM) -> None:
    """Each row says what it says alone: nothing of its neighbours, or of the padding, enters it."""
    model.eval()
    asked = [Sample((*sample.turns[:1], Turn("assistant", "")), sample.images) for sample in SAMPLES]
    collate = Collator(DemoTokenizer(), PROMPT, dict(model.modalities), for_generation=True)
    together = generate(model, collate(asked), max_new_tokens=3)
    for one, reply in zip(asked, together, strict=True):
        assert generate(model, collate([one]), max_new_tokens=3) == [reply]


REFUSED = {
    (
        "clip_tiny_v6",
        "merge_2x2",
    ): "Merge cannot keep the 1 tokens outside the grid",
    ("eva_tiny", "merge_2x2"): "Merge cannot keep the 1 tokens outside the grid",
    **{
        (encoder, connector): "FramePool cannot keep tokens outside the grid"
        for encoder in ("clip_tiny_v6", "eva_tiny", "eve_tiny")
        for connector in ("frame_pool", "frame_pool_merge")
    },
    ("eve_tiny", "merge_2x2"): "Merge cannot join patches across 1 row separators",
    ("eve_tiny", "pool"): "Pool cannot join patches across 1 row separators",
    ("eve_tiny", "gated_v7_pooled_tiny"): "AdaptivePool cannot join patches across 1 row separators",
    ("eve_tiny", "resampler_tiny"): "Resampler cannot join patches across 1 row separators",
    ("eve_tiny", "fuyu"): "RowSeparators cannot join patches across 1 row separators",
    ("eve_tiny", "mlp_maps"): "SinCosPositions cannot join patches across 1 row separators",
    ("fuyu_tiny", "merge_strip4"): "4 x 6 patches do not divide into blocks of 1 x 4",
}
REFUSED |= {
    (encoder, other): REFUSED[encoder, "merge_2x2"]
    for encoder in ("clip_tiny_v6", "eva_tiny", "eve_tiny")
    for other in ("merge_strip4", "vila_downsample", "patch_merger")
}


@pytest.mark.parametrize(("encoder", "connector"), list(product(LAYOUTS, CONNECTORS)))
def test_every_layout_with_every_connector(encoder, connector):
    """Around one backbone after the other; a connector that cannot read such tokens says so before anything is read."""
    backbone = BACKBONES[(LAYOUTS.index(encoder) + CONNECTORS.index(connector)) % len(BACKBONES)]
    if reason := REFUSED.get((encoder, connector)):
        with pytest.raises(ConfigError, match=f"connector: {reason}"):
            made(encoder=encoder, connector=connector, backbone=backbone)
        return
    model = made(encoder=encoder, connector=connector, backbone=backbone)
    trains(model)
    if encoder in ("clip_tiny_v6", "eve_tiny"):
        replies(model)


TRIED = list(zip(ENCODERS, cycle(("mlp", "qformer_tiny", "fuyu")), cycle(BACKBONES), strict=False))


@pytest.mark.parametrize(("encoder", "connector", "backbone"), TRIED)
def test_every_encoder(encoder, connector, backbone):
    trains(made(encoder=encoder, connector=connector, backbone=backbone))


@pytest.mark.parametrize(("connector", "scan"), list(product(("fuyu", "cogvlm_tiny"), SCANS[1:])))
def test_every_scan_around_other_tokens(connector, scan):
    """With row ends and with tokens around the image, which stay where they are; beside a hook."""
    with_mlp = [name for name in RECURRENT if name != "mamba_tiny"]
    backbone = with_mlp[SCANS.index(scan) % len(with_mlp)]
    model = made(encoder="patch_tiny", connector=connector, backbone=backbone, scan=scan, hook="mlp_expert")
    trains(model)
    replies(model)


def sensible(backbone, connector, hook, scan, position, mask) -> bool:
    """Combinations that have a meaning, in other words than those of `check`."""
    beside = connector == "flamingo_tiny"
    if beside != (hook in BESIDE):
        return False  # tokens beside the text are read by cross-attention only, which reads nothing else
    if backbone == "mamba_tiny" and hook == "mlp_expert":
        return False  # it has no MLP
    if hook == "visual_channel_mix" and not backbone.startswith("rwkv"):
        return False  # it has a token shift of its own
    if backbone in RECURRENT:
        return hook != "visual_expert" and (position, mask) == ("sequential", "causal")
    if backbone in HYBRID:
        return hook != "visual_expert" and position != "glm_2d_tiny"
    if scan != "forward":
        return False  # attention has no order of reading
    if backbone == "flant5_tiny":
        return hook is None and (position, mask) == ("sequential", "causal")  # its encoder sees all by itself
    if backbone == "glm_tiny":
        # Its blocks can be followed, not changed inside; it counts with two numbers.
        return hook not in ("mlp_expert", "visual_expert") and position == "glm_2d_tiny"
    if position in ("glm_2d_tiny", "mrope"):
        return False
    return backbone == "transformer_tiny" or hook is None  # those of transformers let nothing be added


def kind(backbone, connector="linear", hook=None, scan="forward", position=None, mask=None) -> tuple:
    """One choice of everything; positions and masks that are not chosen are the backbone's own."""
    own = OWN.get(backbone, {"position": "sequential", "mask": "causal"})
    return backbone, connector, hook, scan, position or own["position"], mask or own["mask"]


KINDS = [
    *(kind(backbone, *more) for backbone, *more in product(BACKBONES, ("linear", "flamingo_tiny"), HOOKS)),
    *(kind(backbone, position=one, mask=other) for backbone, one, other in product(BACKBONES, POSITIONS, MASKS)),
    *(kind(backbone, scan=scan) for backbone, scan in product(BACKBONES, SCANS)),
]
KINDS = list(dict.fromkeys(KINDS))


def named(one: tuple) -> dict:
    return dict(zip(("backbone", "connector", "hook", "scan", "position", "mask"), one, strict=True))


SENSIBLE = [one for one in KINDS if sensible(*one)]


def test_what_makes_no_sense_is_refused_with_a_reason():
    """`check` lets pass what has a meaning, and says of everything else which group is at fault."""
    for one in KINDS:
        refused = faults(tree(encoder="patch_tiny", **named(one)))
        assert sensible(*one) == (not refused), (one, refused)
        for fault in refused:
            group, _, reason = fault.partition(": ")
            assert group in named(one), one
            assert len(reason.split()) > 6, reason
    with pytest.raises(ConfigError, match="hook: VisualExpert changes the attention"):
        check(tree(backbone="rwkv6_tiny", hook="visual_expert"))


@pytest.mark.parametrize("one", SENSIBLE, ids=lambda one: "-".join(map(str, one)))
def test_what_makes_sense_trains_and_replies(one):
    """Hooks with every backbone, positions and masks; scans are tried by themselves."""
    chosen = named(one)
    if chosen["scan"] != "forward":
        chosen["encoder"] = "clip_tiny_v6"
    model = made(**{"encoder": "patch_tiny", **chosen})
    trains(model)
    if (chosen["position"], chosen["mask"]) == kind(chosen["backbone"])[-2:]:
        replies(model)


def test_rows_of_different_lengths_with_positions_in_three_axes():
    """Positions behind an image continue after its longer side, in each row by itself, behind padding too."""
    model = made(encoder="qwen35_tiny", connector="patch_merger", backbone="hybrid_tiny", position="mrope")
    trains(model)
    replies(model)


def test_several_kinds_of_observations():
    """Images and states in one text, in any order and number (PaLM-E)."""
    model = made(encoder="patch_tiny", connector="linear", backbone="rwkv6_tiny", modalities="state_tiny")
    with_states = Sample(
        (Turn("user", "<state> <image> <state>?"), Turn("assistant", "done")),
        (Slope(),),
        observations={"state": (torch.randn(2, 4), torch.randn(2, 4))},
    )
    plain_text = Sample((Turn("user", "well?"), Turn("assistant", "yes")))
    collate = Collator(DemoTokenizer(), PROMPT, dict(model.modalities))
    batch = collate([plain_text, with_states])
    assert [(block.modality, block.layout.tokens) for block in batch.sequence.image_spans] == [
        ("state", 2),
        ("image", 16),
        ("state", 2),
    ]
    assert batch.images["state"].shape == (2, 2, 4)
    loss = LanguageModel()(model, model(batch))
    loss.backward()
    assert loss.isfinite()
    for number in (1, 3):
        given = {"state": (torch.randn(2, 4),) * number}
        assert collate([Sample(with_states.turns, with_states.images, "", str(number), given)]) is None
        assert f"has 2 tags <state> for {number} observations" in str(collate.dropped[-1])


def test_text_alone_leaves_no_trace_of_an_image():
    """No dummy image enters an RNN: the state after a text is that of the bare backbone."""
    model = made(encoder="patch_tiny", connector="linear", backbone="rwkv6_tiny").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        output = model(Batch(Sequence(ids)))
        _, state = model.backbone(Sequence(ids))
    assert torch.equal(output.state.layers[1]["wkv"], state.layers[1]["wkv"])


def test_every_exception_of_the_grid_is_a_card():
    named = {
        "encoder": {*LAYOUTS, *OTHER_ENCODERS},
        "connector": {*OTHER_CONNECTORS, *FOR_CROSS_ATTENTION, *(connector for _, connector in REFUSED)},
        "backbone": {*RECURRENT, *OWN, *HYBRID, *OTHER_BACKBONES},
        "hook": {*BESIDE},
    }
    for group, names in named.items():
        assert names <= set(cards(group)), group
