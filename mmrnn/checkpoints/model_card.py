"""Model card (README.md) of a checkpoint, as the Hugging Face hub shows it."""

from collections.abc import Mapping
from typing import Any

from mmrnn.checkpoints.config_file import CONFIG
from mmrnn.model.quantize import num_weights
from mmrnn.model.vlm import VLM

CARD = "README.md"


def model_card(model: VLM, cfg: Mapping[str, Any], *, absent: int = 0) -> str:
    """Markdown text: parts with their numbers of parameters, chosen cards, and code that loads the checkpoint.

    Args:
        absent: number of tensors of the model that are not in the checkpoint.
    """
    rows = [
        (name, module)
        for name, modality in model.modalities.items()
        for module in (modality.encoder, modality.connector)
    ]
    rows.append(("language", model.backbone))
    table = "\n".join(f"| {name} | `{type(part).__name__}` | {num_weights(part):,} |" for name, part in rows)
    chosen = ", ".join(f"`{group}={name}`" for group, name in (cfg.get("choices") or {}).items() if name)
    paragraphs = [
        "---\nlibrary_name: mmrnn\npipeline_tag: image-text-to-text\ntags: [mmrnn]\n---",
        "A vision-language model of mmrnn.",
        f"| part | class | parameters |\n|---|---|---|\n{table}",
        *([f"Chosen: {chosen}."] if chosen else []),
        *([f"{absent} tensors are not in this checkpoint: the base that {CONFIG} names has them."] if absent else []),
        '```python\nimport mmrnn\n\nprint(mmrnn.load("THIS FOLDER").ask("photo.jpg", "what is this?"))\n```',
    ]
    return "\n\n".join(paragraphs) + "\n"
