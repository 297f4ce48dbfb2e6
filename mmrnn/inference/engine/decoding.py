"""Rows that are decoded together: they share one state, and one forward pass gives a token to each."""

from collections.abc import Callable
from collections.abc import Sequence as Several

import torch
from torch import Tensor

from mmrnn.inference.engine.request import Job
from mmrnn.inference.reply import Token, make_tokens
from mmrnn.inference.sampler import LogitsError, choose_tokens
from mmrnn.model.vlm import VLM
from mmrnn.types import Sequence, State


class DecodingRows:
    """Rows that are decoded together. A row joins and leaves between any two steps; the others do not notice it.

    Args:
        model: in evaluation mode.
        keep: called with a job whose reply has ended, and the state after all of its tokens but the last; None: no
            state is taken.
    """

    def __init__(self, model: VLM, keep: Callable[[Job, State], None] | None) -> None:
        self.model, self._keep = model, keep
        self.jobs: list[Job] = []
        self._last: Tensor | None = None
        self._state: State | None = None

    def __len__(self) -> int:
        return len(self.jobs)

    def join(self, job: Job, last: Tensor, state: State) -> None:
        """Add a row whose prompt has been read.

        Args:
            job: of the row.
            last: hidden state of the last position of its prompt (`1 d`).
            state: after the prompt.
        """
        if self.jobs:
            last, state = torch.cat([self._last, last]), State.cat([self._state, state])
        self._last, self._state = last, state
        self.jobs.append(job)

    def step(self) -> None:
        """Give each row its next token; rows that have ended, or that nobody wants any more, leave."""
        self._select([row for row, job in enumerate(self.jobs) if not job.cancelled])
        if not self.jobs:
            return
        logits = self.model.head(self._last)
        samplers = [job.request.sampler for job in self.jobs]
        try:
            ids = choose_tokens(logits, samplers, [job.generator for job in self.jobs], [job.ids for job in self.jobs])
        except LogitsError as error:  # the other rows get their tokens in the next step
            for row in error.rows:
                self.jobs[row].fail(error)
            self._select([row for row in range(len(self.jobs)) if row not in error.rows])
            return
        for job, token in zip(self.jobs, self._tokens(ids, logits), strict=True):
            job.push(token)
        ends = [job.end for job in self.jobs]
        for row, end in enumerate(ends):
            if end is None:
                continue
            if self._keep is not None:
                self._keep(self.jobs[row], self._state.select(torch.tensor([row], device=ids.device)))
            self.jobs[row].finish(end)
        active = [row for row, end in enumerate(ends) if end is None]
        self._select(active)
        if self.jobs:
            if len(active) < len(ids):
                ids = ids[torch.tensor(active, device=ids.device)]
            hidden, self._state = self.model.run_backbone(Sequence(ids[:, None]), self._state)
            self._last = hidden[:, -1]

    def fail(self, error: Exception) -> None:
        """End all rows."""
        for job in self.jobs:
            job.fail(error)
        self._select([])

    def _tokens(self, ids: Tensor, logits: Tensor) -> list[Token]:
        """Tokens with as many log-probabilities as each row wants."""
        wanted = [job.request.log_probs for job in self.jobs]
        most = max((number for number in wanted if number is not None), default=None)
        return [
            Token(token.id) if number is None else token._replace(top=token.top[:number])
            for token, number in zip(make_tokens(ids, logits, most), wanted, strict=True)
        ]

    def _select(self, rows: Several[int]) -> None:
        """Let all other rows leave."""
        if len(rows) == len(self.jobs):
            return
        self.jobs = [self.jobs[row] for row in rows]
        if not rows:
            self._last = self._state = None
            return
        chosen = torch.tensor(rows, device=self._last.device)
        self._last, self._state = self._last[chosen], self._state.select(chosen)
