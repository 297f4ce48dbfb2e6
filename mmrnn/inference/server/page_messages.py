"""Messages of gradio as messages of OpenAI's chat API."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any


def to_messages(
    message: Mapping[str, Any], history: Sequence[Mapping[str, Any]], system: str | None, max_bytes: int
) -> list[dict[str, Any]]:
    """Return messages of OpenAI's chat API. Questions without a reply are left out: they were refused or stopped.

    Args:
        message: the question: `text`, and the paths of `files`.
        history: messages before, as of `gradio.ChatInterface`.
        system: message of the system; None or empty: none.
        max_bytes: of all images.

    Raises:
        ValueError: the images are larger, or not there any more.
    """
    files = [{"type": "file", "file": {"path": path}} for path in message["files"]]
    asked = {"role": "user", "content": [*files, {"type": "text", "text": message["text"]}]}
    turns = [*chain(*_answered(history)), asked]
    paths = [Path(part["file"]["path"]) for turn in turns for part in turn["content"] if part["type"] == "file"]
    try:
        if (size := sum(path.stat().st_size for path in paths)) > max_bytes:
            raise ValueError(f"the images have {size} bytes; this server allows {max_bytes}")
        messages = [{"role": turn["role"], "content": [*_parts(turn["content"])]} for turn in turns]
    except OSError:
        raise ValueError("an image is not kept any more; begin a new dialogue") from None
    return [{"role": "system", "content": system}, *messages] if system and system.strip() else messages


def _answered(history: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Questions and their replies."""
    for asked, reply in pairwise(history):
        texts = [part.get("text", "") for part in reply["content"]]
        if (asked["role"], reply["role"]) == ("user", "assistant") and "".join(texts).strip():
            yield asked, reply


def _parts(content: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for part in content:
        if part["type"] == "file":
            data = b64encode(Path(part["file"]["path"]).read_bytes()).decode()
            yield {"type": "image_url", "image_url": {"url": f"data:;base64,{data}"}}
        elif part["type"] == "text":
            yield {"type": "text", "text": part["text"]}
