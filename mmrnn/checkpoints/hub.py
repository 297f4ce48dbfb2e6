"""Models on the Hugging Face hub, by the mixin of `huggingface_hub` (pip install 'mmrnn[hub]')."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin

from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.io import hub
from mmrnn.model.vlm import VLM


class HubModel(ModelHubMixin, library_name="mmrnn"):
    """Adapter of a model to the mixin: it can be written to a folder and read from one."""

    def __init__(self, model: VLM) -> None:
        self.model = model

    def _save_pretrained(self, save_directory: Path) -> None:
        save(self.model, save_directory)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, trusted: Collection[str] = (), **_: Any
    ) -> "HubModel":
        source = model_id if revision is None or Path(model_id).exists() else f"hf://{model_id}@{revision}"
        return cls(load_model(source, trusted=trusted)[0])


def push_to_hub(model: VLM, name: str, **options: Any) -> str:
    """Publish a model as `owner/name`.

    Args:
        options: those of `huggingface_hub.ModelHubMixin.push_to_hub`.

    Returns:
        The address of the commit.

    Raises:
        ImportError: `huggingface_hub` is not installed (pip install 'mmrnn[hub]').
    """
    return str(HubModel(model).push_to_hub(name, **options))


def from_pretrained(name: str | Path, *, trusted: Collection[str] = (), **options: Any) -> VLM:
    """Load the model of a repository or folder.

    Args:
        trusted: packages beside mmrnn whose classes the configuration may name.
        options: those of `huggingface_hub.ModelHubMixin.from_pretrained`.

    Raises:
        ConnectionError: the hub cannot be reached, and nothing of the repository has been fetched before.
        ImportError: `huggingface_hub` is not installed (pip install 'mmrnn[hub]').
    """
    if not Path(name).exists():
        try:
            hub.check_reachable(str(name))  # the mixin would try again and again before it says so
        except Exception as fault:  # its errors have no common ancestor
            reason = str(fault).strip().split("\n")[0] or type(fault).__name__
            raise ConnectionError(f"there is no folder {str(name)!r}, and none is at the hub: {reason}") from fault
    return HubModel.from_pretrained(name, trusted=trusted, **options).model
