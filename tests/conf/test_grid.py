"""Every encoder, connector, backbone, scan and hook that make sense together, at tiny size: each trains and replies."""

from itertools import product

import pytest
import torch

from mmrnn.backbones import GLM, RWKV5, RWKV6, GatedCrossAttention, MLPExpert, TinyAttention, Transformer, VisualExpert
from mmrnn.backbones import scan as scans
from mmrnn.backbones.masks import prefix
from mmrnn.backbones.positions import glm_2d, shared_image
from mmrnn.config import compose, conf_dir, make, plain
from mmrnn.data import Collator, Sample, Turn
from mmrnn.generate import generate
from mmrnn.prompts import Small, Template
from mmrnn.training import LanguageModel
from mmrnn.types import Batch, Sequence
from mmrnn.vlm import VLM, Sense

ENCODERS = ("clip_tiny", "clip_tiny_v6", "eva_tiny", "eve_tiny", "fuyu_tiny", "patch_tiny", "tri_tiny")
CONNECTORS = (
    "cogvlm_tiny",
    "flamingo_tiny",
    "fuyu",
    "gated",
    "linear",
    "merge_2x2",
    "minigpt4_tiny",
    "mlp",
    "qformer_tiny",
    "resampler_tiny",
    "visualrwkv",
)
SMALL = {"vocab": 1024, "width": 16, "depth": 2}
BACKBONES = {
    "glm": lambda: GLM(heads=2, ffn=24, **SMALL),
    "rwkv5": lambda: RWKV5(head_size=8, **SMALL),
    "rwkv6": lambda: RWKV6(head_size=8, **SMALL),
    "transformer": lambda: Transformer(heads=2, ffn=24, **SMALL),
}
HOOKS = {
    "none": lambda backbone, media: None,  # noqa: ARG005
    "expert": lambda backbone, media: (MLPExpert if backbone.recurrent else VisualExpert)(backbone, media),
    "attention": lambda backbone, media: TinyAttention(backbone, media, heads=2),
}
CARDS = {
    (group, name): plain(compose(config=f"{group}/{name}"))[group]
    for group, names in (("encoder", ENCODERS), ("connector", CONNECTORS))
    for name in names
}


class Slope:
    """A picture that is wider than high."""

    key = "slope"

    def open(self):
        from PIL import Image

        return Image.linear_gradient("L").resize((30, 20)).convert("RGB")


def assemble(encoder, connector, backbone, hook="none", **more) -> VLM | None:
    """The model, or None where a connector cannot read what this encoder emits."""
    torch.manual_seed(0)
    made, language = make(CARDS["encoder", encoder]), BACKBONES[backbone]()
    sense = Sense(made, make(CARDS["connector", connector], made.width, language.width))
    try:
        layout = sense.layout(*sense.image.size)
    except ValueError:
        return None
    if layout.beside:
        added = (
            GatedCrossAttention(language, sense.connector.width, every=1, heads=2, head_size=4)
            if hook == "none"
            else None
        )
        if added is None or "layer" not in language.hooks:
            return None
    else:
        added = HOOKS[hook](language, sense.connector.width)
    if backbone == "glm":
        more |= {"position": lambda sequence, start: glm_2d(sequence, start, sop=3)}
    return VLM(language, {"image": sense}, hook=added, **more)


def trains_and_replies(model: VLM) -> None:
    prompt = Template(system="", first="{text}:", image="inline", gap="", reply="{text}\n\n", stops=("\n\n",))
    rows = [("<image>what?", "a cat", 1), ("and <image> or <image>", "two", 2), ("no picture", "text", 0)]
    samples = [
        Sample((Turn("user", question), Turn("assistant", answer)), (Slope(),) * count)
        for question, answer, count in rows
    ]
    batch = Collator(Small(), prompt, dict(model.senses))(samples)
    loss = LanguageModel()(model, model(batch))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval()
    asked = [Sample((*sample.turns[:1], Turn("assistant", "")), sample.pictures) for sample in samples]
    together = generate(model, Collator(Small(), prompt, dict(model.senses), left=True)(asked), limit=3)
    # Each row says what it says alone: nothing of its neighbours, or of the padding, enters it.
    for one, reply in zip(asked, together, strict=True):
        assert generate(model, Collator(Small(), prompt, dict(model.senses), left=True)([one]), limit=3) == [reply]


