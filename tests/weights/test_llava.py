"""LLaVA as a whole: the project's own layout, those of Hugging Face, with and without its tower."""

from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.connectors import MLP, Linear, Merge, Sequential
from mmrnn.encoders import TimmViT
from mmrnn.io.tensor_files import read_metadata
from mmrnn.model.vlm import VLM, Modality
from mmrnn.weights import WeightsError, load
from mmrnn.weights.export import export


def tower():
    arch = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
    return TimmViT(name="vit_large_patch14_clip_quickgelu_336", size=16, depth=2, layer=-1, norm=True, arch=arch)


def llava(backbone, connector=MLP):
    encoder = tower()
    return VLM(backbone, {"image": Modality(encoder, connector(24, 32))})


HF_TOWER = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "norm_pre": "pre_layrnorm",
    "norm": "post_layernorm",
}


def hf_tower(encoder):
    """The tensors of a CLIP tower under the names of Hugging Face."""
    named = {}
    for name, value in encoder.trunk.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        if name.startswith("blocks."):
            inner = (
                name.replace("blocks.", "encoder.layers.")
                .replace("norm1", "layer_norm1")
                .replace("norm2", "layer_norm2")
            )
            inner = inner.replace("attn.proj", "self_attn.out_proj")
            if "attn.qkv" in inner:
                for part, third in zip("qkv", value.chunk(3), strict=True):
                    named[inner.replace("attn.qkv", f"self_attn.{part}_proj")] = third
                continue
            named[inner] = value
        else:
            named[HF_TOWER[name] if name in HF_TOWER else f"{HF_TOWER[stem]}.{leaf}"] = value
    return named


def prefixed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def whole(name, model):
    """The tensors of a LLaVA in the layout of a project."""
    modality = model.modalities["image"]
    language, vision = export(model.backbone, "llama"), hf_tower(modality.encoder)
    if name.startswith("llava_hf5"):
        inner = {
            f"model.language_model.{n.removeprefix('model.')}" if "lm_head" not in n else n: v
            for n, v in language.items()
        }
        return {**inner, **export(modality.connector, "llava_hf5"), **prefixed("model.vision_tower.", vision)}
    if name == "llava_hf":
        tensors = prefixed("language_model.", language) | export(modality.connector, "llava_hf")
        return tensors | prefixed("vision_tower.vision_model.", vision)
    return {
        **language,
        **export(modality.connector, "llava"),
        **prefixed("model.vision_tower.vision_tower.vision_model.", vision),
    }


@pytest.mark.parametrize("name", ["llava", "llava_linear", "llava_hf", "llava_hf5"])
def test_a_whole_llava(name, tmp_path, same, llama):
    connector = Linear if name == "llava_linear" else MLP
    source, target = llava(llama(), connector), llava(llama(), connector)
    save_file({key: value.contiguous() for key, value in whole(name, source).items()}, str(tmp_path / "a.safetensors"))
    report = load(target, tmp_path)
    assert report.format == name.removesuffix("_linear")
    assert report.loaded == len(target.state_dict())
    assert same(source, target)


def test_a_llava_without_its_tower_and_the_tower_beside_it(tmp_path, same, llama):
    source, target = llava(llama()), llava(llama())
    tensors = whole("llava", source)
    torch.save({name: value for name, value in tensors.items() if "vision_tower" not in name}, tmp_path / "llava.bin")
    torch.save(prefixed("vision_model.", hf_tower(source.modalities["image"].encoder)), tmp_path / "clip.bin")
    with pytest.raises(WeightsError, match=r"missing: modalities\.image\.encoder"):
        load(target, tmp_path / "llava.bin")
    load(target, [tmp_path / "llava.bin", tmp_path / "clip.bin"])
    assert same(source, target)


def test_a_lora_run_of_llava(tmp_path, same, lora, llama):
    """The adapter is added to the language model, the projector beside it replaces ours."""
    base, target, tuned = llava(llama()), llava(llama()), llava(llama())
    load(target, whole("llava", base))
    _, added = lora(tmp_path, base.backbone)
    projector = export(tuned.modalities["image"].connector, "llava")
    torch.save(prefixed("base_model.model.", projector), tmp_path / "non_lora_trainables.bin")
    report = load(target, tmp_path)
    assert report.format == "llava"
    assert same(target.modalities["image"].connector, tuned.modalities["image"].connector)
    assert same(target.modalities["image"].encoder, base.modalities["image"].encoder)
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = base.backbone.blocks[0].attention.query.weight + added[name]
    assert torch.allclose(target.backbone.blocks[0].attention.query.weight, expected, atol=1e-6)
    assert torch.equal(target.backbone.output.weight, base.backbone.output.weight)


def test_vila15_in_its_three_folders(tmp_path, same, llama):
    def model():
        encoder = tower()
        connector = Sequential(24, 32, parts=[partial(Merge, order="col"), partial(MLP, norm=True)])
        return VLM(llama(), {"image": Modality(encoder, connector)})

    source, target = model(), model()
    modality = source.modalities["image"]
    folders = {
        "llm": export(source.backbone, "llama"),
        "mm_projector": export(modality.connector.parts[1], "vila_downsample"),
        "vision_tower": prefixed("vision_model.", hf_tower(modality.encoder)),
    }
    for name, tensors in folders.items():
        (tmp_path / name).mkdir()
        contiguous = {key: value.contiguous() for key, value in tensors.items()}
        save_file(contiguous, str(tmp_path / name / "model.safetensors"))
    (tmp_path / "llm" / "config.json").write_text('{"num_attention_heads": 4}')
    assert read_metadata(tmp_path) == {"num_attention_heads": 4}
    report = load(target, tmp_path)
    assert report.format == "vila15"
    assert same(source, target)
