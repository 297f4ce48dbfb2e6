"""Videos of Qwen3.5 beside the processor and the model of transformers, small and random, in a process of its own.

Where flash-linear-attention is installed, the model of transformers takes its Triton functions at the import, and runs
on a GPU alone; the process hides it. Limits: pixels 2/255 of the range (bicubic on tensors and on images), logits 3e-4.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmrnn.backbones.positions import mrope
from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.connectors import PatchMerger
from mmrnn.data import Collator, LLaVAJson
from mmrnn.data.frame_group import FrameGroup, frame_groups
from mmrnn.data.image import ImageFile
from mmrnn.data.preprocess import area_size, read_pixels, source_size
from mmrnn.data.video import frame_times
from mmrnn.data.video_turns import expand_videos, video_inputs
from mmrnn.encoders import QwenViT
from mmrnn.inference.assistant import Assistant
from mmrnn.model.build import build
from mmrnn.model.vlm import VLM, Modality
from mmrnn.types import SLOT, Batch, ImageSpan, Turn
from mmrnn.types import Sequence as Tokens
from mmrnn.weights import load
from tests.designs.peer_process import run_peer

SCRIPT = Path(__file__).parent / "qwen35_video_peer.py"
VISION = {"width": 32, "depth": 2, "heads": 2, "ffn": 48, "patch": 4, "merge": 2, "table": 6}
BUDGET = {"video_min_pixels": 3 * 256, "video_max_pixels": 3 * 900}
FRAMES, SIZE, FPS = 7, (46, 30), 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """An animated image of 7 frames, 4 a second."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)) for _ in range(FRAMES)]
    folder = tmp_path_factory.mktemp("clip")
    images[0].save(folder / "clip.png", save_all=True, append_images=images[1:], duration=1000 // FPS)
    return folder / "clip.png"


@pytest.fixture(scope="module")
def peer(clip, tmp_path_factory):
    """Outputs of transformers for the frames: pixels in patches, text, ids, positions, logits, and the weights."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("peer")
    np.save(folder / "frames.npy", np.stack([np.asarray(frame.open()) for frame in video_inputs(clip, FRAMES)]))
    (folder / "config.json").write_text(json.dumps({**VISION, **BUDGET, "fps": FPS}))
    run_peer(SCRIPT, folder)
    return json.loads((folder / "facts.json").read_text()), load_file(folder / "tensors.safetensors")


@pytest.fixture
def tower():
    return QwenViT(**VISION, min_pixels=64, max_pixels=1024, **BUDGET)


def test_pixels_and_times_are_those_of_the_processor(peer, clip, tower):
    facts, tensors = peer
    groups = video_inputs(clip, FRAMES, temporal_patch=2)
    [turn], inputs = expand_videos([Turn("user", "<video>what?")], [], [groups])
    assert inputs == groups
    assert turn.text.replace("<image>", "<|vision_start|><|vision_end|>") == facts["text"].replace("<|video_pad|>", "")
    time, rows, cols = facts["grid"]
    assert time == len(groups) == 4
    patch, merge = tower.patch, tower.merge
    parts = tensors["pixels"].view(time, rows // merge, cols // merge, merge, merge, 3, 2, patch, patch)
    truth = parts.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(time, 6, rows * patch, cols * patch)
    for group, pixels in zip(groups, truth, strict=True):
        assert source_size(group, tower.image) == pixels.shape[1:]
        torch.testing.assert_close(read_pixels(group, tower.image), pixels, atol=0.016, rtol=0)


def test_the_whole_model(peer, tower, qwen35):
    facts, tensors = peer
    model = VLM(qwen35(facts["language"]), {"image": Modality(tower, PatchMerger(32, 64))}, position=mrope).eval()
    load(model, {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")})
    time, rows, cols = facts["grid"]
    parts = tensors["pixels"].view(time, rows // 2, cols // 2, 2, 2, 3, 2, 4, 4)
    pixels = parts.permute(0, 6, 5, 1, 3, 7, 2, 4, 8).reshape(time, 6, rows * 4, cols * 4)
    ids = tensors["ids"].clone()
    pad = ids == facts["video_id"]
    starts = (pad & ~pad.roll(1, 1)).nonzero()[:, 1].tolist()
    layout = model.modalities["image"].connector.layout(tower.layout(*pixels.shape[-2:]))
    assert len(starts) == time
    ids[pad] = SLOT
    sequence = Tokens(ids, tuple(ImageSpan(0, start, layout) for start in starts))
    assert torch.equal(mrope(sequence)[0].T, tensors["positions"][:, 0])
    with torch.no_grad():
        found = model.head(model(Batch(sequence, {"image": pixels})).hidden)
        torch.testing.assert_close(found, tensors["logits"], atol=3e-4, rtol=0)
        # A pair is not its first frame twice.
        still = model.head(model(Batch(sequence, {"image": pixels[:, :3]})).hidden)
    assert (still - found).abs().max() > 1e-2


@pytest.mark.parametrize("frames", [2, 3, 8])
@pytest.mark.parametrize("size", [(46, 30), (5, 90), (300, 200), (8, 8)])
def test_sizes_share_the_budget_of_the_frames(size, frames, tower):
    smart_resize = pytest.importorskip("transformers.models.qwen3_vl.video_processing_qwen3_vl").smart_resize
    least, most = tower.image.video_pixels
    wanted = smart_resize(frames, *size[::-1], 2, 8, least, most)
    assert area_size(size, tower.image, frames)[::-1] == wanted


def test_times_and_groups(tmp_path, clip):
    assert frame_times(clip, 4) == [0.0, 0.5, 1.0, 1.5]
    for number in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    assert frame_times(tmp_path, 3) == [0.0, 1 / 24, 2 / 24]
    stills = [ImageFile(name) for name in "abc"]
    first, last = frame_groups(stills, [0.0, 1.0, 2.0], 2)
    assert (first.key, first.seconds, first.of) == ("a+b", 0.5, 3)
    assert (last.key, last.seconds) == ("c+c", 2.0)


def test_a_group_for_an_encoder_of_single_frames_is_refused(clip, tower):
    alone = QwenViT(**VISION, min_pixels=64, max_pixels=1024, temporal_patch=1)
    with pytest.raises(ValueError, match=r"2 frames .* the encoder reads 1; set data.temporal_patch=1"):
        read_pixels(video_inputs(clip, 2, temporal_patch=2)[0], alone.image)


def test_a_record_and_a_question_show_pairs(clip, tmp_path):
    turns = [{"from": "human", "value": "<video>what?"}, {"from": "gpt", "value": "noise"}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "1", "video": clip.name, "conversations": turns}]))
    data = LLaVAJson(file=str(tmp_path / "data.json"), image_folder=str(clip.parent), frames=4, temporal_patch=2)
    sample = data[0]
    assert sample.turns[0].text == "<0.2 seconds><image><1.2 seconds><image>what?"
    assert all(isinstance(image, FrameGroup) for image in sample.images)
    cfg = compose("model=qwen35_tiny")
    torch.manual_seed(0)
    model = build(cfg).eval()
    tokenizer, prompt = instantiate(cfg.tokenizer), instantiate(cfg.prompt)
    collate = Collator(tokenizer, prompt, dict(model.modalities))
    batch = collate([sample])
    assert [image.shape[0] for image in batch.images["image"]] == [6, 6]
    assert collate.length(sample) == batch.sequence.ids.shape[1]
    assert model(batch).hidden.isfinite().all()
    asked = Assistant(model, tokenizer, prompt).reader.question("<video>what?", [clip])
    assert len(asked.images) == 4  # pairs of eight frames
    assert asked.turns[0].text.startswith("<0.1 seconds><image>")
    with pytest.raises(ValueError, match=r"temporal_patch \(2\) and grid exclude each other"):
        LLaVAJson(file="x.json", grid=(2, 2), temporal_patch=2)
