"""Limits of the server."""

from dataclasses import dataclass, fields

MAX_MESSAGES = 1024
"""Messages of a request."""

MAX_CHARS_PER_TOKEN = 16
"""Characters of a request for each token that a prompt may have: longer texts are not even tokenised."""

MAX_STOPS, MAX_STOP_CHARS = 16, 200
"""Stop strings of a request, and characters of each."""

MAX_TOP_LOGPROBS = 20
"""Most likely tokens in each place of a reply."""


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Args:
        max_prompt_tokens: of the whole dialogue, visual tokens included.
        max_new_tokens: of the reply; also the limit of requests that name none.
        max_images: of the whole dialogue.
        max_pixels: of each image.
        max_body_bytes: of the request.
        client_seconds: in which the body must have arrived, and in which each part of a reply must have been taken.

    Raises:
        ValueError: a limit is 0 or less.
    """

    max_prompt_tokens: int = 8192
    max_new_tokens: int = 1024
    max_images: int = 8
    max_pixels: int = 16_000_000
    max_body_bytes: int = 2**24
    client_seconds: float = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := vars(self)[field.name]) <= 0:
                raise ValueError(f"{field.name} ({value}) must be above 0")
