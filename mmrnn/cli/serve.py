"""`mmrnn serve`: answer requests of OpenAI's chat API with a trained model."""

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from mmrnn.cli.ask import RUNS, newest
from mmrnn.cli.options import Parser, add_max_new_tokens, natural, split_trusted, to_path
from mmrnn.cli.reply_options import add_sampling, sampling, whole
from mmrnn.config.error import ConfigError
from mmrnn.inference.server.limits import Limits
from mmrnn.io.malloc import tune_malloc
from mmrnn.io.optional import require

if TYPE_CHECKING:
    import socket

    from mmrnn.inference.server.run import Server

MIB = 2**20

LIMITS = Limits()
"""Limits where no option names others."""


def parser() -> Parser:
    """Parser of `mmrnn serve`."""
    made = Parser(
        "serve",
        "[RUN] [trusted=[PACKAGE,...]] [OPTION ...]",
        """
Answer requests of OpenAI's chat API (/v1/chat/completions, /v1/models, /health) with a trained model. Replies are
generated together; dialogues are continued from the states behind their earlier turns. Images are sent in the request
as data URIs; no address is ever fetched. Sampling options hold for requests that name none. Needs mmrnn[serve].
""",
        """
  mmrnn serve
  mmrnn serve runs/2026-01-31_12-00-00 --port 8001 --name kites
  mmrnn serve --page
  mmrnn serve --host 0.0.0.0 --api-key-file serve.key --max-rows 32
""",
    )
    made.add_argument(
        "run", nargs="?", type=to_path, metavar="RUN", help="folder of a run (default: the newest in runs/)"
    )
    made.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="interface to listen at")
    made.add_argument("--port", type=port, default=8000, metavar="N", help="port to listen at; 0: any that is free")
    keys = made.add_mutually_exclusive_group()
    keys.add_argument(
        "--api-key",
        type=key,
        metavar="KEY",
        help="key that requests must have (default: none); other users of this machine see it in the list of processes",
    )
    keys.add_argument(
        "--api-key-file", type=key_file, dest="api_key", metavar="FILE", help="file with the key (default: none)"
    )
    made.add_argument("--name", metavar="NAME", help="name of the model in requests (default: that of the folder)")
    made.add_argument("--page", action="store_true", help="chat page for browsers at /page (needs mmrnn[page])")
    add_max_new_tokens(made, LIMITS.max_new_tokens)
    add_sampling(made)
    batching = made.add_argument_group("batching")
    limits = made.add_argument_group("limits of a request")
    for group, name, kind, default, text in (
        (batching, "--max-rows", natural, 8, "replies that are generated at a time"),
        (batching, "--max-waiting", whole, 32, "requests beyond these that wait; further ones are refused (429)"),
        (batching, "--prefill-chunk", natural, 256, "positions of a prompt that are read between two tokens of others"),
        (batching, "--state-cache-mib", whole, 256, "memory for states of earlier dialogues; 0: none are kept"),
        (limits, "--max-prompt-tokens", natural, LIMITS.max_prompt_tokens, "tokens of a dialogue and its images"),
        (limits, "--max-images", natural, LIMITS.max_images, "images of a dialogue"),
        (limits, "--max-pixels", natural, LIMITS.max_pixels, "pixels of an image"),
        (limits, "--max-body-mib", natural, LIMITS.max_body_bytes // MIB, "size of a request"),
    ):
        group.add_argument(name, type=kind, default=default, metavar="N", help=text)
    return made


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends the process.

    Returns:
        The exit code.

    Raises:
        ConfigError: wrong usage, no finished run, a model that generates nothing, or an address that is in use.
        ImportError: fastapi or uvicorn is not installed.
    """
    words, trusted = split_trusted(arguments)
    options = parser().parse(words)
    tune_malloc()
    with open_server(options, trusted) as made:
        page = f", with a page at {made.url.removesuffix('/v1')}/page" if options.page else ""
        print(f"{made.name} is served at {made.url}{page} (Ctrl-C ends)", flush=True)
        if options.api_key is None and not is_loopback(options.host):
            print("mmrnn: other machines can use this server without a key; see --api-key-file", file=sys.stderr)
        made.server.run(sockets=[made.socket])
    return 0


class Opened(NamedTuple):
    """A server that listens, and that is not run yet.

    Attributes:
        server: of uvicorn.
        socket: that it listens at.
        name: of the model.
        url: of the API.
    """

    server: "Server"
    socket: "socket.socket"
    name: str
    url: str


@contextmanager
def open_server(options: Namespace, trusted: Collection[str] = ()) -> Iterator[Opened]:
    """Context with the server of some options; its socket and its engine are closed at the end.

    Raises:
        ConfigError: as of `main`.
        ImportError: as of `main`.
    """
    defaults = sampling(options).get("sampler")
    run = options.run or newest(RUNS)
    require("fastapi", "fastapi", wanted_by="mmrnn serve", extra="serve")
    require("uvicorn", "uvicorn", wanted_by="mmrnn serve", extra="serve")
    if options.page:
        require("gradio", "gradio", wanted_by="mmrnn serve --page", extra="page")

    from mmrnn.inference.engine.engine import Engine
    from mmrnn.inference.load import load
    from mmrnn.inference.server.app import create_app
    from mmrnn.inference.server.run import make_server, open_socket, url_of

    # Opened first, so that an address in use does not wait for a model.
    try:
        sock = open_socket(options.host, options.port)
    except (OSError, UnicodeError) as fault:
        raise ConfigError(f"--host {options.host} --port {options.port}: {fault}") from fault
    with sock:
        try:
            engine = Engine(load(run, trusted=trusted).reader, **_batching(options))
        except ValueError as fault:
            raise ConfigError(str(fault)) from fault
        with engine, TemporaryDirectory(prefix="mmrnn-uploads-") as folder:
            name = options.name or run.resolve().name
            app = create_app(
                engine,
                name,
                limits=_limits(options),
                defaults=defaults,
                api_key=options.api_key,
                uploads=Path(folder) if options.page else None,
            )
            yield Opened(make_server(app, engine.max_requests), sock, name, url_of(sock))


def port(word: str) -> int:
    """A port.

    Raises:
        ArgumentTypeError: it is none.
    """
    number = whole(word)
    if number >= 2**16:
        raise ArgumentTypeError(f"expected a port below {2**16}, got {word!r}")
    return number


def key(word: str) -> str:
    """A key that a header can hold.

    Raises:
        ArgumentTypeError: it is empty, or has other characters than letters, digits and signs of ASCII.
    """
    if not word or not all("!" <= character <= "~" for character in word):
        raise ArgumentTypeError("expected letters, digits and signs of ASCII, without spaces")
    return word


def key_file(word: str) -> str:
    """Return the key in a file, without the white space around it.

    Raises:
        ArgumentTypeError: the file cannot be read, or holds no key.
    """
    try:
        return key(to_path(word).read_text("utf-8").strip())
    except (OSError, ValueError, ArgumentTypeError) as fault:
        raise ArgumentTypeError(f"{word} holds no key: {fault}") from fault


def is_loopback(host: str) -> bool:
    """Return True where no other machine reaches an interface."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _batching(options: Namespace) -> dict[str, int]:
    """Arguments of the engine."""
    return {
        "max_rows": options.max_rows,
        "max_waiting": options.max_waiting,
        "prefill_chunk": options.prefill_chunk,
        "state_cache_bytes": options.state_cache_mib * MIB,
    }


def _limits(options: Namespace) -> Limits:
    return Limits(
        max_prompt_tokens=options.max_prompt_tokens,
        max_new_tokens=options.max_new_tokens,
        max_images=options.max_images,
        max_pixels=options.max_pixels,
        max_body_bytes=options.max_body_mib * MIB,
    )
