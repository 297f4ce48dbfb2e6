"""Steps since the last record of the log; a checkpoint keeps them, so that a resumed run writes the same records."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmrnn.data.left_out import LeftOut
from mmrnn.training.distributed.world import World


class RecordWindow:
    """Losses, norms, tokens, learning rate, skipped attempts and dropped samples since the last record."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._lr = 0.0
        self._tokens = 0
        self._skipped = 0
        self._dropped = LeftOut()

    def __len__(self) -> int:
        """Number of steps."""
        return len(self._losses)

    def add(
        self, loss: float, norm: float, lr: float, skipped: int, dropped: Iterable[tuple[str, str]], tokens: int = 0
    ) -> None:
        """Add a step.

        Args:
            loss: of all ranks.
            norm: of the gradient.
            lr: learning rate.
            skipped: attempts that were skipped before it.
            dropped: id and reason of the samples that this rank dropped for it.
            tokens: that this rank read for it, without padding.
        """
        self._losses.append(loss)
        self._norms.append(norm)
        self._lr = lr
        self._skipped += skipped
        self._tokens += tokens
        for id, reason in dropped:
            self._dropped.add(reason, id)

    def take(self) -> dict[str, Any]:
        """Return means, learning rate, skipped attempts, tokens and dropped samples of all ranks, and begin anew.

        All ranks call it.
        """
        record = {
            "loss": sum(self._losses) / len(self._losses),
            "grad_norm": sum(self._norms) / len(self._norms),
            "lr": self._lr,
            "skipped_steps": self._skipped,
            "tokens": self._tokens_of_all(),
            "dropped": self._dropped_by_all(),
        }
        self._losses, self._norms, self._skipped, self._tokens, self._dropped = [], [], 0, 0, LeftOut()
        return record

    def state_dict(self) -> dict[str, Any]:
        """Return the steps of all ranks, as JSON has them; all ranks call it."""
        return {
            "losses": self._losses,
            "norms": self._norms,
            "lr": self._lr,
            "skipped": self._skipped,
            "tokens": self._tokens_of_all(),
            "dropped": self._dropped_by_all(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`; rank 0 holds the tokens and the dropped samples of all."""
        self._losses, self._norms = [*state["losses"]], [*state["norms"]]
        self._lr, self._skipped = state["lr"], state["skipped"]
        self._tokens = state.get("tokens", 0) if self.world.main else 0
        self._dropped = LeftOut.merge([state["dropped"]] if self.world.main else [])

    def _tokens_of_all(self) -> int:
        return int(self.world.sum([self._tokens])[0])

    def _dropped_by_all(self) -> dict[str, Any]:
        return LeftOut.merge(self.world.gather(self._dropped.record())).record()
