"""VisualRWKV v5.0, v5.1 and v6.0 as the original code computes them, from pixels to replies."""

import pytest
import torch

from mmrnn import weights
from mmrnn.backbones import RWKV5, RWKV6, scan
from mmrnn.connectors import Linear, MeanPool, Pool, Sequential
from mmrnn.encoders import TimmViT
from mmrnn.inference.generate import stream
from mmrnn.model.vlm import VLM, Modality, Output
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.types import IGNORE, SLOT, Batch, ImageSpan, Layout, Sequence

pytestmark = pytest.mark.golden

SCANS = {"uni": "forward", "bi": "bidirectional", "multi": "multidirectional"}


def build(case: dict, params: dict, cls: str, order=None, pool=None) -> VLM:
    """The model of a case, loaded from its checkpoint under the original names."""
    config, vision = case["config"], case["config"]["vision"]
    encoder = TimmViT(
        name="vit_base_patch32_clip_quickgelu_224",
        size=vision["image_size"],
        layer=-1,
        norm=False,
        cls=cls,
        resize="crop",
        depth=vision["num_hidden_layers"],
        arch={
            "patch_size": vision["patch_size"],
            "embed_dim": vision["hidden_size"],
            "num_heads": vision["num_attention_heads"],
            "mlp_ratio": vision["intermediate_size"] / vision["hidden_size"],
        },
    )
    sizes = {
        "vocab": config["vocab_size"],
        "width": config["n_embd"],
        "depth": config["n_layer"],
        "head_size": config["head_size"],
        "ffn": config["dim_ffn"],
    }
    if "mix_lora_rank" in config:
        backbone = RWKV6(**sizes, mix_rank=config["mix_lora_rank"], decay_rank=config["decay_lora_rank"])
    else:
        backbone = RWKV5(**sizes)
    grid = config["grid_size"]
    parts = [pool or (lambda width, out: Pool(width, out, grid=grid)), lambda i, o: Linear(i, o, bias=False)]
    model = VLM(backbone, {"image": Modality(encoder, Sequential(encoder.width, backbone.width, parts=parts))}, order)
    weights.load(model, params)
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def spliced(case: dict, tensors: dict, model: VLM, version: str) -> tuple[Batch, list[list[int]]]:
    """The batch of a case in our own layout, and for every row the place of each position in the upstream row.

    Upstream (v5.1, v6.0) pads rows on the left up to the largest image position and gives text-only samples zero
    vectors; ours has neither, so only the positions that both have can be compared.
    """
    modality = model.modalities["image"]
    layout = modality.layout(*modality.image.size)
    ids, labels = tensors["in/input_ids"], tensors["in/labels"]
    first = max((row == SLOT).nonzero()[0].item() if (row == SLOT).any() else 0 for row in ids)
    rows, row_labels, blocks, places, images = [], [], [], [], []
    for index, sample in enumerate(case["config"]["samples"]):
        length = sample["real_length"]
        row, label = ids[index, :length].tolist(), labels[index, :length].tolist()
        at = sample["image_index"]
        offset = 0 if version == "v50" else first - (at or 0)
        if at is None:
            shift = 0 if version == "v50" else first + layout.tokens
            place = [shift + i for i in range(length)]
        else:
            row[at : at + 1] = [SLOT] * layout.tokens
            label[at : at + 1] = [IGNORE] * layout.tokens
            blocks.append(ImageSpan(index, at, layout))
            images.append(tensors["in/images"][index, 0])
            place = [offset + i for i in range(len(row))]
        rows.append(torch.tensor(row))
        row_labels.append(torch.tensor(label))
        places.append(place)
    pad = torch.nn.utils.rnn.pad_sequence
    sequence = Sequence(
        pad(rows, batch_first=True), tuple(blocks), labels=pad(row_labels, batch_first=True, padding_value=IGNORE)
    )
    return Batch(sequence, {"image": torch.stack(images)}), places


