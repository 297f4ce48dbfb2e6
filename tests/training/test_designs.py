"""Objectives and adapters of single designs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmrnn.backbones import RWKV6, NoBackbone, Transformer
from mmrnn.connectors import MLP, QFormer, TextQFormer
from mmrnn.encoders import PatchEmbed, TimmViT
from mmrnn.model.lora import LoRA
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import BLIP2Pretraining, LanguageModel, PatchAlignment, WeightedSum
from mmrnn.training.objectives.blip2 import negatives, texts
from mmrnn.training.step import forward_for
from mmrnn.types import IGNORE, SLOT, Batch, Encoder, ImageSpan, ImageSpec, Layout, Objective, Sequence
from mmrnn.weights import load


def stage1_model(config, **knobs):
    made = TextQFormer(config["enc_width"], **knobs)
    encoder = PatchEmbed(patch=4, width=config["enc_width"], size=8)
    return VLM(NoBackbone(vocab=config["vocab"]), {"image": Modality(encoder, made)})


@pytest.mark.golden
def test_blip2_stage1(golden, params):
    case, tensors = golden("qformer_lavis")
    config, weights = case["config"], params(tensors)
    knobs = {"depth": config["layers"], "positions": config["max_pos"]}
    knobs |= {name: config[name] for name in ("queries", "width", "heads", "ffn", "cross_every", "vocab")}
    model = stage1_model(config, **knobs).eval()
    connector = model.modalities["image"].connector
    load(connector, weights)
    objective = BLIP2Pretraining(model, width=config["embed"], begin=config["bos_id"])
    assert load(objective, weights).format == "lavis"
    norm = weights["ln_vision.weight"], weights["ln_vision.bias"]
    image = F.layer_norm(tensors["in/image_feats_raw"], norm[0].shape, *norm)
    ids, known = tensors["in/text_ids"], tensors["in/text_mask"].bool()

    queries, words = connector.forward_image(image), connector.forward_text(ids, known)
    loss, (to_text, to_image) = objective.contrast(queries, words)
    torch.testing.assert_close(to_text, tensors["out/sim_i2t"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(to_image, tensors["out/sim_t2i"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(loss, tensors["out/loss_itc"])
    same = tensors["in/image_ids"][:, None] == tensors["in/image_ids"]
    torch.testing.assert_close(objective.contrast(queries, words, same)[0], tensors["out/loss_itc_image_ids"])
    wrong, other = tensors["in/neg_image_idx"], tensors["in/neg_text_idx"]
    loss = objective.matching(connector, image, ids, known, image[wrong], ids[other], known[other])
    torch.testing.assert_close(loss, tensors["out/loss_itm"], atol=1e-5, rtol=1e-4)
    score = objective.belongs(connector, image, ids, known)[:, 1]
    torch.testing.assert_close(score, tensors["out/itm_score"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(objective.generation(connector, image, ids, known), tensors["out/loss_itg"])


def test_parameters_of_the_first_stage():
    with torch.device("meta"):
        connector = TextQFormer(1408)
        model = VLM(NoBackbone(), {"image": Modality(PatchEmbed(), connector)})
        objective = BLIP2Pretraining(model)
    count = sum(parameter.numel() for part in (connector, objective) for parameter in part.parameters())
    assert count == 186_702_654


def stage1_batch(model):
    layout = model.modalities["image"].layout(8, 8)
    ids = torch.tensor([[5, *[SLOT] * layout.tokens, 7, 8, 9], [5, *[SLOT] * layout.tokens, 6, 0, 0]])
    labels = ids.clone()
    labels[ids < 1] = IGNORE
    labels[:, 0] = IGNORE
    blocks = tuple(ImageSpan(row, 1, layout) for row in range(2))
    return Batch(Sequence(ids, blocks, labels=labels), {"image": torch.randn(2, 3, 8, 8)})


def test_the_first_stage_needs_no_language_model():
    knobs = {"queries": 3, "width": 16, "depth": 2, "heads": 2, "ffn": 16, "vocab": 20, "dropout": 0.0}
    model = stage1_model({"enc_width": 12, "vocab": 20}, **knobs)
    objective = BLIP2Pretraining(model, width=8, begin=1)
    batch = stage1_batch(model)
    ids, known = texts(batch, [0, 1])
    assert ids.tolist() == [[5, 7, 8, 9], [5, 6, 0, 0]]
    assert known.sum(1).tolist() == [4, 2]
    parameters = [*objective.parameters(), *model.modalities["image"].connector.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    losses = []
    for _ in range(40):
        loss = objective(model, forward_for(model, objective, batch))
        loss.backward()
        optimizer.step(), optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert negatives(torch.zeros(3, 3), 0).ne(torch.arange(3)).all()
    with pytest.raises(ValueError, match="take batches of several"):
        negatives(torch.zeros(1, 1), 0)


class Pixels(nn.Module, Encoder):
    """A teacher that says what it sees: the pixels of its patches."""

    width = 16 * 3

    def __init__(self, size=16, patch=4):
        super().__init__()
        self.image, self.patch = ImageSpec((size, size)), patch
        self.scale = nn.Parameter(torch.ones(()))

    def layout(self, height, width):
        return Layout(height // self.patch, width // self.patch)

    def forward(self, images):
        return F.unfold(images, self.patch, stride=self.patch).mT * self.scale


class Nothing(Objective):
    def __call__(self, model, output):
        return torch.zeros(())


@pytest.mark.golden
def test_eve(golden, params):
    case, tensors = golden("eve_tower")
    config = case["config"]
    teacher = TimmViT(
        name="vit_large_patch14_clip_quickgelu_336",
        size=config["img_clip"],
        depth=config["t_layers"],
        arch={
            "patch_size": config["ps_clip"],
            "embed_dim": config["t_width"],
            "num_heads": config["t_heads"],
            "mlp_ratio": config["t_ffn"] / config["t_width"],
        },
    )
    knobs = {name: config[name] for name in ("vocab", "width", "heads", "ffn")}
    backbone = Transformer(depth=config["layers"], **knobs)
    objective = PatchAlignment(VLM(backbone, {}), teacher=teacher)
    assert load(objective, params(tensors)).format == "eve"
    features = teacher(tensors["in/teacher_images"][:, :3])
    torch.testing.assert_close(features, tensors["in/teacher_features"], atol=1e-4, rtol=1e-4)
    levels = tuple(tensors["in/hidden_states"])
    side = config["img_clip"] // config["ps_clip"]
    for number in range(len(config["pics"])):
        rows, cols = tensors["out/grid_hw"][number].tolist()
        layout = Layout(rows, cols, prefix=1, separators=1)
        ids, start = tensors["in/input_ids"][number], 0
        start = (ids == -200).int().argmax().item()
        valid = tensors["in/teacher_mask"][number].bool()
        goal = tensors["in/teacher_features"][number].view(side, side, -1)[valid.any(1)][:, valid.any(0)]
        student = objective.student(levels, ImageSpan(number, start, layout), *goal.shape[:2])
        torch.testing.assert_close(
            objective.loss(student, goal), tensors["out/pal_per_image"][number], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(("rows", "cols", "window"), [(24, 24, 1), (48, 48, 2), (48, 20, 2)])
def test_the_teachers_grid(rows, cols, window):
    backbone = Transformer(depth=2, vocab=9, width=8, heads=2, ffn=8)
    teacher = Pixels()
    objective = PatchAlignment(VLM(backbone, {}), teacher=teacher, every=1)
    levels = tuple(torch.randn(1, rows * cols, 8) for _ in range(3))
    student = objective.student(levels, ImageSpan(0, 0, Layout(rows, cols)), rows // window, cols // window)
    assert student.shape == (rows // window, cols // window, teacher.width)
    assert abs(objective.loss(student, student).item()) < 1e-6


def test_eve_with_language():
    """Levels come from the model, teacher's patches from the same images, text alone costs nothing."""
    torch.manual_seed(0)
    modality = Modality(PatchEmbed(patch=4, width=8, size=16, positions="none"), MLP(8, 12))
    model = VLM(RWKV6(vocab=20, width=12, depth=2, head_size=4), {"image": modality})
    objective = WeightedSum(model, parts=[LanguageModel(), Nothing()], weights=(1.0, 0.5))
    assert not objective.needs_hidden_states
    aligned = PatchAlignment(model, teacher=Pixels(), every=2)
    layout = Layout(4, 4)
    ids = torch.tensor([[1, *[SLOT] * 16, 2, 3]])
    batch = Batch(
        Sequence(ids, (ImageSpan(0, 1, layout),), labels=ids.clamp(min=IGNORE)), {"image": torch.randn(1, 3, 16, 16)}
    )
    output = forward_for(model, aligned, batch)
    assert len(output.hidden_states) == 3
    torch.testing.assert_close(output.hidden_states[-1], model(batch).hidden)
    loss = aligned(model, output)
    loss.backward()
    assert 0 < loss < 2
    assert modality.encoder.proj.weight.grad.abs().sum() > 0
    assert aligned.teacher.scale.grad is None
    wide = Batch(batch.sequence, {"image": (torch.randn(3, 16, 8),)})
    assert [goal.shape[:2] for goal in aligned.goals(wide)] == [(4, 2)]
    text = Batch(Sequence(torch.tensor([[1, 2]])))
    assert aligned(model, forward_for(model, aligned, text)) == 0


