"""Choice of the next token."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, ulp
from sys import float_info

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrnn.config.device import fp64_device

SMALLEST = ulp(0.0)
"""Smallest number above 0."""

LARGEST = float_info.max
"""Largest finite number; a whole number above it has no logarithm or quotient in fp64."""


class LogitsError(ValueError):
    """Rows of logits that have no most likely token.

    Attributes:
        rows: their numbers.
    """

    def __init__(self, rows: list[int]) -> None:
        super().__init__("the logits are not finite (nan or inf); the weights or the inputs of the model are damaged")
        self.rows = rows


@dataclass(frozen=True)
class Sampler:
    """Choice of the next token of one row; as it is, the most likely one.

    Args:
        temperature: divides the logits; 0: take the most likely token.
        top_k: sample among the k most likely tokens; 0: all.
        top_p: sample among the most likely tokens that together have this probability (nucleus sampling, arXiv
            1904.09751); 0: take the most likely token.
        min_p: sample among the tokens that have at least this share of the probability of the most likely one (arXiv
            2407.01082).
        repetition_penalty: divides positive and multiplies negative logits of the tokens that the reply already has
            (CTRL, arXiv 1909.05858); 1: none. The prompt does not count, since a state does not hold its tokens.
        seed: of the random numbers of the reply; None: drawn from torch's default generator.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float | int = 0.0
    top_k: int = 0
    top_p: float | int = 1.0
    min_p: float | int = 0.0
    repetition_penalty: float | int = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, "be a finite number from 0 on; 0 is greedy", at_most=LARGEST)
        _check("top_k", self.top_k, "be a whole number from 0 on; 0 allows all tokens", at_most=inf, whole=True)
        _check("top_p", self.top_p, "lie between 0 and 1; 1 allows all tokens", at_most=1)
        _check("min_p", self.min_p, "lie between 0 and 1; 0 allows all tokens", at_most=1)
        penalty, wanted = self.repetition_penalty, "be a finite number above 0; 1 is none"
        _check("repetition_penalty", penalty, wanted, at_least=SMALLEST, at_most=LARGEST)
        if self.seed is not None:
            _check("seed", self.seed, "lie between 0 and 2^63 - 1", at_most=2**63 - 1, whole=True)

    @property
    def draws(self) -> bool:
        """Random numbers are drawn."""
        return self.temperature > 0 and self.top_p > 0


def _check(
    name: str, value: object, expected: str, *, at_most: float | int, at_least: float | int = 0, whole: bool = False
) -> None:
    """Check a number from `at_least` to `at_most`.

    Raises:
        ValueError: it is no number, a fraction where a whole number is needed, or outside the range.
    """
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not at_least <= value <= at_most:
        raise ValueError(f"{name} ({value!r}) must {expected}")


def samplers_of_rows(sampler: Sampler | Sequence[Sampler] | None, rows: int) -> list[Sampler]:
    """Return the sampler of each row.

    Args:
        sampler: of all rows, or one for each; None: the most likely tokens.

    Raises:
        ValueError: samplers and rows differ in number, or one is none.
    """
    if sampler is None or isinstance(sampler, Sampler):
        return [sampler or Sampler()] * rows
    samplers = [*sampler]
    for one in samplers:
        if not isinstance(one, Sampler):
            raise ValueError(f"{one!r} is no Sampler; give one, or one for each row")
    if len(samplers) != rows:
        raise ValueError(f"there are {len(samplers)} samplers for {rows} rows; give one, or one for each row")
    return samplers


def seeded_generators(samplers: Sequence[Sampler], device: torch.device) -> list[torch.Generator | None]:
    """Return a generator for each row, so that a row does not depend on the others; None: it draws nothing.

    Args:
        samplers: of the rows; seeds that they lack are drawn from torch's default generator.
    """
    seeds = [int(torch.randint(2**63 - 1, ())) if each.draws and each.seed is None else each.seed for each in samplers]
    return [
        torch.Generator(fp64_device(device)).manual_seed(seed) if each.draws else None
        for each, seed in zip(samplers, seeds, strict=True)
    ]


