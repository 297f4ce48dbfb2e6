"""Files of conversations: a state file with the texts in its metadata and the images beside the state."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmrnn.data.collate import IMAGE
from mmrnn.inference.dialogue import DialogueInput, Exchange
from mmrnn.inference.fingerprint import state_facts
from mmrnn.inference.mark import Mark
from mmrnn.inference.reader import DialogueReader
from mmrnn.io.atomic import replace_file
from mmrnn.types import ModalitySpec, State
from mmrnn.types.state import DTYPES

Settings = dict[str, str | int | None]
"""Arguments of a conversation: `system`, `reread` and `max_marks`."""

KINDS = {"system": str | None, "reread": bool, "max_marks": int, "exchanges": list, "marks": list}
"""Content of the metadata, by name."""

MAX_HEADER = 2**24
"""Most bytes of the header of a file: names of tensors and texts."""


def write_conversation(
    path: str | Path, reader: DialogueReader, settings: Settings, exchanges: Sequence[Exchange], marks: Sequence[Mark]
) -> None:
    """Write a conversation; see `Conversation.save`.

    Args:
        settings: `system`, `reread` and `max_marks`.
        marks: the newest one, or none.

    Raises:
        ValueError: the path is a folder, or the texts are too long for the header of the file.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; name a file in it")
    written = [[each.question, each.reply, [item.modality for item in each.inputs]] for each in exchanges]
    text = json.dumps({**settings, "exchanges": written, "marks": [mark[:3] for mark in marks]})
    if len(text) > MAX_HEADER // 2:
        raise ValueError(f"{len(text)} bytes of text are too many for a file, which takes {MAX_HEADER // 2}")
    inputs = [item.tensor for each in exchanges for item in each.inputs]
    extra = {str(index): tensor for index, tensor in enumerate(inputs)}
    facts = {**state_facts(reader.model, reader.tokenizer), "conversation": text}
    state = marks[0].state if marks else State(())
    replace_file(Path(path), lambda temporary: state.save(temporary, facts, extra))


def read_conversation(
    path: str | Path, reader: DialogueReader
) -> tuple[Settings, tuple[Exchange, ...], tuple[Mark, ...]]:
    """Return settings, exchanges and marks of a file that `write_conversation` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or was made with another backbone, weights, tokenizer or scan.
    """
    _check_header(Path(path))
    found = State.load_file(path, str(reader.device), state_facts(reader.model, reader.tokenizer))
    if "conversation" not in found.facts:
        raise ValueError(f"{path} holds a state, but no conversation; `Assistant.load_state` reads it")
    try:
        content = _parse(found.facts["conversation"])
        exchanges = _exchanges(reader, content.pop("exchanges"), found.extra)
        marks = tuple(Mark(*mark, found.state) for mark in content.pop("marks"))
        for mark in marks:
            if not 1 <= mark.exchanges <= len(exchanges) or mark.state.rows != 1:
                raise ValueError(f"its state has {mark.state.rows} rows, behind question {mark.exchanges}")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if marks:
        found.state.check(reader.model.state_origin, reader.model.backbone.state(0))
    return content, exchanges, marks


def _check_header(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of a conversation {path}")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER:
        raise ValueError(f"{path} is damaged or no conversation: its header has {size} bytes, more than {MAX_HEADER}")


def _parse(text: str) -> dict[str, Any]:
    """Settings, exchanges and marks, of the right types."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.keys() != KINDS.keys():
        raise ValueError("its metadata is no conversation")
    for name, kind in KINDS.items():
        if not isinstance(content[name], kind):
            raise ValueError(f"{name} is {content[name]!r:.40}")
    for each in content["exchanges"]:
        if not isinstance(each, list) or [*map(type, each)] != [str, str, list] or not each[1]:
            raise ValueError(f"an exchange is {each!r:.40}")
    for each in content["marks"]:
        if not isinstance(each, list) or [*map(type, each)] != [int, int, str] or len(content["marks"]) > 1:
            raise ValueError(f"its marks are {content['marks']!r:.40}")
    return content


def _exchanges(reader: DialogueReader, content: list, extra: Mapping[str, Tensor]) -> tuple[Exchange, ...]:
    """Exchanges with their inputs."""
    names = [name for _, _, modalities in content for name in modalities]
    if extra.keys() != {*map(str, range(len(names)))}:
        raise ValueError(f"it holds {len(extra)} inputs for {len(names)}")
    numbers = iter(range(len(names)))
    return tuple(
        Exchange(question, tuple(_input(reader, name, extra[str(next(numbers))]) for name in modalities), reply)
        for question, reply, modalities in content
    )


def _input(reader: DialogueReader, name: Any, tensor: Tensor) -> DialogueInput:
    """Input of the form that the modality is given."""
    if name not in [*reader.model.modalities]:
        raise ValueError(f"the model has no modality {name!r:.40}")
    modality = reader.model.modalities[name]
    shape = (*tensor.shape,)
    if name == IMAGE and tensor.dtype == torch.uint8 and shape == (sha256().digest_size,):
        return DialogueInput.of_stream(bytes(tensor.tolist()), modality.layout(*modality.image.size))
    if name == IMAGE and reader.features is not None:
        fits = len(shape) == 2 and shape[1] == modality.encoder.width
        layout = modality.layout(*modality.image.size)
    elif modality.image.resize == "none":
        fits, layout = len(shape) == 2, None
    else:
        fits, layout = _is_image(modality, shape), None
    if not fits or tensor.dtype not in DTYPES or not tensor.isfinite().all():
        raise ValueError(f"{' x '.join(map(str, shape))} numbers ({tensor.dtype}) are no input of the modality {name}")
    return DialogueInput.of(name, tensor.cpu(), layout or modality.layout(*shape[-2:]))


def _is_image(modality: ModalitySpec, shape: tuple[int, ...]) -> bool:
    spec = modality.image
    if len(shape) != 3 or shape[0] != 3 or 0 in shape:
        return False
    if not spec.variable_size:
        return shape[1:] == tuple(spec.size)
    sides = shape[1:]
    return all(side % spec.multiple == 0 and side < max(spec.size) + spec.multiple for side in sides)
