"""Models on the Hugging Face hub, by the mixin of `huggingface_hub` (pip install 'mmrnn[hub]')."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin

from mmrnn.checkpoint import load_model
from mmrnn.vlm import VLM
from mmrnn.weights import hub


class Published(ModelHubMixin, library_name="mmrnn"):
    """A model as the mixin wants to have it: something that can be written to a folder and read from one."""

    def __init__(self, model: VLM) -> None:
        self.model = model

    def _save_pretrained(self, save_directory: Path) -> None:
        self.model.save(save_directory)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> "Published":
        """As the mixin has it, but a hub that is not there is said to be not there at once.

        Raises:
            ConnectionError: the hub cannot be reached, and nothing of the repository has been fetched before.
        """
        if not Path(name).exists():
            try:
                hub.reach(str(name))
            except Exception as fault:  # its errors have no common ancestor
                reason = str(fault).strip().split("\n")[0] or type(fault).__name__
                raise ConnectionError(f"there is no folder {str(name)!r}, and none is at the hub: {reason}") from fault
        return super().from_pretrained(name, **options)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, trusted: Collection[str] = (), **_: Any
    ) -> "Published":
        source = model_id if revision is None or Path(model_id).exists() else f"hf://{model_id}@{revision}"
        return cls(load_model(source, trusted=trusted)[0])