def test_an_objective_that_reads_text_wants_a_connector_that_does():
    model = VLM(NoBackbone(), {"image": Modality(PatchEmbed(), QFormer(256, width=12, depth=1, heads=1, ffn=4))})
    with pytest.raises(ValueError, match="QFormer reads no text; choose connector=qformer_text"):
        BLIP2Pretraining(model)


@pytest.mark.parametrize("kind", ["transformer", "rwkv"])
def test_lora_begins_at_nothing(kind):
    pytest.importorskip("peft")
    backbone = (
        Transformer(depth=2, vocab=20, width=8, heads=2, ffn=8)
        if kind == "transformer"
        else RWKV6(vocab=20, width=8, depth=2, head_size=4)
    )
    model, ids = VLM(backbone, {}).eval(), torch.tensor([[1, 2, 3]])
    before = backbone(Sequence(ids))[0]
    LoRA(rank=2, targets=("value",))(model)
    torch.testing.assert_close(backbone(Sequence(ids))[0], before)
    added = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(added) == 4 if kind == "transformer" else len(added) > 4
    with pytest.raises(ValueError, match=r"targets \('qury'\) matches no linear layer"):
        LoRA(targets=("qury",))(VLM(Transformer(depth=1, vocab=9, width=8, heads=2, ffn=8), {}))


def test_lora_of_minigptv2_has_the_published_size():
    pytest.importorskip("peft")
    with torch.device("meta"):
        model = VLM(Transformer(), {})
        LoRA()(model)
    added = sum(value.numel() for name, value in model.named_parameters() if "lora_" in name)
    assert added == 33_554_432
