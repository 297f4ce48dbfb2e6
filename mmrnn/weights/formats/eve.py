"""EVE: patch embedding layer and patch alignment. Projector and language model have LLaVA's formats."""

from mmrnn.encoders import EVEPatchEmbed
from mmrnn.types import Objective
from mmrnn.weights.format import Format
from mmrnn.weights.formats.ignored import CONNECTOR, ENCODER, LANGUAGE, LOSS

TEACHER = "belongs to the teacher"
OTHER = {
    **dict.fromkeys(("model.embed_tokens.*", "model.layers.*", "model.norm.*", "lm_head.*"), LANGUAGE),
    "model.mm_projector.*": CONNECTOR,
    "model.vision_clip.*": TEACHER,
}
TOWER, ALIGN = "model.vision_tower.", "model.vision_tower_compressor."


def gather(theirs: str, ours: str) -> dict[str, str]:
    """Names of one cross-attention of the patch embedding."""
    return {
        f"{TOWER}{theirs}.q.0.*": f"{ours}.norm_query.*",
        f"{TOWER}{theirs}.q.1.*": f"{ours}.query.*",
        f"{TOWER}{theirs}.kv.0.*": f"{ours}.norm_source.*",
        f"{TOWER}{theirs}.kv.1.*": f"{ours}.kv.*",
        f"{TOWER}{theirs}.proj.*": f"{ours}.output.*",
    }


FORMATS = (
    Format(
        "eve",
        EVEPatchEmbed,
        signature=(f"{TOWER}patch_embedding.weight", f"{TOWER}split_embedding"),
        names={
            f"{TOWER}patch_embedding.*": "proj.*",
            f"{TOWER}class_embedding": "cls",
            f"{TOWER}split_embedding": "row_end",
            **gather("local_attention", "local"),
            **gather("global_attention", "whole"),
        },
        ignored={**OTHER, f"{ALIGN}*": LOSS},
    ),
    Format(
        "eve",
        Objective,
        signature=(f"{ALIGN}input_layer.weight",),
        names={
            f"{ALIGN}norm_layer.{{}}.0.*": "norms.{}.*",
            f"{ALIGN}norm_layer.{{}}.1.*": "level_proj.{}.*",
            f"{ALIGN}input_layer.*": "input_proj.*",
            f"{ALIGN}output_layer.*": "output.*",
        },
        ignored={
            **{name: why for name, why in OTHER.items() if why != TEACHER},
            f"{TOWER}*": ENCODER,
        },
        submodules={"model.vision_clip.backbone.": "teacher"},
    ),
)
