"""Requests of evaluation harnesses: the model that they name, settings of generation, batches of similar length."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from mmrnn.config.device import choose_device
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.load import load
from mmrnn.inference.sampler import Sampler

log = logging.getLogger(__name__)

DEFAULTS = {"num_beams": 1, "repetition_penalty": 1.0, "num_return_sequences": 1}
"""Settings that would change a reply -> the one value that is supported."""

LENGTHS = ("max_new_tokens", "max_gen_toks", "max_tokens")
KNOWN = {*LENGTHS, *DEFAULTS, "until", "do_sample", "temperature", "top_k", "top_p"}


@dataclass(frozen=True)
class Generation:
    """Settings of a generated reply.

    Attributes:
        max_new_tokens: of the reply.
        until: strings that end it.
        sampler: None: greedy.
    """

    max_new_tokens: int
    until: tuple[str, ...]
    sampler: Sampler | None

    def samplers(self, seeds: Sequence[int]) -> list[Sampler] | None:
        """Return a sampler for the reply of each seed; None: greedy."""
        return None if self.sampler is None else [replace(self.sampler, seed=seed) for seed in seeds]

    @classmethod
    def parse(cls, settings: Mapping[str, Any], *, max_new_tokens: int) -> "Generation":
        """Return the settings of a task's `generation_kwargs`, which follow the names of `transformers`.

        Without `do_sample`, a temperature above 0 samples. Settings of other models' preprocessing are not used, which
        is logged.

        Args:
            settings: of the task.
            max_new_tokens: where the task sets none.

        Raises:
            ValueError: beam search, a repetition penalty, or a value outside its range.
        """
        for name, supported in DEFAULTS.items():
            if settings.get(name) not in (None, supported):
                raise ValueError(f"{name}={settings[name]!r} of the task is not supported; set it to {supported}")
        if unused := settings.keys() - KNOWN:
            _log_unused(frozenset(unused))
        given = {name: value for name, value in settings.items() if value is not None}
        until, sampler = given.get("until") or (), None
        if given.get("do_sample", given.get("temperature")):
            sampler = Sampler(
                temperature=float(given.get("temperature", 1.0)),
                top_k=int(given.get("top_k", 0)),
                top_p=float(given.get("top_p", 1.0)),
            )
        length = next((given[name] for name in LENGTHS if name in given), max_new_tokens)
        return cls(int(length), (until,) if isinstance(until, str) else tuple(until), sampler)


@cache
def _log_unused(names: frozenset[str]) -> None:
    """Log settings that are not used, once and not for every question."""
    log.warning("generation_kwargs that are not used: %s", ", ".join(sorted(names)))


def batches(groups: Sequence[Hashable], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Return batches of indices, the longest first; the items of a batch are of one group and of similar length.

    Args:
        groups: of each item.
        lengths: of each item.
        size: items of a batch.
    """
    found: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        found.setdefault(group, []).append(index)
    made = []
    for indices in found.values():
        indices.sort(key=lambda index: -lengths[index])
        made += [indices[start : start + size] for start in range(0, len(indices), size)]
    return sorted(made, key=lambda batch: -lengths[batch[0]])


def seeds(count: int) -> list[int]:
    """Draw seeds of replies from torch's default generator, which the harness seeds.

    A reply does not depend on the batch it is in.
    """
    return torch.randint(2**63 - 1, (count,)).tolist()


def to_batch_size(value: int | str) -> int:
    """Return the batch size that a harness hands over as a number or a text.

    Raises:
        ValueError: it is no whole number from 1 on.
    """
    if not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"batch_size ({value!r}) must be a whole number from 1 on; `auto` is not supported")
    return int(value)


def load_assistant(pretrained: str, device: torch.device | str | None, trusted: str) -> Assistant:
    """Load the run that `--model_args pretrained=RUN` names.

    Args:
        pretrained: folder of a run, or `owner/name` on the Hugging Face hub.
        device: None: a GPU where there is one.
        trusted: packages whose classes the configuration may name, joined by `+`.

    Raises:
        ConfigError: there is no such device; lm-eval names a GPU where nobody names one.
    """
    chosen = choose_device(None if device is None else str(device))
    assistant = load(str(pretrained), trusted=[name for name in str(trusted).split("+") if name])
    assistant.model.to(chosen)
    return assistant
