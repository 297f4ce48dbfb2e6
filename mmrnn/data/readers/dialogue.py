"""Dialogues of records in the forms that projects write: LLaVA, ShareGPT, LLaMA-Factory and OpenAI's messages."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from mmrnn.io.errors import RecordError
from mmrnn.io.records.json_files import kind_of
from mmrnn.types.sample import TAG, Turn

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
"""Roles that records name, and ours."""

VIDEO_TAG, AUDIO_TAG = "<video>", "<audio>"

TAGS = {"image": TAG, "video": VIDEO_TAG, "audio": AUDIO_TAG}

PARTS = {
    "text": "text",
    "input_text": "text",
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "video_url": "video",
    "video": "video",
}
"""Types of the parts of a message, and what they hold."""

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
"""Keys of a record that name its files."""

UNREAD = re.compile(r"image|img|pict|photo|video", re.IGNORECASE)
"""Keys of a record that seem to name files; they are not read."""


@dataclass
class Dialogue:
    """Turns of a record, and the names of its files.

    Attributes:
        turns: a system turn if there is one, then user and assistant alternately; every image has a tag.
        images: names, in the order of their tags.
        videos: likewise.
        audios: likewise.
        notes: reasons for which parts of the record are left out.
    """

    turns: tuple[Turn, ...] = ()
    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    audios: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def parse_dialogue(record: Any) -> Dialogue:
    """Read the turns and the names of the files of a record.

    Raises:
        RecordError: the record is invalid.
    """
    if not isinstance(record, dict):
        raise RecordError("a record must be an object", kind_of(record))
    messages = [_message(turn, index) for index, turn in enumerate(_turns(record), 1)]
    found = Dialogue()
    system = _system(record, messages)
    if messages and messages[0].role == "assistant":  # as LLaVA's v1 and Llama-2 forms do
        del messages[0]
        found.notes.append("the assistant begins: this turn is left out")
    _check_order(messages)
    found.turns = (*system, *(Turn(message.role, message.text) for message in messages))
    found.images = _names(record, "image", messages)
    found.videos = _names(record, "video", messages)
    found.audios = _names(record, "audio", messages)
    _check_tags(record, found)
    return found


@dataclass
class _Message:
    """A turn: its number in the record, text with tags, and the files of its parts (type, name or None)."""

    number: int
    role: Literal["user", "assistant", "system"]
    text: str
    files: list[tuple[str, Any]]


def _turns(record: dict[str, Any]) -> list[Any]:
    given = [record[key] for key in ("conversations", "messages") if record.get(key) is not None]
    if len(given) == 2:
        raise RecordError("a record must not have both conversations and messages")
    if not given or not isinstance(given[0], list) or not given[0]:
        raise RecordError("conversations must be a list of turns")
    return given[0]


def _message(turn: Any, number: int) -> _Message:
    if not isinstance(turn, dict):
        raise RecordError("a turn must be an object", f"turn {number}: {kind_of(turn)}")
    role = turn.get("from", turn.get("role"))
    if not isinstance(role, str) or role not in ROLES:
        raise RecordError(f"a turn must be from one of {', '.join(ROLES)}", f"turn {number}: {role!r:.50}")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise RecordError("a turn calls a tool", f"turn {number}")
    if ROLES[role] == "assistant" and turn.get("weight", 1) == 0:
        raise RecordError("a reply is not to be trained on: its weight is 0", f"turn {number}")
    content = turn.get("value", turn.get("content"))
    text, files = _parts(content, number) if isinstance(content, list) else (content, [])
    if not isinstance(text, str):
        raise RecordError("the text of a turn must be text", f"turn {number}: {kind_of(text)}")
    check_characters(text, f"turn {number}")
    if ROLES[role] != "user" and files:
        raise RecordError("an image or video belongs to a turn of the user", f"turn {number}")
    if ROLES[role] == "assistant" and not text.strip():
        raise RecordError("a reply is empty", f"turn {number}")
    return _Message(number, ROLES[role], text, files)


def _parts(parts: list[Any], number: int) -> tuple[str, list[tuple[str, Any]]]:
    """Text of a message in parts, a line for each, and its files."""
    lines, files, tagged = [], [], False
    for part in parts:
        type_ = part.get("type") if isinstance(part, dict) else None
        kind = PARTS.get(type_) if isinstance(type_, str) else None
        if kind is None:
            raise RecordError("a part of a turn must be text, an image or a video", f"turn {number}: {type_!r:.50}")
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise RecordError("the text of a turn must be text", f"turn {number}: {kind_of(part.get('text'))}")
            lines.append(part["text"])
            tagged = tagged or any(tag in part["text"] for tag in TAGS.values())
            continue
        name = next((part[key] for key in (type_, "image_url", kind, "path", "url") if part.get(key) is not None), None)
        files.append((kind, name.get("url") if isinstance(name, dict) else name))
        lines.append(TAGS[kind])
    if files and tagged:
        raise RecordError("a text beside an image in parts holds a tag", f"turn {number}")
    return "\n".join(lines), files


def _system(record: dict[str, Any], messages: list[_Message]) -> list[Turn]:
    """System turn of a record; that of its messages is taken out of them."""
    text = record.get("system")
    if text is not None and not isinstance(text, str):
        raise RecordError("system must be text", kind_of(text))
    given = [text] if text and text.strip() else []
    if messages and messages[0].role == "system":
        given.append(messages.pop(0).text)
    if len(given) > 1:
        raise RecordError("a record must not have two system messages")
    for text in given:
        check_characters(text, "system")
        if any(tag in text for tag in TAGS.values()):
            raise RecordError("a system message holds a tag")
    return [Turn("system", text) for text in given if text.strip()]


def _check_order(messages: list[_Message]) -> None:
    for index, message in enumerate(messages):
        if message.role == "system":
            raise RecordError("a system message must come first", f"turn {message.number}")
        if message.role != ("user", "assistant")[index % 2]:
            raise RecordError("user and assistant must alternate", f"turn {message.number} is the {message.role}'s")
    if len(messages) < 2:
        raise RecordError("there is no reply to train on")


def _names(record: dict[str, Any], kind: str, messages: list[_Message]) -> list[str]:
    """Names of the files of one kind: of the record, or of the parts of its messages."""
    given = [record[key] for key in (kind, f"{kind}s") if record.get(key) is not None]
    if len(given) == 2:
        raise RecordError(f"a record must not have both {kind} and {kind}s")
    names = [] if not given else given[0] if isinstance(given[0], list) else given
    parts = [name for message in messages for type_, name in message.files if type_ == kind]
    if parts:
        unnamed = iter(names)
        names = [name if name is not None else next(unnamed, None) for name in parts]
        if None in names or next(unnamed, None) is not None:
            raise RecordError(f"parts and {kind}s differ in number")
    return [file_name(name, kind) for name in names]


def _check_tags(record: dict[str, Any], found: Dialogue) -> None:
    """Raise where a tag would be read as a word, or a file would not be shown."""
    counts = {
        kind: [turn.text.count(tag) for turn in found.turns if turn.role == "user" and tag in turn.text]
        for kind, tag in TAGS.items()
    }
    for kind, names in (("image", found.images), ("video", found.videos), ("audio", found.audios)):
        tags = sum(counts[kind])
        if tags and not names and (named := _unread_keys(record)):
            raise RecordError(f"a tag {TAGS[kind]} and no {kind}: {named} is not read; its name must be {kind}")
        empty = any(record.get(key) == [] for key in (kind, f"{kind}s"))
        if names and kind == "image" and len(names) == 1 and not found.videos:
            if len(counts[kind]) > 1:
                raise RecordError("one image is tagged in several turns", f"{len(counts[kind])} turns")
            if not tags:
                found.notes.append(f"an image without a tag {TAG} is not shown")
        elif tags != len(names) and (names or empty or (kind == "image" and found.videos)):
            raise RecordError(
                f"tags and {kind}s differ in number", f"{tags} tags {TAGS[kind]} for {len(names)} {kind}s"
            )


def _unread_keys(record: dict[str, Any]) -> str:
    return ", ".join(key for key in record if key not in MEDIA and UNREAD.search(key) and record[key])


def file_name(name: Any, kind: str) -> str:
    """Return the name of a file in a record.

    Args:
        name: of the file.
        kind: of the file, such as `image`, for the message.

    Raises:
        RecordError: it is no text, empty, or cannot be encoded.
    """
    if not isinstance(name, str) or not name:
        raise RecordError(f"{kind} must be the name of a file", kind_of(name))
    check_characters(name, kind)
    return name


def check_characters(text: str, where: str) -> None:
    """Raise `RecordError` where a text cannot be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecordError("half a character (a lone surrogate)", where) from None
