"""Streams of frames: replies equal those to one reading of all frames, and the state of an RNN does not grow."""

from functools import partial

import pytest
import torch
from PIL import Image

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.inference.assistant import Assistant
from mmrnn.io.process_memory import resident_bytes
from tests.inference.scripted import Positions, Script, assistant

assert_close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)
FRAMES = [Image.linear_gradient("L").resize((30, 20)).rotate(40 * number) for number in range(4)]
QUESTION = "what happens?"
RECURRENT = ("flamingo_rwkv_tiny", "visualrwkv5_tiny", "visualrwkv6_tiny", "visualrwkv7_tiny", "visualrwkv_hd_tiny")
GROWING = ("visualrwkv5_hybrid_tiny", "llava_tiny", "flamingo_tiny", "cogvlm_tiny")
REFUSED = {
    "last": "writes the question before",
    "plain": "writes no question behind",
    "sandwich": "writes the question before",
}


def whole_question(frames):
    """Question that shows all frames, in the form of a video."""
    return f"{'<image>' * len(frames)}\n{QUESTION}"


def first_logits(used, ask):
    """Logits of the first token of a reply."""
    with Script(used.model, [5]) as script:
        ask(max_new_tokens=1)
    return script.logits[0]


def assert_equals_whole(used, stream, frames):
    """The first token of a reply has the logits of one reading of the prompt with all frames."""
    got = first_logits(used, partial(stream.ask, QUESTION))
    assert_close(got, first_logits(used, partial(used.ask, frames, whole_question(frames))))


@pytest.fixture(scope="module")
def watcher():
    return assistant("visualrwkv6_tiny", "prompt=first")


@pytest.mark.parametrize("name", [*RECURRENT, *GROWING])
def test_every_design_sees_all_frames(name):
    used = assistant(name, "prompt=first")
    stream = used.watch(FRAMES)
    sizes = []
    for count in stream:
        sizes.append(stream.state.nbytes)
        if count in (1, 3):
            assert_equals_whole(used, stream, FRAMES[:count])
    assert_equals_whole(used, stream, FRAMES)
    assert (stream.frames, len(sizes)) == (4, 4)
    assert (len({*sizes}) == 1) == (name in RECURRENT), sizes
    assert (len(used.reader.visual) > 0) == (used.features is None), "only the whole reading keeps visual tokens"


@pytest.mark.parametrize("card", sorted(path.stem for path in (conf_dir() / "prompt").glob("*.yaml")))
def test_every_prompt_sees_all_frames_or_is_refused(watcher, card):
    cfg = plain(compose("model=visualrwkv6_tiny", f"prompt={card}", "out=null"))
    used = Assistant(watcher.model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]))
    if card in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[card]):
            used.watch()
        return
    stream = used.watch()
    stream.read(FRAMES[0])
    stream.read(*FRAMES[1:3])
    assert_equals_whole(used, stream, FRAMES[:3])


def test_neither_questions_nor_passes_disturb_the_stream(watcher):
    asked, silent, at_once = watcher.watch(FRAMES), watcher.watch(FRAMES), watcher.watch()
    for _ in asked:
        assert asked.ask(QUESTION, max_new_tokens=3) == [*asked.say(QUESTION, max_new_tokens=3)][-1]
    assert [*silent] == [1, 2, 3, 4]
    assert [*silent] == []
    at_once.read(*FRAMES)
    at_once.read()
    for key, value in silent.state.tensors.items():
        assert torch.equal(asked.state.tensors[key], value)
        assert_close(at_once.state.tensors[key], value)
    assert asked.positions == silent.positions == at_once.positions
    expected, saying = asked.ask(QUESTION, max_new_tokens=3), silent.say(QUESTION, max_new_tokens=3)
    next(saying)
    silent.read(FRAMES[0])
    assert [*saying][-1] == expected


def test_a_long_stream_holds_one_state(watcher, tmp_path):
    used = Assistant(watcher.model, watcher.tokenizer, watcher.prompt)
    stream, sizes = used.watch(), []
    for _ in range(2):
        for _ in range(30):
            stream.read(*FRAMES)
        stream.save(tmp_path / "stream")
        held = {value.untyped_storage().data_ptr(): value.untyped_storage() for value in stream.state.tensors.values()}
        sizes.append((sum(each.nbytes() for each in held.values()), (tmp_path / "stream").stat().st_size))
    assert sizes[0] == sizes[1]
    assert sizes[0][0] == used.model.backbone.state(1).nbytes
    assert (used.reader.visual.nbytes, used.reader.states.nbytes) == (0, 0)
    assert stream.frames == 240


