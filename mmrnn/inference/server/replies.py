"""Objects of OpenAI's schema that replies are sent in."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmrnn.inference.reply import Token
from mmrnn.types import Tokenizer

LEAST_LOG_PROB = -9999.0
"""Stands for minus infinity, which JSON does not have, as in OpenAI's API."""


@dataclass(frozen=True)
class ReplyObjects:
    """Maker of the objects of one reply.

    Args:
        model: name of the model.
        tokenizer: of the reply.
        log_probs: log-probabilities are sent.
    """

    model: str
    tokenizer: Tokenizer
    log_probs: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, tokens: Sequence[Token], reason: str, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return a whole reply."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": self._log_probs(tokens)}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage}

    def chunk(
        self, delta: Mapping[str, str], tokens: Sequence[Token] = (), reason: str | None = None
    ) -> dict[str, Any]:
        """Return a part of a reply that is streamed."""
        log_probs = self._log_probs(tokens) if tokens else None
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": log_probs}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def usage_chunk(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a stream that holds the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _log_probs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.log_probs:
            return None
        return {
            "content": [
                {
                    **self._log_prob(token.id, token.log_prob),
                    "top_logprobs": [self._log_prob(id, value) for id, value in token.top],
                }
                for token in tokens
            ]
        }

    def _log_prob(self, id: int, value: float) -> dict[str, Any]:
        text = self.tokenizer.decode([id])
        # A part of a character has no text of its own, and its bytes are not known.
        known = None if "\ufffd" in text else [*text.encode()]
        return {"token": text, "logprob": max(value, LEAST_LOG_PROB), "bytes": known}


def usage(prompt: int, cached: int, reply: int) -> dict[str, Any]:
    """Return the usage of a request: positions of the prompt, those of a kept state among them, and of the reply."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": reply,
        "total_tokens": prompt + reply,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
