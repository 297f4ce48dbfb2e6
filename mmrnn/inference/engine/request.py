"""Requests for replies, and their way through the engine."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from mmrnn.inference.dialogue import DialogueRow
from mmrnn.inference.reply import Token, check_log_probs
from mmrnn.inference.sampler import Sampler, seeded_generators
from mmrnn.prompts import StopCriteria

log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """No further request is taken until one of those at hand has ended."""


class EngineClosedError(Exception):
    """The engine takes and answers no requests any more."""


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt, and the reply that is asked for.

    Args:
        row: the prompt.
        stop: where the reply ends.
        max_new_tokens: of the reply.
        sampler: choice of the next token.
        log_probs: number of most likely tokens to give with each, with log-probabilities; None: no log-probabilities.
        resume_points: positions of the prompt that other prompts are likely to begin with, in ascending order; the
            states behind them are kept.

    Raises:
        ValueError: the prompt is empty, or a number is outside its range.
    """

    row: DialogueRow
    stop: StopCriteria
    max_new_tokens: int = 64
    sampler: Sampler = field(default_factory=Sampler)
    log_probs: int | None = None
    resume_points: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.row.ids:
            raise ValueError("the prompt is empty; give at least one token")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens ({self.max_new_tokens}) must be at least 1")
        check_log_probs(self.log_probs)


class Finished(NamedTuple):
    """End of a reply.

    Attributes:
        reason: `stop`: an end id or a stop string; `length`: the limit of tokens; `error`: no reply, or none to its
            end.
        cached: positions of the prompt that were not read, because a state was kept.
        error: cause of an `error`.
    """

    reason: Literal["stop", "length", "error"]
    cached: int = 0
    error: Exception | None = None


Listener = Callable[[Token | Finished], None]
"""Called in the thread of the model with each token of a reply, and at last with its end; it must not wait."""


class Job:
    """A request on its way through the engine.

    Attributes:
        cancelled: nobody wants the reply any more; any thread may set it.
        cached: positions of the prompt that a kept state has spared.
        ids: tokens of the reply.
        generator: of its random numbers; None: none are drawn.
    """

    def __init__(self, request: GenerationRequest, listener: Listener, device: torch.device) -> None:
        self.request, self._listener = request, listener
        self.cancelled, self.cached, self._ended = False, 0, False
        self.ids: list[int] = []
        [self.generator] = seeded_generators([request.sampler], device)

    @property
    def end(self) -> Literal["stop", "length", None]:
        """Cause for which the reply has ended; None: it has not ended."""
        if self.request.stop.finished(self.ids):
            return "stop"
        return "length" if len(self.ids) >= self.request.max_new_tokens else None

    def push(self, token: Token) -> None:
        """Append a token."""
        self.ids.append(token.id)
        self._deliver(token)

    def finish(self, reason: Literal["stop", "length"]) -> None:
        """End the reply."""
        self._deliver(Finished(reason, self.cached))

    def fail(self, error: Exception) -> None:
        """End the request without a whole reply."""
        self._deliver(Finished("error", self.cached, error))

    def _deliver(self, event: Token | Finished) -> None:
        if self.cancelled or self._ended:
            return
        self._ended = isinstance(event, Finished)
        try:
            self._listener(event)
        except Exception:  # one listener must not end the replies of all others
            log.exception("a listener has failed; its request is cancelled")
            self.cancelled = True
