"""Replies to a batch in which images may be broken."""

from collections.abc import Sequence
from typing import Any

from mmrnn.data.image import ImageError
from mmrnn.inference.assistant import Assistant
from mmrnn.types import Sample


def replies(assistant: Assistant, samples: Sequence[Sample], **options: Any) -> list[str | ImageError]:
    """Return the reply to every sample, or why its image cannot be opened.

    Where an image cannot be opened, the halves of the batch are asked, down to the sample at fault.

    Args:
        assistant: that replies.
        samples: asked as one batch.
        options: of `Assistant.answer`.
    """
    try:
        return [*assistant.answer(samples, **options)]
    except ImageError as fault:
        if len(samples) == 1:
            return [fault]
    middle = len(samples) // 2
    return [reply for half in (samples[:middle], samples[middle:]) for reply in replies(assistant, half, **options)]
