"""Clips of sound: files, records, training, and a question about one."""

import json
import math
import wave

import pytest
import torch

from mmrnn.config.compose import compose
from mmrnn.data import Collator
from mmrnn.data.audio import AudioError, AudioFile, count_samples, read_audio
from mmrnn.data.readers.llava import LLaVAJson
from mmrnn.inference.assistant import Assistant
from mmrnn.model.build import build
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer
from mmrnn.types import Sample, Turn

pytest.importorskip("av")


def write(path, seconds=0.1, rate=16_000, channels=1, pitch=440.0):
    frames = int(seconds * rate)
    values = [int(12_000 * math.sin(2 * math.pi * pitch * number / rate)) for number in range(frames)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(value.to_bytes(2, "little", signed=True) * channels for value in values))
    return path


def test_a_file_becomes_one_channel_of_16_khz(tmp_path):
    plain = read_audio(write(tmp_path / "a.wav"))
    assert plain.shape == (1, 1600)
    expected = torch.tensor([12_000 / 32_768 * math.sin(2 * math.pi * 440 * n / 16_000) for n in range(1600)])
    torch.testing.assert_close(plain[0], expected, atol=1e-4, rtol=0)
    other = read_audio(write(tmp_path / "b.wav", rate=44_100, channels=2))
    assert abs(other.shape[1] - 1600) <= 2
    middle = slice(200, 1400)  # the ends of a resampled clip ring
    torch.testing.assert_close(other[0, middle], expected[middle], atol=2e-2, rtol=0)


def test_files_that_cannot_be_read_say_so_in_a_sentence(tmp_path):
    whole = write(tmp_path / "whole.wav").read_bytes()
    (tmp_path / "text.wav").write_text("no sound at all")
    (tmp_path / "list.wav").write_text("#EXTM3U\n/etc/passwd\n")
    (tmp_path / "head.wav").write_bytes(whole[:30])
    (tmp_path / "none.wav").write_bytes(b"")
    write(tmp_path / "silent.wav", seconds=0)
    (tmp_path / "song.exe").write_bytes(whole)
    cases = {
        "absent.wav": "is not there",
        "text.wav": "is broken: ",
        "list.wav": "is broken: ",
        "head.wav": "is broken: |has no audio|holds no samples",
        "none.wav": "is broken: ",
        "silent.wav": "holds no samples|is broken: ",
        "song.exe": r"is no audio of a known format \(\.wav, ",
    }
    for name, sentence in cases.items():
        with pytest.raises(AudioError, match=f"{name} ({sentence})") as raised:
            read_audio(tmp_path / name)
        assert "\n" not in str(raised.value)
    with pytest.raises(AudioError, match=r"whole\.wav is longer than 0\.05 s"):
        AudioFile(tmp_path / "whole.wav", max_seconds=0.05).open()


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_the_header_of_a_wav_says_the_number_of_samples(tmp_path, rate, monkeypatch):
    """With other rates than 16 kHz within one sample of the resampled waveform; nothing is decoded."""
    paths = [write(tmp_path / f"{number}.wav", seconds, rate) for number, seconds in enumerate((0.05, 0.1234, 0.7))]
    decoded = [read_audio(path).shape[1] for path in paths]
    monkeypatch.setattr("mmrnn.data.audio._decode", lambda *_: pytest.fail("a clip was decoded"))
    counted = [AudioFile(path).size() for path in paths]
    assert all(
        channels == 1 and 0 <= count - real <= (rate != 16_000)
        for (channels, count), real in zip(counted, decoded, strict=True)
    )


