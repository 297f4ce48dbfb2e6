"""Vectors of images and texts: those that the contrastive objective compares, found again in a checkpoint."""

import pytest
import torch
import yaml
from torch.nn import functional as F

import mmrnn
from mmrnn.backbones import NoBackbone
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.config.error import ConfigError
from mmrnn.connectors import TextQFormer
from mmrnn.data.collate import Collator
from mmrnn.data.image import ImageError, ImageFile
from mmrnn.encoders import PatchEmbed
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.embedding import caption_ids, similarity
from mmrnn.io.tensor_files import read
from mmrnn.model.vlm import VLM, Modality
from mmrnn.training import BLIP2Pretraining, LanguageModel, WeightedSum
from mmrnn.training.objectives.blip2 import image_tokens, texts
from mmrnn.types import Batch, Embedder, ImageSpan, Sample, Sequence, Turn
from mmrnn.weights import WeightsError, load
from tests.inference.retrieval_run import COLORS, caption, train

CLOSE = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("stage1"))


@pytest.fixture(scope="module")
def assistant(run):
    return mmrnn.load(run)


def files(run):
    return [run.parent / "images" / f"{color}.png" for color in COLORS]


@pytest.mark.golden
def test_the_vectors_of_lavis(golden, params):
    case, tensors = golden("qformer_lavis")
    config, weights = case["config"], params(tensors)
    knobs = {name: config[name] for name in ("queries", "width", "heads", "ffn", "cross_every", "vocab")}
    connector = TextQFormer(config["enc_width"], depth=config["layers"], positions=config["max_pos"], **knobs)
    modality = Modality(PatchEmbed(patch=4, width=config["enc_width"], size=8), connector)
    model = VLM(NoBackbone(vocab=config["vocab"]), {"image": modality}).eval()
    objective = BLIP2Pretraining(model, width=config["embed"], begin=config["bos_id"])
    load(connector, weights)
    load(objective, weights)
    norm = weights["ln_vision.weight"], weights["ln_vision.bias"]
    features = F.layer_norm(tensors["in/image_feats_raw"], norm[0].shape, *norm)
    spans = tuple(ImageSpan(row, 0, model.modalities["image"].layout(8, 8)) for row in range(len(features)))
    batch = Batch(Sequence(torch.zeros(len(features), 9, dtype=torch.long), spans), features={"image": features})
    images = objective.embed_images(model, batch)
    words = objective.embed_texts(model, tensors["in/text_ids"], tensors["in/text_mask"].bool())
    torch.testing.assert_close(images, tensors["out/image_feats"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(words[:, 0], tensors["out/text_feats"], atol=1e-5, rtol=1e-4)
    scores = similarity(images, words) / objective.temperature
    torch.testing.assert_close(scores, tensors["out/sim_i2t"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(similarity(words, images), similarity(images, words).T)
    logits = objective.match(model, batch, tensors["in/text_ids"], tensors["in/text_mask"].bool())
    torch.testing.assert_close(logits, tensors["out/itm_score"], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_training_compares(run, assistant):
    """Vectors of the loaded model against its objective's forward pass over a batch as training collates it."""
    model, objective = assistant.model, assistant.model.embedder
    turns = [(Turn("user", "<image>"), Turn("assistant", caption(color))) for color in COLORS]
    samples = [Sample(two, (ImageFile(path),)) for two, path in zip(turns, files(run), strict=True)]
    batch = Collator(assistant.tokenizer, assistant.prompt, dict(model.modalities))(samples)
    rows, tokens = image_tokens(model, batch)
    connector = model.modalities["image"].connector
    _, (expected, _) = objective.contrast(connector.forward_image(tokens), connector.forward_text(*texts(batch, rows)))
    images, words = assistant.embed(image=files(run)), assistant.embed(text=[caption(color) for color in COLORS])
    assert images.shape[::2] == words.shape[::2] == (len(COLORS), 16)
    assert (images.shape[1], words.shape[1]) == (8, 1)
    torch.testing.assert_close(similarity(images, words) / objective.temperature, expected, atol=1e-5, rtol=1e-5)
    for vectors in (images, words):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:2]))


def test_a_vector_does_not_depend_on_the_batch(run, assistant):
    long, short = "a red wall behind a very long row of words", "a dog"
    together = assistant.embed(text=[long, short, "x"])
    for index, text in enumerate((long, short, "x")):
        torch.testing.assert_close(assistant.embed(text=text)[0], together[index], **CLOSE)
    torch.testing.assert_close(assistant.embed(text=[long, short, "x"], batch_size=1), together, **CLOSE)
    every = assistant.embed(image=files(run))
    for index, file in enumerate(files(run)):
        torch.testing.assert_close(assistant.embed(image=file)[0], every[index], **CLOSE)
    torch.testing.assert_close(assistant.embed(image=files(run), batch_size=4), every, **CLOSE)


def test_an_image_is_nearest_to_itself(run, assistant):
    images = assistant.embed(image=files(run))
    scores = similarity(images, images)
    torch.testing.assert_close(scores.diagonal(), torch.ones(len(COLORS)), **CLOSE)
    assert scores.max() < 1 + 1e-5
    with pytest.raises(ValueError, match="vectors of 16 and of 3 numbers"):
        similarity(images, images[..., :3])


def test_a_caption_is_written_as_in_training(assistant):
    ids, mask = caption_ids(["a cat", "a"], assistant.tokenizer, assistant.prompt)
    one = assistant.tokenizer.encode("a cat\n")
    assert ids[0].tolist() == [*assistant.tokenizer.starts, *one]
    assert mask[0].all()
    assert mask[1].sum() == len(assistant.tokenizer.starts) + len(assistant.tokenizer.encode("a\n"))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "either image= or text="),
        ({"image": "a.png", "text": "a"}, "either image= or text="),
        ({"text": ""}, "a string with words, and '' is none"),
        ({"text": ["a", " \n"]}, "a string with words"),
        ({"text": []}, "no texts to embed"),
        ({"image": []}, "no images to embed"),
        ({"text": "word " * 500}, "longer than the positions of the connector"),
    ],
)
def test_what_cannot_be_embedded(assistant, given, fault):
    with pytest.raises(ValueError, match=fault):
        assistant.embed(**given)


