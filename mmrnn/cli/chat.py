"""`mmrnn chat`: a conversation with a trained model, line by line."""

import io
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mmrnn.cli.ask import RUNS, newest
from mmrnn.cli.options import Parser, add_max_new_tokens, split_trusted, to_path
from mmrnn.cli.reply_options import add_sampling, print_stream, sampling
from mmrnn.config.coerce import did_you_mean
from mmrnn.config.error import ConfigError

if TYPE_CHECKING:
    from mmrnn.data.image import ImageLike
    from mmrnn.inference.assistant import Assistant


def parser() -> Parser:
    """Parser of `mmrnn chat`."""
    made = Parser(
        "chat",
        "[RUN] [trusted=[PACKAGE,...]] [OPTION ...]",
        """
Talk with a trained model. Each line is a question, whose reply continues the state of those before it; only what is
new is read. Lines that begin with / are commands:

  /image FILE         show an image with the next question; may be repeated
  /video FILE [FPS]   begin a conversation about a video: all of its frames, or FPS a second, read one by one
  /undo [N]           take back the last question and its reply, or the last N
  /save FILE          write the conversation to a file
  /load FILE          continue the conversation of a file
  /quit               end (or Ctrl-D)

Ctrl-C stops a video where it is, or a reply, whose question is taken back. // at the beginning of a line is / in a
question.
""",
        """
  mmrnn chat
  mmrnn chat runs/2026-01-31_12-00-00 --temperature 0.7 --top-p 0.9
  mmrnn chat --system "You answer in one sentence."
""",
    )
    made.add_argument(
        "run", nargs="?", type=to_path, metavar="RUN", help="folder of a run (default: the newest in runs/)"
    )
    add_max_new_tokens(made, 256)
    add_sampling(made)
    made.add_argument("--system", metavar="TEXT", help="system message (default: that of the prompt)")
    made.add_argument(
        "--reread",
        action="store_true",
        help="write the whole dialogue anew each time, as training does, where the prompt changes earlier text",
    )
    return made


def main(arguments: Sequence[str]) -> int:
    """Answer lines of stdin until it ends.

    Returns:
        The exit code.

    Raises:
        ConfigError: wrong usage, no finished run, or a model that generates nothing.
    """
    words, trusted = split_trusted(arguments)
    options = parser().parse(words)
    chosen = sampling(options)
    run = options.run or newest(RUNS)

    from mmrnn.inference.load import load

    try:
        assistant = load(run, trusted=trusted)
    except ValueError as fault:
        raise ConfigError(str(fault)) from fault
    session = Session(assistant, options, {"max_new_tokens": options.max_new_tokens, **chosen})
    for line in lines():
        if not session.handle(line.strip()):
            break
    return 0


def lines() -> Iterator[str]:
    """Yield the lines of stdin; on a terminal each is asked for."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import_module("readline")  # gives `input` a line that can be edited

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


class Session:
    """A conversation, the images of its next question, and the commands about both."""

    def __init__(self, assistant: "Assistant", options: Namespace, reply: dict) -> None:
        self.assistant, self.reply, self.system = assistant, reply, options.system
        self.chat = assistant.chat(system=options.system, reread=options.reread)
        self.images: list[ImageLike] = []
        self.commands: dict[str, Callable[[str], None]] = {
            "image": self.show_image,
            "video": self.watch,
            "undo": self.undo,
            "save": self.save,
            "load": self.load,
        }

    def handle(self, line: str) -> bool:
        """Answer a line or do its command; a mistake is one sentence on stderr. False: the conversation ends."""
        if not line:
            return True
        if line == "/quit":
            return False
        try:
            if line.startswith("/") and not line.startswith("//"):
                name, _, rest = line[1:].partition(" ")
                self.command(name)(rest.strip())
            else:
                self.answer(line.removeprefix("/"))
        except (ValueError, OSError, ImportError) as fault:
            print(f"mmrnn: {fault}", file=sys.stderr)
        return True

    def command(self, name: str) -> Callable[[str], None]:
        """Return a command by its name.

        Raises:
            ValueError: there is none.
        """
        if name not in self.commands:
            every = [*self.commands, "quit"]
            near = did_you_mean(name, every) or f"; there are /{', /'.join(every)}"
            raise ValueError(f"/{name}: no such command{near}")
        return self.commands[name]

    def answer(self, question: str) -> None:
        """Print the reply to a question about the images that were shown since the last one."""
        images, self.images = self.images, []
        before = len(self.chat.exchanges)
        try:
            print_stream(self.chat.say(question, *images, **self.reply))
        except KeyboardInterrupt:
            print("\nmmrnn: stopped; the question is taken back", file=sys.stderr)
            return
        if len(self.chat.exchanges) == before:
            print("mmrnn: the reply is empty; the question is taken back", file=sys.stderr)

    def show_image(self, name: str) -> None:
        """Open an image for the next question."""
        from mmrnn.data.image import open_image

        self.images.append(open_image(_file("image", name)))

    def watch(self, words: str) -> None:
        """Begin a conversation about a video, of which some frames a second are read."""
        from mmrnn.data.video import video_frames

        name, fps = re.fullmatch(r"(.*?)(?: +([0-9]{1,4}))?", words).groups()
        frames = video_frames(_file("video", name), fps=None if fps is None else int(fps))
        stream = self.assistant.watch(frames, system=self.system)
        try:
            for _ in stream:
                pass
        except KeyboardInterrupt:
            print("\nmmrnn: stopped; questions are about the frames so far", file=sys.stderr)
        self.chat, self.images = stream.chat(), []
        print(f"frames read: {stream.frames}")

    def undo(self, count: str) -> None:
        """Take back exchanges."""
        if count and not (count.isascii() and count.isdecimal() and len(count) < 9):
            raise ValueError(f"/undo {count}: expected a number of questions")
        self.chat.undo(int(count or 1))

    def save(self, name: str) -> None:
        """Write the conversation to a file."""
        self.chat.save(_file("save", name))

    def load(self, name: str) -> None:
        """Continue the conversation of a file, whose last exchange is printed."""
        self.chat = self.assistant.resume(_file("load", name))
        self.images = []
        if self.chat.exchanges:
            print(f"> {self.chat.exchanges[-1].question}\n{self.chat.exchanges[-1].reply}")


def _file(command: str, name: str) -> Path:
    if not name:
        raise ValueError(f"/{command}: name a file: /{command} FILE")
    return Path(name).expanduser()
