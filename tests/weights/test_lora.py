"""LoRA folders, added to their base."""

from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.connectors import Linear, Merge, Sequential
from mmrnn.encoders import TimmViT
from mmrnn.model.vlm import VLM, Modality
from mmrnn.weights import load
from mmrnn.weights.export import export


def test_a_lora_is_added_to_its_base(tmp_path, llama, lora):
    base, target = llama(), llama()
    _, added = lora(tmp_path / "lora", base)
    load(target, export(base, "llama"))
    report = load(target, tmp_path / "lora")
    assert report.notes == ["4 tensors of an adapter were merged into the weights of the module"]
    expected = {name: value + added.get(name, 0) for name, value in export(base, "llama").items()}
    found = export(target, "llama")
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_a_file_that_holds_base_and_lora_comes_out_merged(tmp_path, llama, lora):
    base, target = llama(), llama()
    tensors, added = lora(tmp_path / "lora", base)
    for name, value in export(base, "llama").items():
        wrapped = name.replace(".weight", ".base_layer.weight") if name in added else name
        tensors[f"base_model.model.{wrapped}"] = value
    save_file(tensors, str(tmp_path / "lora" / "adapter_model.safetensors"))
    load(target, tmp_path / "lora")
    expected = export(base, "llama")["model.layers.1.self_attn.q_proj.weight"]
    expected = expected + added["model.layers.1.self_attn.q_proj.weight"]
    assert torch.allclose(target.blocks[1].attention.query.weight, expected, atol=1e-6)
    assert torch.equal(target.output.weight, base.output.weight)


BROKEN = {
    "no scale": ({}, None, "scale of the LoRA matrices is unknown"),
    "not plain": ({"use_dora": True}, None, "not a plain LoRA"),
    "half": ({}, "lora_B", "lacks the other matrix of the pair"),
    "vectors": ({}, "magnitude", "not a plain LoRA"),
    "ranks": ({}, "ranks", "cannot be multiplied"),
    "module": ({}, "module", "unexpected"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_adapters(what, tmp_path, llama, lora):
    config, change, message = BROKEN[what]
    target = llama()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    tensors, _ = lora(tmp_path, target, **config)
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    if what == "no scale":
        (tmp_path / "adapter_config.json").write_text("{}")
    if change == "lora_B":
        del tensors[f"{stem}.lora_A.weight"]
    if change == "magnitude":
        tensors[f"{stem}.lora_magnitude_vector"] = torch.ones(4)
    if change == "ranks":
        tensors[f"{stem}.lora_A.weight"] = torch.ones(3, 32)
    if change == "module":
        tensors = {name.replace("q_proj", "x_proj"): value for name, value in tensors.items()}
        message = "no format of Transformer"
    save_file(tensors, str(tmp_path / "adapter_model.safetensors"))
    with pytest.raises(ValueError, match=message):
        load(target, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_the_trained_tensors_of_minigpt_v2(same, llama):
    """A projection, and a LoRA whose lora_alpha (16) stands in the project's code; the tower is somebody else's."""

    def model():
        arch = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
        tower = TimmViT(name="eva_giant_patch14_clip_224", size=16, depth=1, layer=-1, arch=arch)
        return VLM(
            llama(), {"image": Modality(tower, Sequential(24, 32, parts=[partial(Merge, rows=1, cols=2), Linear]))}
        )

    base, target = model(), model()
    target.load_state_dict(base.state_dict())
    projection = Linear(48, 32)
    trained = {f"llama_proj.{name}": value for name, value in projection.proj.state_dict().items()}
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    stem = "llama_model.base_model.model.model.layers.1.self_attn.q_proj"
    trained |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    report = load(target, trained)
    assert report.format == "minigpt"
    assert report.loaded == 3
    assert same(target.modalities["image"].connector.parts[1], projection)
    assert same(target.modalities["image"].encoder, base.modalities["image"].encoder)
    expected = base.backbone.blocks[1].attention.query.weight + 16 / 4 * up @ down
    assert torch.allclose(target.backbone.blocks[1].attention.query.weight, expected, atol=1e-5)
    assert torch.equal(target.backbone.output.weight, base.backbone.output.weight)
