"""Checkpoints on the Hugging Face hub (pip install 'mmrnn[hub]')."""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.io.optional import require
from mmrnn.model.vlm import VLM


def push_to_hub(
    model: VLM,
    repo_id: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload a model of mmrnn",
    create_pr: bool = False,
) -> str:
    """Upload a checkpoint to a repository `owner/name`, which is created if it does not exist.

    Args:
        revision: branch; None: the main branch.
        private: of a new repository; None: the default of its owner.
        token: of the hub; None: that of `hf auth login` or `HF_TOKEN`.
        create_pr: open a pull request instead of writing to the branch.

    Returns:
        URL of the commit.

    Raises:
        ImportError: `huggingface_hub` is not installed.
        ValueError: the model has no configuration.
    """
    hub = require("huggingface_hub", "huggingface_hub", wanted_by="push_to_hub", extra="hub")
    api = hub.HfApi(token=token)
    with TemporaryDirectory() as folder:
        save(model, folder)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
    return str(commit)


def from_pretrained(source: str | Path, *, revision: str | None = None, trusted: Collection[str] = ()) -> VLM:
    """Load the model of a repository `owner/name` on the hub, or of a folder.

    Args:
        revision: branch, tag or commit of the repository; None: its main branch.
        trusted: packages besides mmrnn whose classes the configuration may name.

    Raises:
        ConfigError: there is no checkpoint, or its configuration does not fit.
        WeightsError: the tensors do not fit the configuration.
        FileNotFoundError: the hub has no such repository.
        ConnectionError: the hub cannot be reached, and its cache does not have the repository.
        ImportError: `huggingface_hub` is not installed.
    """
    return load_model(source if revision is None else f"hf://{source}@{revision}", trusted=trusted)