def test_a_missing_image(assistant):
    with pytest.raises(ImageError, match=r"nowhere\.png is not there"):
        assistant.embed(image="nowhere.png")


def test_a_model_without_heads_names_what_gives_them():
    cfg = mmrnn.compose("model=visualrwkv6_tiny")
    model = mmrnn.build(cfg)
    plain = Assistant(model, *(mmrnn.config.instantiate.instantiate(cfg[name]) for name in ("tokenizer", "prompt")))
    for given in ({"text": "a"}, {"image": "a.png"}):
        with pytest.raises(ValueError, match=r"not trained with a contrastive objective.* objective=blip2"):
            plain.embed(**given)


def test_heads_live_through_another_checkpoint(assistant, tmp_path):
    save(assistant.model, tmp_path / "again")
    again = mmrnn.load(tmp_path / "again")
    assert again.model.state_dict().keys() == assistant.model.state_dict().keys()
    assert torch.equal(again.embed(text="a dog"), assistant.embed(text="a dog"))
    assert "are not in this checkpoint" not in (tmp_path / "again" / "README.md").read_text()
    assert not any(value.is_meta for value in again.model.state_dict().values())


def test_heads_are_kept_without_frozen_parameters(run, assistant, tmp_path):
    """Frozen parameters come from a base; heads have none, and are always in the checkpoint."""
    words = (f"weights.model={run}", "save_frozen=false", "stage.bridge.train=[connector]")
    tuned = train(tmp_path, *words)
    assert {name.split(".")[0] for name in read(tuned)} == {"embedder", "modalities"}
    loaded, base = mmrnn.load(tuned).model.modalities["image"], assistant.model.modalities["image"].state_dict()
    changed = {
        name.partition(".")[0] for name, value in loaded.state_dict().items() if not torch.equal(value, base[name])
    }
    assert changed == {"connector"}


def test_heads_need_no_base(run, assistant, tmp_path):
    """Only the encoder is frozen, and comes from a file of its own."""
    encoder = assistant.model.modalities["image"].encoder
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    words = (f"weights.encoder={tmp_path}/encoder.pth", "save_frozen=false", "stage.bridge.train=[connector]")
    assert {name.split(".")[0] for name in read(train(tmp_path, *words, steps=1))} == {"embedder", "modalities"}


def test_a_model_begun_from_one_with_heads(run):
    """The heads belong to an objective, which is not there yet."""
    words = ("model=blip2_stage1", "encoder=eva_tiny", "connector=qformer_text_tiny", "tokenizer=demo")
    model = mmrnn.build(mmrnn.compose(*words, f"weights.model={run}"))
    assert model.embedder is None
    assert any("heads that embed images and texts" in note for note in model.load_notes)


def rewritten(run, folder, change):
    """The checkpoint with another configuration."""
    cfg = yaml.safe_load((run / "config.yaml").read_text())
    change(cfg)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(cfg))
    (folder / "model.safetensors").symlink_to(run / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda cfg: cfg.pop("objective"), "objective: no card is chosen, and the weights hold the heads"),
        (
            lambda cfg: cfg.update(objective={"_target_": "mmrnn.training.LanguageModel"}),
            "objective: it embeds nothing",
        ),
        (lambda cfg: cfg["objective"].update(width=10**7), r"embedder\.\S+ has the shape \(10000000"),
        (lambda cfg: cfg["objective"].update(width=10**18), "objective: nothing can be built of its sizes"),
        (lambda cfg: cfg["objective"].update(_target_="os.system"), r"objective\._target_: 'os\.system'"),
    ],
)
def test_a_configuration_that_does_not_fit_the_heads(run, tmp_path, change, fault):
    with pytest.raises(ConfigError, match=fault):
        load_model(rewritten(run, tmp_path / "other", change))


def test_heads_that_are_not_whole(run, tmp_path):
    from safetensors.torch import save_file

    folder = rewritten(run, tmp_path / "other", lambda cfg: cfg["weights"].update(model=str(run)))
    (folder / "model.safetensors").unlink()
    tensors = {name: value for name, value in read(run).items() if name != "embedder.text_proj.weight"}
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"embedder\.text_proj\.weight"):
        load_model(folder)


def test_the_embedder_of_a_sum(assistant):
    made = BLIP2Pretraining(assistant.model, width=4, begin=1)
    assert isinstance(made, Embedder)
    assert WeightedSum(assistant.model, parts=[LanguageModel(), made]).embedder() is made
    assert WeightedSum(assistant.model, parts=[LanguageModel()]).embedder() is None
