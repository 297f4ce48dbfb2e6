"""Observations: inputs of modalities other than images, as numbers, such as the state of objects for PaLM-E."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mmrnn.types.sample import Turn

IMAGE_TAGS = ("image", "video")
"""Tags that are no observations."""

LARGEST = torch.finfo(torch.float32).max


def parse_observations(given: Any, turns: Iterable[Turn]) -> dict[str, tuple[Tensor, ...]]:
    """Return the observations of a record (`objects features` each) by the name of the modality.

    Args:
        given: by the name of the modality a matrix, or a list of them, one for each `<name>` of the user turns:
            `{"state": [[0.1, 0.2], [0.3, 0.4]]}` are two objects with two features. None: no observations.
        turns: of the dialogue.

    Raises:
        ValueError: the observations are not of this form, or their number is not that of the tags.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError('observations must be an object: {"state": [[0.1, 0.2], [0.3, 0.4]]}')
    text = "".join(turn.text for turn in turns if turn.role == "user")
    found = {}
    for name, numbers in given.items():
        if not re.fullmatch(r"\w+", name) or name in IMAGE_TAGS:
            raise ValueError(f"observations: {name!r} is no name of a modality such as 'state'")
        found[name] = _matrices(name, numbers)
        if (tags := text.count(f"<{name}>")) != len(found[name]):
            raise ValueError(f"{tags} tags <{name}> for {len(found[name])} observations")
    return found


def _matrices(name: str, numbers: Any) -> tuple[Tensor, ...]:
    is_list = isinstance(numbers, list) and numbers and isinstance(numbers[0], list) and _is_matrix(numbers[0])
    matrices = numbers if is_list else [numbers]
    if not all(map(_is_matrix, matrices)):
        raise ValueError(f"observations: {name} must be a matrix of finite numbers, a row for every object")
    return tuple(torch.tensor(matrix, dtype=torch.float32) for matrix in matrices)


def _is_matrix(value: Any) -> bool:
    if not (isinstance(value, list) and value and all(isinstance(row, list) and row for row in value)):
        return False
    numbers = [number for row in value for number in row]
    finite = all(type(number) in (int, float) and abs(number) <= LARGEST for number in numbers)
    return finite and len({len(row) for row in value}) == 1
