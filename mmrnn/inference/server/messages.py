"""Messages of OpenAI's chat API as a dialogue with its images."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from mmrnn.data.image import InMemoryImage
from mmrnn.data.readers.dialogue import parse_dialogue
from mmrnn.inference.server.limits import MAX_CHARS_PER_TOKEN, Limits
from mmrnn.types import TAG, Sample, Turn

KEYS = ("role", "content", "tool_calls", "function_call")
"""Keys of a message that are read; a call of a tool is refused."""

REPLY = {"role": "assistant", "content": "."}
"""Stands for the reply to come, because a record without one is refused."""


def parse_messages(messages: Sequence[Mapping[str, Any]], limits: Limits) -> Sample:
    """Return the dialogue of the messages of a request, which ends with a question of the user.

    An image is given in the request itself, as a data URI; no address is ever fetched.

    Raises:
        ValueError: a message is invalid, an image is none, or a limit is exceeded.
    """
    roles = [message.get("role") for message in messages]
    spoken = [role for role in roles if role not in ("system", "developer")]
    if not spoken or spoken[-1] != "user" or roles[-1] != "user":
        raise ValueError("the last message must be the user's")
    if spoken[0] == "assistant":
        raise ValueError("the first message, after that of the system, must be the user's")
    given = [{key: message[key] for key in KEYS if key in message} for message in messages]
    found = parse_dialogue({"messages": [*given, REPLY]})
    if found.videos:
        raise ValueError("videos are not read; send some of their frames as images")
    size, allowed = sum(len(turn.text) for turn in found.turns), MAX_CHARS_PER_TOKEN * limits.max_prompt_tokens
    if size > allowed:
        raise ValueError(f"the messages have {size} characters; {allowed} are allowed")
    tags = sum(turn.text.count(TAG) for turn in found.turns if turn.role == "user")
    if tags > len(found.images):
        raise ValueError(
            f"the texts have {tags} tags {TAG} for {len(found.images)} images; write images as parts alone"
        )
    if len(found.images) > limits.max_images:
        raise ValueError(f"the messages have {len(found.images)} images; this server allows {limits.max_images}")
    images = (
        InMemoryImage(decode_data_uri(uri, f"image {number}"), max_pixels=limits.max_pixels)
        for number, uri in enumerate(found.images, 1)
    )
    return Sample((*found.turns[:-1], Turn("assistant", "")), tuple(images))


def decode_data_uri(uri: str, name: str) -> bytes:
    """Return the content of a data URI in base64.

    Args:
        uri: of any media type.
        name: for messages.

    Raises:
        ValueError: it is no data URI in base64.
    """
    form = "send it in the request, as data:image/png;base64,..."
    if uri[:5].lower() != "data:":
        raise ValueError(f"{name} is {uri!r:.60}, and no address is fetched; {form}")
    head, comma, data = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError(f"{name} is a data URI without base64; {form}")
    try:
        return b64decode(data, validate=True)
    except ValueError as error:
        raise ValueError(f"{name} is broken base64: {error}") from None