def choose_tokens(
    logits: Float[Tensor, "b vocab"],
    samplers: Sequence[Sampler],
    generators: Sequence[torch.Generator | None],
    replies: Sequence[Sequence[int]],
) -> Int[Tensor, " b"]:
    """Choose the next token of every row, each by its own sampler and from its own random numbers.

    Args:
        logits: of the next token.
        samplers: of the rows.
        generators: of the rows, as of `seeded_generators`.
        replies: tokens that each row already has.

    Raises:
        LogitsError: a row of logits is not finite; nothing has been drawn.
    """
    check_logits(logits)
    device = logits.device
    if any(sampler.draws or sampler.repetition_penalty != 1 for sampler in samplers):
        logits = logits.to(fp64_device(device))
    if any(sampler.repetition_penalty != 1 and reply for sampler, reply in zip(samplers, replies, strict=True)):
        logits = _penalise(logits, samplers, replies)
    ids = logits.argmax(-1)
    drawing = [row for row, sampler in enumerate(samplers) if sampler.draws]
    if drawing:
        some = logits if len(drawing) == len(logits) else logits[drawing]
        probability = _probability(some, [samplers[row] for row in drawing])
        # As torch.multinomial draws from each row, which waits for the device in order to check its argument.
        noise = torch.empty_like(probability)
        for row, one in zip(drawing, noise, strict=True):
            one.exponential_(generator=generators[row])
        ids[drawing] = (probability / noise).argmax(-1)
    return ids.to(device)


def check_logits(logits: Float[Tensor, "b vocab"]) -> None:
    """Check that every row has a most likely token; -inf forbids one.

    Raises:
        LogitsError: a logit is NaN or inf, or all of a row are -inf.
    """
    # The largest logit is NaN if any is, and infinite if any is or all are.
    finite = logits.amax(-1).isfinite()
    if not finite.all():
        raise LogitsError([row for row, sound in enumerate(finite.tolist()) if not sound])


def _penalise(
    logits: Float[Tensor, "b vocab"], samplers: Sequence[Sampler], replies: Sequence[Sequence[int]]
) -> Float[Tensor, "b vocab"]:
    """Logits in fp64, with the repetition penalty of each row."""
    logits = logits.to(torch.float64, copy=True)
    for row, (sampler, reply) in enumerate(zip(samplers, replies, strict=True)):
        if sampler.repetition_penalty == 1 or not reply:
            continue
        seen = torch.tensor([*{*reply}], device=logits.device)
        old = logits[row, seen]
        new = torch.where(old < 0, old * sampler.repetition_penalty, old / sampler.repetition_penalty)
        logits[row, seen] = torch.where(old.isfinite(), new.nan_to_num(), old)
    return logits


def _probability(logits: Float[Tensor, "b vocab"], samplers: Sequence[Sampler]) -> Float[Tensor, "b vocab"]:
    """Probabilities in fp64 up to a factor of each row, zero for the tokens that its sampler excludes."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    # Below zero and in fp64, so that a tiny temperature is greedy instead of inf - inf.
    offset = logits.double() - logits.amax(-1, keepdim=True).double()
    probability = offset.div_(column([each.temperature for each in samplers])).softmax(-1)
    if any(each.top_k for each in samplers):
        # By the logits, because a large temperature rounds probabilities to ties.
        vocab = logits.shape[-1]
        sizes = torch.tensor([min(each.top_k or vocab, vocab) for each in samplers], device=logits.device)
        largest = max(min(each.top_k, vocab) for each in samplers)
        least = logits.topk(largest).values.gather(1, (sizes.clamp(max=largest) - 1)[:, None])
        least = least.masked_fill((sizes == vocab)[:, None], -inf)
        probability = probability.masked_fill_(logits < least, 0)
    if any(each.top_p < 1 for each in samplers):
        ordered, index = (probability / probability.sum(-1, keepdim=True)).sort(descending=True)
        # A token is kept while those before it do not reach top_p, so the most likely one always is.
        limits = column([each.top_p if each.top_p < 1 else inf for each in samplers])
        drop = ordered.cumsum(-1) - ordered >= limits
        probability = probability.masked_fill_(drop.scatter(-1, index, drop), 0)
    if any(each.min_p for each in samplers):
        share = column([each.min_p for each in samplers])
        probability = probability.masked_fill_(probability < share * probability.amax(-1, keepdim=True), 0)
    return probability
