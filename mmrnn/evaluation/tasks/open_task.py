"""Tasks by the name of their card."""

from collections.abc import Collection, Sequence
from typing import Any

from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import Tree, leaves, plain
from mmrnn.evaluation.tasks.retrieval_task import RetrievalTask
from mmrnn.evaluation.tasks.task import Task

REPLIES = ("reader", "suffix", "max_new_tokens")
"""Knobs of a task on which replies depend; the others only score them."""


def open_task(card: Tree, trusted: Collection[str] = ()) -> Task | RetrievalTask:
    """Build the task that a card describes.

    Raises:
        ConfigError: the card names another class, or its knobs exclude each other.
    """
    try:
        task = instantiate(card, trusted=trusted)
    except ValueError as error:
        raise ConfigError(f"task: {error}") from error
    if not isinstance(task, Task | RetrievalTask):
        raise ConfigError(f"task._target_: {type(task).__name__} is no Task; take a card of the group task")
    return task


def reply_settings(card: Tree, prompt: Tree | None) -> dict[str, Any]:
    """Return what replies to a task depend on beside the model.

    Args:
        card: of the task.
        prompt: card of the prompt.
    """
    return {"task": {name: card[name] for name in REPLIES if name in card}, "prompt": prompt}


def departures(name: str, card: Tree, prompt: Tree | None = None, dirs: Sequence[Any] = ()) -> list[str]:
    """Return how a published benchmark is set otherwise than by its card, in words.

    Args:
        name: of the card.
        card: as it was set.
        prompt: card of another prompt than the model's own; None: its own.
        dirs: further folders of cards.
    """
    if not card.get("source"):
        return []
    published = dict(leaves(plain(compose(f"task={name}", config="eval", dirs=dirs).task)))
    given = dict(leaves(card))
    differing = [path for path in published | given if published.get(path) != given.get(path)]
    found = [f"task.{path} is {given.get(path)!r}, not {published.get(path)!r}" for path in differing]
    return [*found, *(["another prompt than that of the model is used"] if prompt else [])]
