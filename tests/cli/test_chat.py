"""`mmrnn chat`: questions and commands, line by line."""

import io
import sys

import pytest

from mmrnn.checkpoints.save import save
from mmrnn.cli.main import main
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.inference.conversation import Conversation
from mmrnn.inference.load import load
from tests.inference.scripted import IMAGE, OTHER, assistant


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    cfg = plain(compose("model=visualrwkv6_tiny", "prompt=first", "out=null"))
    save(assistant("visualrwkv6_tiny", "prompt=first").model, folder, config=cfg)
    return str(folder)


@pytest.fixture
def talk(run, tmp_path, monkeypatch, capsys):
    """Run the verb on lines of stdin, in a folder with two images."""
    monkeypatch.chdir(tmp_path)
    IMAGE.save("one.png")
    OTHER.save("an other.png")

    def give(*lines, options=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
        code = main(["chat", run, "--max-new-tokens", "4", *options])
        out, err = capsys.readouterr()
        return code, out, err

    return give


def replies(run, *turns, **options):
    chat = load(run).chat(**options)
    return [chat.ask(question, *images, max_new_tokens=4) for question, *images in turns]


def test_questions_and_images(talk, run):
    expected = replies(run, ("what?", IMAGE), ("why?",), ("and /these?", OTHER, IMAGE))
    code, out, err = talk(
        "/image one.png", "what?", "", "why?", "/image an other.png", "/image one.png", "and /these?", "/quit", "no"
    )
    assert (code, err) == (0, "")
    assert out == "".join(f"{reply}\n" for reply in expected)


def test_a_video(talk, run, tmp_path):
    (tmp_path / "a film").mkdir()
    for name, image in (("1.png", IMAGE), ("2.png", OTHER), ("10.png", IMAGE)):
        image.save(tmp_path / "a film" / name)
    first, second = replies(run, ("<image><image><image>\nwhat?", IMAGE, OTHER, IMAGE), ("why?",))
    code, out, err = talk("who?", "/video a film", "what?", "why?", "/undo 2", "what?")
    assert (code, err) == (0, "")
    assert out.endswith(f"\nframes read: 3\n{first}\n{second}\n{first}\n")


def test_a_video_is_stopped(talk, run, monkeypatch):
    def interrupted(path, fps):
        yield IMAGE
        raise KeyboardInterrupt

    monkeypatch.setattr("mmrnn.data.video.video_frames", interrupted)
    code, out, err = talk("/video film.mp4 2", "what?")
    assert (code, err) == (0, "\nmmrnn: stopped; questions are about the frames so far\n")
    assert out == f"frames read: 1\n{replies(run, ('what?', IMAGE))[0]}\n"


def test_a_slash_is_escaped(talk, run):
    [expected] = replies(run, ("/what?",))
    assert talk("//what?") == (0, f"{expected}\n", "")


def test_undo_takes_back(talk, run):
    first, second, third = replies(run, ("what?",), ("why?",), ("how?",))
    code, out, err = talk("what?", "why?", "/undo", "why?", "how?", "/undo 2", "why?", "/undo 7")
    assert code == 0
    assert out.splitlines() == "\n".join([first, second, second, third, second]).splitlines()
    assert err == "mmrnn: the conversation has 2 questions, so 7 cannot be undone\n"


def test_a_conversation_is_saved_and_loaded(talk, run):
    first, second = replies(run, ("what?", IMAGE), ("why?",))
    talk("/image one.png", "what?", "/save here/chat")
    code, out, err = talk("who?", "/load here/chat", "why?")
    assert (code, err) == (0, "")
    assert out.endswith(f"> <image>\nwhat?\n{first}\n{second}\n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/imgae one.png", "/imgae: no such command; did you mean 'image'?"),
        ("/", "/: no such command; there are /image, /video, /undo, /save, /load, /quit"),
        ("/image", "/image: name a file: /image FILE"),
        ("/image none.png", "none.png is not there"),
        ("/video", "/video: name a file: /video FILE"),
        ("/video none.mp4", "none.mp4 is not there"),
        ("/video one.png 2", "one.png has frames without times; leave out fps (2)"),
        ("/undo x", "/undo x: expected a number of questions"),
        ("/load none", "there is no file of a conversation none"),
        ("/load one.png", "one.png is damaged or no conversation"),
        ("/save .", ". is a folder; name a file in it"),
        ("<image> what?", "the question has 1 <image> for 0 images"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_conversation_continues(talk, run, line, sentence):
    code, out, err = talk(line, "what?")
    assert code == 0
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert out == f"{replies(run, ('what?',))[0]}\n"


def test_a_reply_is_stopped(talk, run, monkeypatch):
    say, asked = Conversation.say, []

    def interrupted(self, question, *images, **options):
        asked.append(question)
        stream = say(self, question, *images, **options)
        yield next(stream)
        if len(asked) == 2:
            raise KeyboardInterrupt
        yield from stream

    monkeypatch.setattr(Conversation, "say", interrupted)
    code, _, err = talk("what?", "why?", "/save chat", "why?")
    assert code == 0
    assert "mmrnn: stopped; the question is taken back" in err
    assert [turn.text for turn in load(run).resume("chat").turns[::2]] == ["what?"]


def test_an_empty_reply_is_named(talk, monkeypatch):
    monkeypatch.setattr(Conversation, "say", lambda *_, **__: iter([""]))
    assert talk("what?") == (0, "\n", "mmrnn: the reply is empty; the question is taken back\n")


def test_settings(talk, run):
    [expected] = replies(run, ("what?",), system="Be brief.")
    assert talk("what?", options=["--system", "Be brief.", "--reread"])[1] == f"{expected}\n"
    drawn = ["--temperature", "1.5", "--seed", "3"]
    assert talk("what?", options=drawn) == talk("what?", options=drawn)
    code, _, err = talk("what?", options=["--seed", "3"])
    assert (code, "--seed has no effect at temperature 0" in err) == (2, True)


def test_a_terminal_is_asked_for_lines(run, monkeypatch, capsys):
    given = iter(["what?"])

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def read(prompt):
        print(prompt, end="")
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)
    assert main(["chat", run, "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out == f"> {replies(run, ('what?',))[0]}\n> \n"
