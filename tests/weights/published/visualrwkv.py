"""Names and shapes of what the releases of VisualRWKV publish."""

from languages import RWKV, Shapes, rwkv, under
from layers import affine, norm
from towers import clip, siglip2_b16, three


def visualrwkv(version: int, size: str) -> Shapes:
    """Of version 5 both files, in which the names of the language model have no prefix."""
    language = rwkv(version, size) if version == 5 else under("rwkv.", rwkv(version, size))
    return {**language, "proj.weight": (RWKV[size][1], 1024), **under("vit.", clip())}


def hybrid() -> Shapes:
    """The names of v5.2's src/model.py: one attention behind the last block."""
    tiny = norm("tiny_ln", 4096) | {f"tiny_{name}.weight": (4096, 4096) for name in "qkvo"}
    return visualrwkv(5, "7b") | under("blocks.31.tiny_att.", tiny)


def three_towers(version: int, size: str) -> Shapes:
    width = RWKV[size][1]
    if version == 6:
        gate = {"proj.weight": (width, 3200), "gate.weight": (width, width), "o_proj.weight": (width, width)}
    else:
        gate = {"gate.weight": (3200, 3200), "o_proj.weight": (width, 3200), **norm("ln_v", width)}
    return {**under("rwkv.", rwkv(version, size)), **under("proj.", gate), **under("vit.", three())}


def one_tower(size: str) -> Shapes:
    """v7.01's src/model.py: the gate is as wide as the tower."""
    width = RWKV[size][1]
    gate = {"gate.weight": (768, 768), "o_proj.weight": (width, 768), **norm("ln_v", width)}
    return {**under("rwkv.", rwkv(7, size)), **under("proj.", gate), **under("vit.", siglip2_b16())}


def compressed() -> Shapes:
    """v7.03's src/model.py: three blocks of RWKV-7 behind the projection."""
    language = rwkv(7, "0b1")
    kept = ("ln_out.", *(f"blocks.{layer}." for layer in range(3)))
    blocks = {name: shape for name, shape in language.items() if name.startswith(kept)}
    return {**one_tower("0b1"), **under("vtc.", blocks)}


def vision_rwkv() -> Shapes:
    """v7.10's src/model.py: an encoder of six blocks, and a second channel mix in every block of the language model."""
    language, width = rwkv(7, "0b1"), RWKV["0b1"][1]
    kept = ("ln_out.", *(f"blocks.{layer}." for layer in range(6)))
    encoder = {name: shape for name, shape in language.items() if name.startswith(kept)}
    encoder |= {"emb.weight": (width, 3, 16, 16), "emb.bias": (width,), **affine("head", 1000, width)}
    for layer in range(12):
        block = f"blocks.{layer}"
        language |= norm(f"{block}.ln_v", width) | {f"{block}.ffn_v.x_k": (1, 1, width)}
        language |= affine(f"{block}.ffn_v.key", 4 * width, width, bias=False)
        language |= affine(f"{block}.ffn_v.value", width, 4 * width, bias=False)
    return {**under("rwkv.", language), **under("vrwkv.", encoder)}


def uhd() -> Shapes:
    """VisualRWKV-UHD's src/model.py: features of the whole and of the quarters, and a gate that is not used."""
    width = RWKV["1b6"][1]
    gate = {"proj.weight": (width, 6400), "gate.weight": (width, width), "o_proj.weight": (width, width)}
    return {**under("rwkv.", rwkv(6, "1b6")), **under("proj.", gate), **under("vit.", three())}
