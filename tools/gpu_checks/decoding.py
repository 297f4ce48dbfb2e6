"""Greedy replies of every backbone in fp32: the ids of the device are those of the CPU."""

from functools import partial

import torch

from gpu_checks.backbones import SIZES, ids, make
from gpu_checks.check import Check, Difference, equal
from mmrnn.inference.generate import generate, prefill
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, Sequence, State

TOKENS = 12


def checks() -> list[Check]:
    """Replies to prompts of one length, to padded prompts, to prompts read in parts, and from joined states."""
    runs = {"rows": rows, "padded": padded, "continued": continued, "joined": joined}
    return [Check(f"decoding/{name}/{case}/fp32", partial(run, name)) for name in SIZES for case, run in runs.items()]


def models(name: str, device: torch.device) -> tuple[VLM, VLM]:
    """The model on the device, and the truth."""
    model, truth = make(name, torch.float32, device)
    return VLM(model, {}), VLM(truth, {})


def rows(name: str, device: torch.device) -> list[Difference]:
    """Two prompts of one length."""
    model, truth = models(name, device)
    batch = Batch(Sequence(ids(19)))
    return [equal("ids", reply(model, batch.to(device)), reply(truth, batch))]


def padded(name: str, device: torch.device) -> list[Difference]:
    """Two prompts of different lengths, padded on the left and separated by segments."""
    model, truth = models(name, device)
    segments = torch.ones(2, 19, dtype=torch.long)
    segments[1, :8] = 0
    batch = Batch(Sequence(ids(19), segments=segments))
    return [equal("ids", reply(model, batch.to(device)), reply(truth, batch))]


@torch.no_grad()
def continued(name: str, device: torch.device) -> list[Difference]:
    """The second half of a prompt read from the state of the first, in pieces of five positions."""
    model, truth = models(name, device)
    first, second = (Batch(Sequence(part)) for part in ids(38).split(19, dim=1))
    _, state = prefill(model, first.to(device))
    replies = reply(model, second.to(device), state=state, prefill_chunk=5)
    return [equal("ids", replies, reply(truth, Batch(Sequence(ids(38)))))]


@torch.no_grad()
def joined(name: str, device: torch.device) -> list[Difference]:
    """Rows that continue states after texts of different lengths, joined into one."""
    model, truth = models(name, device)
    rest = Batch(Sequence(ids(38)[:, 19:]))

    def states(made: VLM, where: torch.device) -> list[State]:
        texts = [Batch(Sequence(ids(19)[row : row + 1, start:])) for row, start in ((0, 0), (1, 8))]
        return [prefill(made, text.to(where))[1] for text in texts]

    replies = reply(model, rest.to(device), state=State.cat(states(model, device)))
    return [equal("ids", replies, reply(truth, rest, state=State.cat(states(truth, torch.device("cpu")))))]


def reply(model: VLM, batch: Batch, **options) -> list[list[int]]:
    """Greedy ids of every row."""
    return generate(model, batch, max_new_tokens=TOKENS, **options)