def upstream(tensors: dict, prefix: str, rows: int, cols: int, cls: int) -> Sequence:
    """The very sequence that upstream's language model read, its left padding and zero vectors included."""
    embeds, labels = tensors[f"{prefix}embeds"], tensors[f"{prefix}labels"]
    start, stop = tensors[f"{prefix}img_span"].tolist()
    assert stop - start == rows * cols
    blocks = tuple(ImageSpan(row, start, Layout(rows=rows, cols=cols, suffix=cls)) for row in range(len(embeds)))
    return Sequence(labels.clamp(min=0), blocks, embeds=embeds, labels=labels)


def side(case: dict) -> int:
    return case["config"]["vision"]["image_size"] // case["config"]["vision"]["patch_size"]


def close(ours, theirs, atol):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def test_v6_tower_pooling_and_projection(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    images = tensors["in/images"][:, 0]
    model = build(case, params(tensors), "last")
    features = model.modalities["image"].encode(images)
    close(features, torch.cat([tensors["out/vit_features"][:, 1:], tensors["out/vit_features"][:, :1]], 1), 2e-5)
    for grid in (int(name.split("/")[1][4:]) for name in tensors if name.endswith("/projected")):
        pooled = build(case, params(tensors), "last", pool=lambda i, o, g=grid: Pool(i, o, grid=g))
        modality = pooled.modalities["image"]
        close(
            modality.connector.parts[0](features, modality.encoder.layout(*modality.image.size)),
            tensors[f"out/grid{grid}/features"],
            2e-5,
        )
        close(modality.connect(features), tensors[f"out/grid{grid}/projected"], 2e-5)


def test_v6_logits_loss_and_gradients(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    sequence = upstream(tensors, "out/", side(case), side(case), 1)
    hidden, state = model.backbone(sequence, scan=model.scan)
    close(model.head(hidden), tensors["out/logits"], 2e-4)
    loss = LanguageModel(reduction="sample", l2wrap=0.0)(model, Output(hidden, state, sequence))
    close(loss, tensors["out/loss"], 2e-5)


def test_v6_gradients_through_the_whole_path(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    sequence = upstream(tensors, "out/", side(case), side(case), 1)
    # The projected images enter where upstream put them, so that the projection gets its gradient.
    shown = [i for i, sample in enumerate(case["config"]["samples"]) if sample["image_index"] is not None]
    visual = model.modalities["image"].connect(model.modalities["image"].encode(tensors["in/images"][shown, 0]))
    embeds = sequence.embeds.clone()
    for row, image in zip(shown, visual, strict=True):
        close(image, tensors["out/image_features"][row], 2e-5)
        block = sequence.image_spans[row]
        embeds[row, block.start : block.stop] = image
    sequence = Sequence(sequence.ids, sequence.image_spans, embeds, sequence.labels)
    hidden, state = model.backbone(sequence, scan=model.scan)
    LanguageModel(reduction="sample", l2wrap=1e-4)(model, Output(hidden, state, sequence)).backward()
    expected = params(tensors, "grad/")
    for prefix, part, format in (
        ("rwkv.", model.backbone, "rwkv6"),
        ("proj.", model.modalities["image"].connector, None),
    ):
        group = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
        assert group
        grads = {name: value.grad for name, value in part.named_parameters()}
        for name, value in weights.convert(part, group, format=format).items():
            assert (grads[name] - value).abs().max() <= 2e-4 * value.abs().max(), name


def test_v6_other_grids(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    grids = [
        int(name.split("/")[1][4:]) for name in tensors if name.startswith("out/grid") and name.endswith("/logits")
    ]
    assert grids
    for grid in grids:
        model = build(case, params(tensors), "last", scan.bidirectional, pool=lambda i, o, g=grid: Pool(i, o, grid=g))
        batch, places = spliced(case, tensors, model, "v60")
        logits = model.head(model(batch).hidden)
        labels = tensors[f"out/grid{grid}/labels"]
        for row, place in enumerate(places):
            assert labels[row, place].tolist() == batch.sequence.labels[row, : len(place)].tolist()
            if place[0] == 0:
                close(logits[row, : len(place)], tensors[f"out/grid{grid}/logits"][row, place], 2e-4)


def test_v6_splice_puts_everything_where_upstream_does(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    batch, places = spliced(case, tensors, model, "v60")
    sequence = model.embed(batch)
    for row, place in enumerate(places):
        close(sequence.embeds[row, : len(place)], tensors["out/embeds"][row, place], 2e-5)
        assert tensors["out/labels"][row, place].tolist() == sequence.labels[row, : len(place)].tolist()
    # The row that upstream does not pad equals ours in its logits, too.
    logits = model.head(model(batch).hidden)
    unpadded = [row for row, place in enumerate(places) if place[0] == 0]
    assert unpadded
    for row in unpadded:
        close(logits[row, : len(places[row])], tensors["out/logits"][row, places[row]], 2e-4)


def prompt(tensors: dict, model: VLM) -> Batch:
    modality = model.modalities["image"]
    layout = modality.layout(*modality.image.size)
    ids = tensors["in/gen_input_ids"][0].tolist()
    at = ids.index(SLOT)
    ids[at : at + 1] = [SLOT] * layout.tokens
    return Batch(Sequence(torch.tensor([ids]), (ImageSpan(0, at, layout),)), {"image": tensors["in/gen_images"][:, 0]})


def replies(model: VLM, batch: Batch, limit: int) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens over the state, and the logits of every step."""
    logits = []

    def sampler(row):
        logits.append(row)
        return row.argmax(-1)

    tokens = [step[0] for step in stream(model, batch, max_new_tokens=limit, sampler=sampler)]
    return tokens, torch.cat(logits)


def test_v6_replies(golden, params):
    case, tensors = golden("visualrwkv6_bi")
    model = build(case, params(tensors), "last", scan.bidirectional)
    expected = tensors["out/gen_tokens"].tolist()
    tokens, logits = replies(model, prompt(tensors, model), len(expected))
    assert tokens == expected
    close(logits, tensors["out/gen_step_logits"], 2e-4)
    close(logits.max(-1).values, tensors["out/gen_token_logits"], 2e-4)
    close(logits.softmax(-1).max(-1).values, tensors["out/gen_token_probs"], 2e-4)
    stopped = list(stream(model, prompt(tensors, model), finished=lambda ids: ids[-1] == expected[3]))
    assert [step[0] for step in stopped] == tensors["out/gen_stop_tokens"].tolist()


def test_v5_0(golden, params):
    case, tensors = golden("visualrwkv5_scan")
    model = build(case, params(tensors), "first")
    batch, places = spliced(case, tensors, model, "v50")
    output = model(batch)
    logits = model.head(output.hidden)
    for row, place in enumerate(places):
        close(output.sequence.embeds[row, : len(place)], tensors["out/v50/embeds"][row, place], 2e-5)
        close(logits[row, : len(place)], tensors["out/v50/logits"][row, place], 2e-4)
    close(LanguageModel(reduction="token")(model, output), tensors["out/v50/loss"], 2e-5)
    expected = tensors["out/v50/gen_tokens"].tolist()
    tokens, steps = replies(model, prompt(tensors, model), len(expected))
    assert tokens == expected
    close(steps, tensors["out/v50/gen_step_logits"], 2e-4)


def test_v5_0_gradients(golden, params):
    case, tensors = golden("visualrwkv5_scan")
    model = build(case, params(tensors), "first")
    # Upstream fills rows with zero vectors, and its pull on the largest logits covers them as well.
    embeds = tensors["out/v50/embeds"].clone()
    batch, places = spliced(case, tensors, model, "v50")
    ours = model.embed(batch).embeds
    for row, place in enumerate(places):
        embeds[row, place] = ours[row, : len(place)]
    labels = tensors["out/v50/labels"]
    sequence = Sequence(labels.clamp(min=0), embeds=embeds, labels=labels)
    hidden, state = model.backbone(sequence)
    LanguageModel(reduction="token", l2wrap=1e-4)(model, Output(hidden, state, sequence)).backward()
    expected = params(tensors, "grad/")
    group = {name.removeprefix("rwkv."): value for name, value in expected.items() if name.startswith("rwkv.")}
    grads = {name: value.grad for name, value in model.backbone.named_parameters()}
    for name, value in weights.convert(model.backbone, group, format="rwkv5").items():
        assert (grads[name] - value).abs().max() <= 2e-4 * value.abs().max(), name
    (projection,) = (p.grad for p in model.modalities["image"].connector.parameters())
    value = expected["proj.weight"]
    assert (projection - value).abs().max() <= 2e-4 * value.abs().max()


def test_v5_0_pooling(golden, params):
    case, tensors = golden("visualrwkv5_scan")
    for name in [name for name in tensors if name.startswith("out/v50/grid") and name.endswith("/features")]:
        grid = int(name.split("/")[2][4:])
        pool = MeanPool if grid == 1 else (lambda i, o, g=grid: Pool(i, o, grid=g))
        model = build(case, params(tensors), "first", pool=pool)
        modality = model.modalities["image"]
        features = modality.encode(tensors["in/images"][:, 0])
        close(modality.connector.parts[0](features, modality.encoder.layout(*modality.image.size)), tensors[name], 2e-5)


@pytest.mark.parametrize("mode", ["uni", "bi", "multi", "spiral", "snake", "zigzag"])
def test_v5_1_scans(mode, golden, params):
    case, tensors = golden("visualrwkv5_scan")
    order = getattr(scan, SCANS.get(mode, mode))
    model = build(case, params(tensors), "last", order)
    sequence = upstream(tensors, "out/v51/", side(case), side(case), 1)
    hidden, state = model.backbone(sequence, scan=order)
    logits = model.head(hidden)
    theirs = tensors[f"out/v51_{mode}/logits"].clone()
    if f"out/v51_{mode}/order" in tensors:
        # Upstream never undoes these orders: its logits of the patches stand in scan order.
        start, stop = tensors["out/v51/img_span"].tolist()
        theirs[:, start + tensors[f"out/v51_{mode}/order"]] = theirs[:, start:stop].clone()
    close(logits, theirs, 2e-4)
    loss = LanguageModel(reduction="token")(model, Output(hidden, state, sequence))
    close(loss, tensors[f"out/v51_{mode}/loss"], 2e-5)
    if f"out/v51_{mode}/gen_tokens" in tensors:
        expected = tensors[f"out/v51_{mode}/gen_tokens"].tolist()
        tokens, steps = replies(model, prompt(tensors, model), len(expected))
        assert tokens == expected
        close(steps, tensors[f"out/v51_{mode}/gen_step_logits"], 2e-4)


@pytest.mark.parametrize("whole", [True, False])
def test_v5_pair_of_files(whole, tmp_path, golden, params):
    """The released v5 comes as two files: both are one source for the model, or each is one for its part."""
    case, tensors = golden("visualrwkv5_scan")
    named = params(tensors)
    files = tmp_path / "a_rwkv.pth", tmp_path / "a_visual.pth"
    language = {name: value.clone() for name, value in named.items() if name.startswith("rwkv.")}
    torch.save({name.removeprefix("rwkv."): value for name, value in language.items()}, files[0])
    torch.save({name: value.clone() for name, value in named.items() if name not in language}, files[1])
    expected, model = build(case, named, "first"), build(case, named, "first")
    for value in model.parameters():
        value.data.zero_()
    if whole:
        assert weights.load(model, files).format == "visualrwkv5"
    else:
        weights.load(model.backbone, files[0])
        assert weights.load(model.modalities["image"], files[1]).format == "visualrwkv5"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