def test_clips_whose_header_is_not_exact_are_decoded(tmp_path):
    import av

    path = tmp_path / "a.aac"
    with av.open(str(path), "w", format="adts") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        silence = av.AudioFrame.from_ndarray(torch.zeros(1, 16_000).numpy(), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        file.mux(stream.encode(silence))
        file.mux(stream.encode(None))
    assert count_samples(path) == read_audio(path).shape[1]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build(compose("model=visualrwkv6_tiny", "modalities=audio_tiny", "backbone=mamba_tiny"))


@pytest.fixture
def records(tmp_path):
    """Two clips of different lengths, an image without one, and a clip that is not there."""
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    write(tmp_path / "low.wav", 0.1, pitch=200)
    write(tmp_path / "high.wav", 0.2, pitch=900)

    def talk(question, answer, **files):
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        return {"id": answer, "conversations": turns, **files}

    given = [
        talk("<audio> which pitch?", "low", audio="low.wav"),
        talk("<audio> or <audio>?", "both", audio=["high.wav", "low.wav"]),
        talk("<image> which colour?", "red", image="red.png"),
        talk("<audio> which pitch?", "gone", audio="gone.wav"),
        talk("no tag", "no tag", audio="low.wav"),
        talk("<audio> outside", "outside", audio="../low.wav"),
    ]
    (tmp_path / "data.json").write_text(json.dumps(given))
    return LLaVAJson(file=str(tmp_path / "data.json"))


def test_records_train(model, records, caplog):
    """Clips fill slots by their length; a clip that is not there drops its sample and no other."""
    assert [id for id, _ in records.skipped] == ["no tag", "outside"]
    assert records.skipped[0][1] == "tags and audios differ in number (0 tags <audio> for 1 audios)"
    collate = Collator(DemoTokenizer(), RWKVChat(), dict(model.modalities))
    samples = [records[index] for index in range(len(records))]
    batch = collate(samples)
    assert [collate.length(sample) for sample in samples] == [
        *(len(collate.prepare(sample).row.ids) for sample in samples[:3]),
        0,
    ]
    assert [(sample.id, sample.reason) for sample in collate.dropped] == [("gone", "an audio file cannot be read")]
    slots = [(span.sample, span.modality, span.layout.tokens) for span in batch.sequence.image_spans]
    # 100 ms are 5 tokens of the encoder, 200 ms are 10; the convolution of stride 2 leaves 4 and 6.
    assert [slot for slot in slots if slot[1] == "audio"] == [(0, "audio", 4), (1, "audio", 6), (1, "audio", 4)]
    output = model(batch)
    logits = model.head(output.hidden)
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.sequence.labels[:, 1:].flatten()).backward()
    audio = model.modalities["audio"]
    assert all(parameter.grad.isfinite().all() for parameter in audio.parameters())
    assert any(parameter.grad.any() for parameter in audio.encoder.parameters())


def test_a_clip_that_is_too_long_is_dropped_or_refused(model, tmp_path):
    clip = AudioFile(write(tmp_path / "long.wav", 1.5))
    sample = Sample((Turn("user", "<audio>?"), Turn("assistant", "a")), id="long", observations={"audio": (clip,)})
    collate = Collator(DemoTokenizer(), RWKVChat(), dict(model.modalities))
    assert collate([sample]) is None
    assert "a clip of 1.50 s does not fit: this encoder reads more than 0 and up to 1 s" in collate.dropped[0].detail
    with pytest.raises(ValueError, match=r"long\.wav: a clip of 1\.50 s does not fit"):
        Collator(DemoTokenizer(), RWKVChat(), dict(model.modalities), for_generation=True)([sample])


@torch.no_grad()
def test_a_question_about_a_clip(model, tmp_path):
    assistant = Assistant(model.eval(), DemoTokenizer(), RWKVChat())
    clip = read_audio(write(tmp_path / "a.wav"))
    reply = assistant.ask([], "<audio> which pitch?", observations={"audio": (clip,)}, max_new_tokens=2)
    assert isinstance(reply, str)
    with pytest.raises(ValueError, match="1 tags <audio> for 2 observations"):
        assistant.ask([], "<audio> which pitch?", observations={"audio": (clip, clip)}, max_new_tokens=2)
