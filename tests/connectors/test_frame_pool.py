"""Frames of a video as one input: the encoder that reads them, and the connector that joins them over time."""

import json

import pytest
import torch
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.validate import check
from mmrnn.connectors import FramePool, Merge
from mmrnn.data import Collator, LLaVAJson
from mmrnn.encoders import FrameEncoder
from mmrnn.model.build import build
from mmrnn.types import Layout


def test_places_are_averaged_over_consecutive_frames():
    layout = Layout(rows=8, cols=3, frames=4)
    tokens = torch.randn(2, 24, 5)
    frames = tokens.view(2, 4, 2, 3, 5)
    pool = FramePool(5, rate=2)
    assert pool.layout(layout) == Layout(rows=4, cols=3, frames=2)
    wanted = torch.cat([frames[:, :2].mean(1), frames[:, 2:].mean(1)], dim=1).flatten(1, 2)
    torch.testing.assert_close(pool(tokens, layout), wanted)
    whole = FramePool(5)
    assert whole.layout(layout) == Layout(rows=2, cols=3)
    torch.testing.assert_close(whole(tokens, layout), frames.mean(1).flatten(1, 2))
    assert torch.equal(whole(tokens, Layout(rows=8, cols=3)), tokens)  # one frame


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"rate \(3\) must divide the 4 frames"):
        FramePool(5, rate=3).layout(Layout(rows=8, cols=3, frames=4))
    with pytest.raises(ValueError, match="drop its CLS token"):
        FramePool(5).layout(Layout(rows=8, cols=3, prefix=1, frames=4))
    with pytest.raises(ValueError, match="Merge joins patches of one frame, and there are 4; put FramePool before it"):
        Merge(5).layout(Layout(rows=8, cols=3, frames=4))
    with pytest.raises(ValueError, match="has its own way to read videos"):
        FrameEncoder(tower=instantiate(compose("model=qwen35_tiny").encoder))
    with pytest.raises(ValueError, match="other tokens than patches; set cls=drop"):
        FrameEncoder(tower=instantiate(compose("encoder=clip_tiny", "encoder.cls=first").encoder))


def test_every_frame_is_encoded_alone_and_a_still_image_is_equal_frames():
    encoder = instantiate(compose("encoder=clip_tiny_frames").encoder).eval()
    height, width = encoder.image.size
    video = torch.randn(2, 12, height, width)
    layout = encoder.layout(height, width)
    assert layout.frames == 4
    with torch.no_grad():
        tokens = encoder(video)
        assert tokens.shape == (2, layout.tokens, encoder.width)
        for number, frame in enumerate(tokens.chunk(4, dim=1)):
            torch.testing.assert_close(frame, encoder.tower(video[:, 3 * number : 3 * number + 3]))
        torch.testing.assert_close(encoder(video[:, :3]), encoder(video[:, :3].repeat(1, 4, 1, 1)))
    with pytest.raises(ValueError, match="an input has 6 channels, and 4 frames are read"):
        encoder(video[:, :6])


@pytest.mark.parametrize(("connector", "share"), [("frame_pool", 1), ("frame_pool_merge", 4)])
def test_a_video_takes_the_tokens_of_a_few_images(connector, share, tmp_path):
    images = [Image.new("RGB", (40, 30), (20 * number, 0, 0)) for number in range(8)]
    images[0].save(tmp_path / "clip.png", save_all=True, append_images=images[1:], duration=250)
    turns = [{"from": "human", "value": "<video>\nwhat is it?"}, {"from": "gpt", "value": "a kite"}]
    (tmp_path / "data.json").write_text(json.dumps([{"id": "1", "video": "clip.png", "conversations": turns}]))
    cfg = compose("model=visualrwkv6_tiny", "encoder=clip_tiny_frames", f"connector={connector}")
    model = build(cfg).eval()
    encoder = model.modalities["image"].encoder
    [sample] = LLaVAJson(file=str(tmp_path / "data.json"), frames=8, temporal_patch=4)
    collate = Collator(instantiate(cfg.tokenizer), instantiate(cfg.prompt), dict(model.modalities))
    batch = collate([sample])
    alone = encoder.tower.layout(*encoder.image.size).tokens
    assert [span.layout.tokens for span in batch.sequence.image_spans] == [alone // share] * 2
    assert collate.length(sample) == batch.sequence.ids.shape[1]
    loss = model.head(model(batch).hidden).float().logsumexp(-1).sum()
    loss.backward()
    trained = model.modalities["image"].connector.parameters()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained)


def test_data_that_group_other_frames_than_the_encoder_are_refused_by_check():
    video = ("data=llava", "data.file=x.json", "data.temporal_patch=3")
    for words, read in (("encoder=clip_tiny_frames",), 4), (("encoder=clip_tiny",), 1), (("model=qwen35_tiny",), 2):
        with pytest.raises(ConfigError, match=f"data.temporal_patch: 3 frames .* reads {read}; set .*={read}"):
            check(compose("model=visualrwkv6_tiny", *words, *video))
    check(compose("model=visualrwkv6_tiny", "encoder=clip_tiny_frames", *video, "data.temporal_patch=4"))
