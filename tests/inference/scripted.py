"""Tiny assistants, replies that are given in advance, and what a model reads meanwhile."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.dialogue import PLACEHOLDER, Exchange, question_sample
from mmrnn.model.build import build

IMAGE = Image.linear_gradient("L").resize((30, 20))
OTHER = Image.radial_gradient("L").resize((20, 30))


def assistant(name, *overrides, **options):
    """Assistant with a model of random weights whose replies differ from question to question."""
    torch.manual_seed(0)
    cfg = plain(compose(f"model={name}", "out=null", *overrides))
    model = build(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Assistant(model, instantiate(cfg["tokenizer"]), instantiate(cfg["prompt"]), **options)


class Script:
    """Context in which a model says given ids.

    Attributes:
        logits: that the model itself gave, at each token.
    """

    def __init__(self, model, ids: Iterable[int]):
        self.model, self.ids, self.logits = model, [*ids], []

    def __enter__(self):
        self.model.head = self.head
        return self

    def __exit__(self, *_):
        del self.model.head

    def head(self, hidden):
        """Return logits of which the next id has the largest."""
        logits = type(self.model).head(self.model, hidden)
        self.logits.append(logits[0])
        scripted = torch.zeros_like(logits)
        scripted[0, self.ids[len(self.logits) - 1]] = 1
        return scripted


class Positions:
    """Context that counts the positions that a backbone reads."""

    def __init__(self, model):
        self.backbone, self.count = model.backbone, 0

    def __enter__(self):
        self.handle = self.backbone.register_forward_pre_hook(self.add)
        return self

    def __exit__(self, *_):
        self.handle.remove()

    def add(self, _, inputs):
        """Add those of one pass."""
        self.count += inputs[0].ids.numel()


def asked_row(chat, question, *images):
    """Row of the next question of a conversation."""
    return chat._row((*chat.exchanges, chat.reader.exchange(question_sample(question, images))))


def reply_ids(chat, question, images, reply):
    """Ids by which the prompt writes a reply to the next question, up to the id that completes a stop string."""
    reader = chat.reader
    asked = reader.exchange(question_sample(question, images))
    begun = chat._row((*chat.exchanges, asked)).ids
    answered = (*chat.exchanges, replace(asked, reply=reply))
    ids = reader.tokenizer.encode(reply + reader.prompt.stops[0])
    for later in ((), (Exchange(PLACEHOLDER),)):
        try:
            row = chat._row((*answered, *later)).ids
        except ValueError:
            continue
        if row[: len(begun)] == begun:
            ids = row[len(begun) :]
            break
    ends = [number for number in range(1, len(ids)) if reader.stop.finished(ids[:number])]
    return ids[: ends[0]] if ends else ids