@pytest.mark.slow
@pytest.mark.skipif(not resident_bytes(), reason="the memory of a process is known on Linux only")
def test_the_process_does_not_grow(watcher):
    stream, sizes = watcher.watch(), []
    for _ in range(5):
        for _ in range(50):
            for frame in FRAMES:
                stream.read(frame)
        stream.ask(QUESTION, max_new_tokens=3)
        sizes.append(resident_bytes())
    assert max(sizes[1:]) - sizes[0] < 2**20


def test_a_chat_about_the_frames_goes_on(watcher, tmp_path):
    stream, whole = watcher.watch(FRAMES), watcher.chat()
    assert [*stream][-1] == 4
    chat = stream.chat()
    with Positions(watcher.model) as read:
        first = chat.ask(QUESTION, max_new_tokens=5)
    assert read.count < 60
    assert first == whole.ask(whole_question(FRAMES), *FRAMES, max_new_tokens=5)
    chat.save(tmp_path / "chat")
    loaded, branch = watcher.resume(tmp_path / "chat"), chat.branch()
    second = whole.ask("and why?", max_new_tokens=5)
    assert [each.ask("and why?", max_new_tokens=5) for each in (chat, branch, loaded)] == [second] * 3
    branch.undo(2)
    assert branch.ask(QUESTION, max_new_tokens=5) == first
    with pytest.raises(ValueError, match="does not hold"):
        loaded.undo(2)
    loaded.save(tmp_path / "chat")
    loaded = watcher.resume(tmp_path / "chat")
    loaded.undo(1)
    with pytest.raises(ValueError, match="the frames of a stream are not kept"):
        loaded.ask("or why?", max_new_tokens=5)


def test_a_stream_comes_back_from_its_file(watcher, tmp_path):
    stream = watcher.watch(system="Be brief.")
    stream.read(*FRAMES[:2])
    stream.save(tmp_path / "stream")
    back = watcher.watch(FRAMES[2:], system="Be brief.", resume=tmp_path / "stream")
    assert [*back] == [3, 4]
    stream.read(*FRAMES[2:])
    assert back.positions == stream.positions
    assert back.ask(QUESTION, max_new_tokens=5) == stream.ask(QUESTION, max_new_tokens=5)
    watcher.save_state(stream.state, tmp_path / "state")
    with pytest.raises(ValueError, match="was made with prompt"):
        watcher.watch(resume=tmp_path / "stream")
    with pytest.raises(ValueError, match="does not say which prompt"):
        watcher.watch(resume=tmp_path / "state")


@pytest.mark.parametrize(
    ("card", "changed"), [("none", "norm.weight"), ("int8", "blocks.1.channel_mix.key.codes")], ids=["weights", "codes"]
)
def test_states_of_other_weights_are_refused(card, changed):
    used = assistant("visualrwkv6_tiny", "prompt=first", f"quantize={card}")
    stream = used.watch(FRAMES)
    stream.read(FRAMES[0])
    chat = stream.chat()
    with torch.no_grad():
        used.model.backbone.state_dict()[changed].mul_(2)
    with pytest.raises(ValueError, match="weights have changed since the frames were read"):
        chat.ask(QUESTION)
    with pytest.raises(ValueError, match="weights have changed since the first frame"):
        stream.read(FRAMES[1])


def test_wrong_use_is_one_sentence(watcher, tmp_path):
    stream = watcher.watch()
    for wrong in (stream.chat, partial(stream.ask, QUESTION), partial(stream.save, tmp_path / "file")):
        with pytest.raises(ValueError, match="no frame has been read"):
            wrong()
    with pytest.raises(ValueError, match=r"`mmrnn\.data\.video_frames` reads a video"):
        watcher.watch("film.mp4")
    with pytest.raises(ValueError, match="must be several images"):
        watcher.watch(FRAMES[0])
    with pytest.raises(ValueError, match="reads a prompt as a whole"):
        assistant("visualglm_tiny").watch()
    with pytest.raises(ValueError, match="MLPExpert reads the type of the token behind each image"):
        assistant("visualrwkv6_tiny", "prompt=inline", "hook=mlp_expert").watch()
    stream.read(FRAMES[0])
    with pytest.raises(ValueError, match="is a folder"):
        stream.save(tmp_path)
