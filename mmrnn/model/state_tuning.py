"""State tuning: the states that an RWKV starts from are trained, and nothing else of it."""

from collections.abc import Mapping
from typing import Any

from mmrnn.backbones.rwkv import RWKV
from mmrnn.io.tensor_files import read
from mmrnn.model.vlm import VLM
from mmrnn.types import Adapter
from mmrnn.weights import load, start_states


class StateTuning(Adapter):
    """Learned start states, a WKV matrix for each head of each layer, in place of zeros (RWKV-PEFT).

    Their parameter is `backbone.start`, which `stage=state` trains. They cost nothing in use: a conversation starts
    from them instead of from zeros. `mmrnn convert RUN FILE --part state --format rwkv7` writes them as RWKV-PEFT does.

    Args:
        file: start states to begin from, as RWKV-PEFT writes them; None: zeros.
    """

    def __init__(self, *, file: str | None = None):
        self.file = file

    def __call__(self, model: VLM) -> None:
        """Give the backbone start states; on the meta device they have no values yet.

        Raises:
            ValueError: the backbone is no RWKV, or the file holds something else.
        """
        if not isinstance(model.backbone, RWKV):
            raise ValueError(f"{type(model.backbone).__name__} has no WKV matrices to start from; choose an RWKV")
        model.backbone.learn_state()
        if not model.backbone.start.is_meta:
            self.reset(model)

    def reset(self, model: VLM) -> None:
        """Set the start states to those of the file, or to zero.

        Raises:
            ValueError: the file holds something else than start states of this backbone.
        """
        if self.file is None:
            model.backbone.start.detach().zero_()
            return
        tensors = read(self.file)
        if not start_states.are_all(tensors):
            raise ValueError(f"file: {self.file} holds more than start states; name it in weights.backbone instead")
        load(model.backbone, tensors)

    def merge(self, model: VLM) -> None:
        """Leave the start states where they are: they are part of the published format."""

    def merged_config(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration of a model whose backbone has start states of its own."""
        return {**cfg, "adapter": None, "backbone": {**cfg["backbone"], "learned_state": True}}
