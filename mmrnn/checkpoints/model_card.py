"""Model card of a checkpoint, as the hub shows it."""

from collections.abc import Mapping
from typing import Any

from mmrnn.checkpoints.config_file import CONFIG
from mmrnn.model.vlm import VLM

CARD = "README.md"


def describe(model: VLM, cfg: Mapping[str, Any], tensors: Mapping[str, Any]) -> str:
    """The card of a model, as the hub shows it."""
    rows = [
        (name, module)
        for name, modality in model.modalities.items()
        for module in (modality.encoder, modality.connector)
    ]
    parts = [f"| {name} | `{type(module).__name__}` | {_count(module):,} |" for name, module in rows]
    parts.append(f"| language | `{type(model.backbone).__name__}` | {_count(model.backbone):,} |")
    chosen = ", ".join(f"`{group}={name}`" for group, name in (cfg.get("choices") or {}).items() if name)
    left = len(model.state_dict()) - len(tensors)
    lines = [
        "---\nlibrary_name: mmrnn\npipeline_tag: image-text-to-text\ntags: [mmrnn]\n---",
        "A vision-language model of mmrnn.",
        "| part | class | parameters |\n|---|---|---|\n" + "\n".join(parts),
        *([f"Chosen: {chosen}."] if chosen else []),
        *([f"{left} tensors are not in this checkpoint: they come from the base that {CONFIG} names."] if left else []),
        '```python\nimport mmrnn\n\nprint(mmrnn.load("THIS FOLDER").ask("photo.jpg", "what is this?"))\n```',
    ]
    return "\n\n".join(lines) + "\n"


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
