"""Files of conversations: what they hold, and hostile ones."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmrnn.inference import conversation_file
from tests.inference.scripted import IMAGE, OTHER, assistant


@pytest.fixture(scope="module")
def used():
    return assistant("visualrwkv6_tiny", "prompt=first")


@pytest.fixture
def file(used, tmp_path):
    """File of a conversation of two questions about one image."""
    chat = used.chat(system="Be brief.", max_marks=2)
    chat.ask("what is it?", IMAGE, max_new_tokens=4)
    chat.ask("why?", max_new_tokens=4)
    chat.save(tmp_path / "chat")
    return tmp_path / "chat"


def parts(file):
    with safe_open(str(file), "pt") as opened:
        known = opened.metadata()
    return load_file(file), known


def changed(file, **facts):
    """File with other facts about the conversation."""
    tensors, known = parts(file)
    known["conversation"] = json.dumps({**json.loads(known["conversation"]), **facts})
    save_file(tensors, str(file), known)


def test_a_conversation_is_read_as_it_was_written(used, file):
    chat = used.resume(file)
    assert (chat.system, chat.reread, chat.max_marks) == ("Be brief.", False, 2)
    assert [turn.role for turn in chat.turns] == ["user", "assistant"] * 2
    [mark] = chat.marks
    assert mark.exchanges == 2
    # Undone turns are read anew, with the image of the file.
    fresh = used.chat(system="Be brief.")
    fresh.ask("what is it?", IMAGE, max_new_tokens=4)
    chat.undo()
    assert chat.marks == ()
    assert chat.ask("why?", max_new_tokens=4) == fresh.ask("why?", max_new_tokens=4)
    assert chat.ask("and that?", OTHER, max_new_tokens=4) == fresh.ask("and that?", OTHER, max_new_tokens=4)


def test_an_empty_conversation_is_a_file(used, tmp_path):
    used.chat(reread=True).save(tmp_path / "chat")
    chat = used.resume(tmp_path / "chat")
    assert (chat.turns, chat.state, chat.reread) == ((), None, True)
    assert chat.ask("what?", max_new_tokens=3) == used.ask(None, "what?", max_new_tokens=3)


def test_a_file_without_a_conversation_is_refused(used, file, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of a conversation"):
        used.resume(tmp_path / "none")
    used.save_state(used.resume(file).state, tmp_path / "state")
    with pytest.raises(ValueError, match="holds a state, but no conversation"):
        used.resume(tmp_path / "state")
    (tmp_path / "text").write_text("{}" * 20)
    with pytest.raises(ValueError, match=r"its header has \d+ bytes, more than"):
        used.resume(tmp_path / "text")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or not a state file"):
        used.resume(tmp_path / "cut")


def test_a_file_of_another_model_is_refused(file):
    with pytest.raises(ValueError, match="was made with weights"):
        assistant("visualrwkv7_tiny", "prompt=first").resume(file)


EXCHANGE = ["<image>\nwhat?", "a cat", ["image"]]
HOSTILE = {
    "exchanges is 'x'": {"exchanges": "x"},
    "system is 3": {"system": 3},
    "an exchange is ['a', 'b']": {"exchanges": [["a", "b"]]},
    "an exchange is ['a', '', []]": {"exchanges": [["a", "", []]]},
    "an exchange is 7": {"exchanges": [7]},
    "the model has no modality 'x'": {"exchanges": [["a", "b", ["x"]]]},
    "the model has no modality ['image']": {"exchanges": [["a", "b", [["image"]]]]},
    "it holds 1 inputs for 0": {"exchanges": [["a", "b", []]], "marks": []},
    "it holds 1 inputs for 2": {"exchanges": [EXCHANGE, EXCHANGE]},
    "its marks are [7]": {"marks": [7]},
    "its marks are [[1, 2, 3]]": {"marks": [[1, 2, 3]]},
    "behind question 9": {"marks": [[9, 4, "ab"]]},
    "behind question 0": {"marks": [[0, 4, "ab"]]},
    "its metadata is no conversation": {"more": 1},
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_facts_are_refused(used, file, message):
    changed(file, **HOSTILE[message])
    with pytest.raises(ValueError, match=f"is damaged: .*{re.escape(message)}"):
        used.resume(file)


@pytest.mark.parametrize("text", ["", "[" * 10_000, "null", "{}"])
def test_what_is_no_conversation_is_refused(used, file, text):
    tensors, known = parts(file)
    save_file(tensors, str(file), {**known, "conversation": text})
    with pytest.raises(ValueError, match="its metadata is no conversation"):
        used.resume(file)


IMAGES = {
    "of another size": torch.zeros(3, 64, 64),
    "of two axes": torch.zeros(3, 32),
    "of bytes": torch.zeros(3, 32, 32, dtype=torch.uint8),
    "not finite": torch.full((3, 32, 32), torch.nan),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_hostile_image_is_refused(used, file, name):
    tensors, known = parts(file)
    save_file({**tensors, "extra.0": IMAGES[name]}, str(file), known)
    with pytest.raises(ValueError, match="are no input of the modality image"):
        used.resume(file)


def test_a_state_of_other_rows_is_refused(used, file):
    tensors, known = parts(file)
    tensors = {name: value if name == "extra.0" else torch.cat([value, value]) for name, value in tensors.items()}
    save_file(tensors, str(file), known)
    with pytest.raises(ValueError, match="its state has 2 rows"):
        used.resume(file)


def test_a_state_of_other_texts_is_not_continued(used, file):
    """The texts are what counts: a state that does not belong to them is left aside."""
    content = json.loads(parts(file)[1]["conversation"])
    changed(file, exchanges=[["<image>\nwho?", *content["exchanges"][0][1:]], content["exchanges"][1]])
    chat, fresh = used.resume(file), used.resume(file)
    fresh.marks = ()
    assert chat.ask("so?", max_new_tokens=4) == fresh.ask("so?", max_new_tokens=4)


@pytest.mark.parametrize("name", ["fuyu_tiny", "eve_tiny", "palm_e_tiny"])
def test_images_of_any_size_are_checked(name, tmp_path):
    used = assistant(name)
    chat = used.chat()
    chat.ask("what?", IMAGE, max_new_tokens=2)
    chat.save(tmp_path / "chat")
    assert used.resume(tmp_path / "chat").ask("so?", max_new_tokens=3) == chat.ask("so?", max_new_tokens=3)
    tensors, known = parts(tmp_path / "chat")
    save_file({**tensors, "extra.0": torch.zeros(3, 5, 5000)}, str(tmp_path / "chat"), known)
    with pytest.raises(ValueError, match="are no input of the modality image"):
        used.resume(tmp_path / "chat")


def test_too_many_words_are_refused(used, tmp_path, monkeypatch):
    monkeypatch.setattr(conversation_file, "MAX_HEADER", 400)
    chat = used.chat()
    chat.ask("why? " * 40, max_new_tokens=2)
    with pytest.raises(ValueError, match="bytes of text are too many for a file, which takes 200"):
        chat.save(tmp_path / "chat")
    assert not (tmp_path / "chat").exists()
