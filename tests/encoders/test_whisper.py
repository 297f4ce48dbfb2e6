"""The encoder of Whisper against that of transformers, and its log-mel spectrogram."""

import pytest
import torch
from torch.nn import functional as F

from mmrnn.encoders import WhisperEncoder
from mmrnn.encoders.log_mel import log_mel
from mmrnn.weights import load
from mmrnn.weights.export import export

SIZES = {"mels": 8, "width": 16, "depth": 2, "heads": 2, "positions": 50}


@pytest.fixture(scope="module")
def peer():
    pytest.importorskip("transformers")
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=60,
        num_mel_bins=8,
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        max_source_positions=50,
        pad_token_id=0,
    )
    return WhisperForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def features():
    transformers = pytest.importorskip("transformers")
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    return lambda waveform: extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt")["input_features"]


@pytest.mark.parametrize("loudness", [0.0, 1e-4, 0.3])
def test_the_spectrogram_is_that_of_transformers(features, loudness):
    """Of silence as well: powers below 1e-10 are one value."""
    torch.manual_seed(0)
    waveform = loudness * torch.randn(7000)
    found = log_mel(F.pad(waveform, (0, 16_000 - 7000))[None], 8)
    torch.testing.assert_close(found, features(waveform), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("samples", [16_000, 7000, 321, 1])
def test_tokens_are_those_of_transformers(peer, features, samples):
    """Of a clip that is filled up with silence: its own tokens alone."""
    torch.manual_seed(samples)
    waveform = 0.1 * torch.randn(samples)
    encoder = WhisperEncoder(**SIZES).eval()
    assert load(encoder, peer.state_dict()).format == "whisper"
    found = encoder(waveform[None, None])
    assert found.shape == (1, encoder.layout(1, samples).tokens, 16)
    theirs = peer.model.encoder(features(waveform)).last_hidden_state
    torch.testing.assert_close(found, theirs[:, : found.shape[1]], atol=1e-5, rtol=0)


def test_names_both_ways(peer):
    encoder, other = WhisperEncoder(**SIZES), WhisperEncoder(**SIZES)
    load(encoder, peer.state_dict())
    names = {name.removeprefix("model.encoder."): one for name, one in peer.state_dict().items() if "encoder." in name}
    published = export(encoder, "whisper_encoder")
    assert {name: one.shape for name, one in published.items()} == {name: one.shape for name, one in names.items()}
    assert load(other, published).format == "whisper_encoder"
    assert all(torch.equal(one, other.state_dict()[name]) for name, one in encoder.state_dict().items())


def test_autocast_rounds_no_spectrogram():
    waveform = torch.randn(1, 3200)
    with torch.autocast("cpu", torch.bfloat16):
        cast = log_mel(waveform, 8)
    assert torch.equal(cast, log_mel(waveform, 8))


def test_a_clip_alone_and_gradients():
    encoder = WhisperEncoder(**SIZES, fill=False, grad_checkpointing=1)
    encoder(torch.randn(2, 1, 3000)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 16_001), r"a clip of 1\.00 s does not fit: this encoder reads more than 0 and up to 1 s"),
        ((1, 0), r"a clip of 0\.00 s does not fit"),
        ((2, 100), "a waveform has one channel, got 2; mix them"),
    ],
)
def test_clips_that_do_not_fit(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        WhisperEncoder(**SIZES).layout(*shape)


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match=r"width \(16\) must be a multiple of heads \(3\)"):
        WhisperEncoder(**{**SIZES, "heads": 3})