@pytest.mark.parametrize(("encoder", "connector"), product(ENCODERS, CONNECTORS))
def test_every_encoder_with_every_connector(encoder, connector):
    backbone = ("rwkv6", "transformer", "rwkv5", "glm")[(ENCODERS.index(encoder) + CONNECTORS.index(connector)) % 4]
    model = assemble(encoder, connector, backbone)
    if model is None:
        pytest.skip("this connector cannot read this encoder's tokens, and says so")
    trains_and_replies(model)


@pytest.mark.parametrize(("backbone", "hook"), product(BACKBONES, HOOKS))
def test_every_backbone_with_every_hook(backbone, hook):
    if backbone == "glm" and hook == "expert":
        pytest.skip("GLM lets no attention be changed")
    trains_and_replies(assemble("clip_tiny", "mlp", backbone, hook))


@pytest.mark.parametrize(
    ("connector", "scan"),
    product(("linear", "fuyu", "cogvlm_tiny"), ("bidirectional", "multidirectional", "spiral", "snake", "zigzag")),
)
def test_every_scan(connector, scan):
    trains_and_replies(assemble("patch_tiny", connector, "rwkv6", "expert", scan=getattr(scans, scan)))


@pytest.mark.parametrize("position", [None, shared_image])
def test_positions_and_masks_of_transformers(position):
    trains_and_replies(assemble("clip_tiny", "mlp", "transformer", position=position, mask=prefix))


def test_several_kinds_of_observations():
    """Pictures and states in one text, in any order and number (PaLM-E)."""
    from mmrnn.connectors import Linear
    from mmrnn.encoders import StateEncoder

    model = assemble("patch_tiny", "linear", "rwkv6")
    model.senses["state"] = Sense(StateEncoder(objects=2, features=4, width=8), Linear(8, 16))
    prompt = Template(system="", first="{text}:", image="inline", gap="")
    told = Sample(
        (Turn("user", "<state> <image> <state>?"), Turn("assistant", "done")),
        (Slope(),),
        observations={"state": (torch.randn(2, 4), torch.randn(2, 4))},
    )
    plain_text = Sample((Turn("user", "well?"), Turn("assistant", "yes")))
    batch = Collator(Small(), prompt, dict(model.senses))([plain_text, told])
    assert [(block.sense, block.layout.tokens) for block in batch.sequence.blocks] == [
        ("state", 2),
        ("image", 16),
        ("state", 2),
    ]
    assert batch.images["state"].shape == (2, 2, 4)
    loss = LanguageModel()(model, model(batch))
    loss.backward()
    assert loss.isfinite()
    with pytest.raises(ValueError, match="more tags <state> than observations"):
        Collator(Small(), prompt, dict(model.senses))(
            [Sample(told.turns, told.pictures, observations={"state": (torch.randn(2, 4),)})]
        )


def test_text_alone_leaves_no_trace_of_a_picture():
    """No dummy picture enters an RNN: the state after a text is that of the bare backbone."""
    model = assemble("patch_tiny", "linear", "rwkv6").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        output = model(Batch(Sequence(ids)))
        _, state = model.backbone(Sequence(ids))
    assert torch.equal(output.state.layers[1]["wkv"], state.layers[1]["wkv"])


def test_every_card_that_is_tiny_is_in_the_grid():
    listed = {path.stem for path in (conf_dir() / "connector").glob("*_tiny.yaml")}
    assert listed - {"qformer_text_tiny"} <= set(CONNECTORS)
