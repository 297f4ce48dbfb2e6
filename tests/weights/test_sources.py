"""Where tensors come from: files, shards, folders, several files, LoRA folders, GGUF, the hub."""

import json
import struct
import sys

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.backbones import RWKV5, RWKV6, Transformer
from mmrnn.connectors import MLP, Linear
from mmrnn.encoders import TimmTower
from mmrnn.vlm import VLM, Sense
from mmrnn.weights import WeightsError, hub, load
from mmrnn.weights.files import read
from mmrnn.weights.gguf import header
from mmrnn.weights.llama import GGUF_NAMES
from mmrnn.weights.names import export

SIZES = {"vocab": 40, "width": 32, "depth": 2, "heads": 4, "kv_heads": 2, "ffn": 48}


def llama(**more):
    model = Transformer(**SIZES, **more)
    for value in model.parameters():
        torch.nn.init.normal_(value)
    return model


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def shard(folder, tensors, suffix="safetensors"):
    """Two files and an index, as the Hugging Face hub has them."""
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.{suffix}"
        group = {name: tensors[name].contiguous() for name in part}
        save_file(group, str(folder / file)) if suffix == "safetensors" else torch.save(group, folder / file)
        places |= dict.fromkeys(part, file)
    name = "model.safetensors.index.json" if suffix == "safetensors" else "pytorch_model.bin.index.json"
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 10**30}, "weight_map": places}))
    return folder / name


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path, suffix):
    source, target, other = llama(), llama(), llama()
    index = shard(tmp_path, export(source, "llama"), suffix)
    assert load(target, tmp_path).format == "llama"
    load(other, index)
    assert same(source, target)
    assert same(source, other)


def test_several_files_complete_each_other(tmp_path):
    source, target = llama(), llama()
    tensors = export(source, "llama")
    names = list(tensors)
    torch.save({name: tensors[name] for name in names[:5]}, tmp_path / "a.pth")
    torch.save({name: tensors[name] for name in names[5:]}, tmp_path / "b.pth")
    load(target, [tmp_path / "a.pth", tmp_path / "b.pth"])
    assert same(source, target)
    torch.save({names[7]: tensors[names[7]]}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="which another of these files holds, too"):
        load(target, [tmp_path / "b.pth", tmp_path / "c.pth"])


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_what_training_programs_wrap(tmp_path, key):
    source, target = llama(), llama()
    torch.save({key: export(source, "llama"), "epoch": 3, "loss": None}, tmp_path / "a.pth")
    load(target, tmp_path / "a.pth")
    assert same(source, target)


def test_a_dictionary_for_each_part(tmp_path):
    """Prismatic's files."""
    source, target = MLP(6, 8), MLP(6, 8)
    torch.save({"model": {"projector": export(source, "plain"), "vision": {}}}, tmp_path / "a.pt")
    assert load(target, tmp_path / "a.pt").format == "prismatic"
    assert same(source, target)


def test_wrappers_in_the_middle_of_names():
    source, target = llama(), llama()
    tensors = export(source, "llama")
    wrapped = {f"_fsdp_wrapped_module.{n.replace('mlp.', 'mlp._fsdp_wrapped_module.')}": v for n, v in tensors.items()}
    load(target, wrapped)
    assert same(source, target)


def test_a_module_without_memory_takes_the_tensors_of_the_file(tmp_path):
    source = llama()
    save_file(export(source, "llama"), str(tmp_path / "a.safetensors"))
    before = (tmp_path / "a.safetensors").read_bytes()
    with torch.device("meta"):
        target = Transformer(**SIZES)
    target.norm.weight.requires_grad_(False)
    load(target, tmp_path)
    assert same(source, target)
    assert not target.norm.weight.requires_grad
    assert target.output.weight.requires_grad
    with torch.no_grad():
        target.output.weight.zero_()
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_a_module_without_memory_keeps_its_type(tmp_path):
    source = llama()
    save_file(
        {name: value.bfloat16() for name, value in export(source, "llama").items()}, str(tmp_path / "a.safetensors")
    )
    for dtype in (torch.float32, torch.bfloat16):
        with torch.device("meta"):
            target = Transformer(**SIZES).to(dtype)
        load(target, tmp_path)
        assert target.output.weight.dtype == dtype
        assert torch.equal(target.output.weight, source.output.weight.bfloat16().to(dtype))


def test_two_names_of_one_parameter_stay_one():
    with torch.device("meta"):
        tied = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    value = torch.randn(3, 3)
    load(tied, {"0.weight": value, "1.weight": value})
    assert tied[0].weight is tied[1].weight


def lora(folder, source, rank=2, alpha=6, names=("q_proj", "v_proj"), **config):
    """An adapter folder as PEFT writes it, and what it adds."""
    tensors, added = {}, {}
    for key, value in export(source, "llama").items():
        if key.endswith(tuple(f"{name}.weight" for name in names)):
            down, up = torch.randn(rank, value.shape[1]), torch.randn(value.shape[0], rank)
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            added[key] = alpha / rank * (up @ down)
    folder.mkdir(exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": alpha, **config}))
    return tensors, added


def test_a_lora_is_added_to_its_base(tmp_path):
    base, target = llama(), llama()
    _, added = lora(tmp_path / "lora", base)
    load(target, export(base, "llama"))
    report = load(target, tmp_path / "lora")
    assert report.notes == ["4 tensors of a LoRA were added to the weights that were there"]
    expected = {name: value + added.get(name, 0) for name, value in export(base, "llama").items()}
    found = export(target, "llama")
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_a_file_that_holds_base_and_lora_comes_out_merged(tmp_path):
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


def tower():
    arch = {"patch_size": 8, "embed_dim": 24, "num_heads": 2, "mlp_ratio": 2.0}
    return TimmTower(name="vit_large_patch14_clip_quickgelu_336", size=16, depth=2, layer=-1, norm=True, arch=arch)


def llava(connector=MLP):
    encoder = tower()
    return VLM(llama(), {"image": Sense(encoder, connector(24, 32))})


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
    sense = model.senses["image"]
    language, vision = export(model.backbone, "llama"), hf_tower(sense.encoder)
    if name.startswith("llava_hf5"):
        inner = {
            f"model.language_model.{n.removeprefix('model.')}" if "lm_head" not in n else n: v
            for n, v in language.items()
        }
        return {**inner, **export(sense.connector, "llava_hf5"), **prefixed("model.vision_tower.", vision)}
    if name == "llava_hf":
        tensors = prefixed("language_model.", language) | export(sense.connector, "llava_hf")
        return tensors | prefixed("vision_tower.vision_model.", vision)
    return {
        **language,
        **export(sense.connector, "llava"),
        **prefixed("model.vision_tower.vision_tower.vision_model.", vision),
    }


@pytest.mark.parametrize("name", ["llava", "llava_linear", "llava_hf", "llava_hf5"])
def test_a_whole_llava(name, tmp_path):
    connector = Linear if name == "llava_linear" else MLP
    source, target = llava(connector), llava(connector)
    save_file({key: value.contiguous() for key, value in whole(name, source).items()}, str(tmp_path / "a.safetensors"))
    report = load(target, tmp_path)
    assert report.format == name.removesuffix("_linear")
    assert report.loaded == len(target.state_dict())
    assert same(source, target)


def test_a_llava_without_its_tower_and_the_tower_beside_it(tmp_path):
    source, target = llava(), llava()
    tensors = whole("llava", source)
    torch.save({name: value for name, value in tensors.items() if "vision_tower" not in name}, tmp_path / "llava.bin")
    torch.save(prefixed("vision_model.", hf_tower(source.senses["image"].encoder)), tmp_path / "clip.bin")
    with pytest.raises(WeightsError, match=r"missing: senses\.image\.encoder"):
        load(target, tmp_path / "llava.bin")
    load(target, [tmp_path / "llava.bin", tmp_path / "clip.bin"])
    assert same(source, target)


def test_a_lora_run_of_llava(tmp_path):
    """The adapter is added to the language model, the projector beside it replaces ours."""
    base, target, tuned = llava(), llava(), llava()
    load(target, whole("llava", base))
    _, added = lora(tmp_path, base.backbone)
    projector = export(tuned.senses["image"].connector, "llava")
    torch.save(prefixed("base_model.model.", projector), tmp_path / "non_lora_trainables.bin")
    report = load(target, tmp_path)
    assert report.format == "llava"
    assert same(target.senses["image"].connector, tuned.senses["image"].connector)
    assert same(target.senses["image"].encoder, base.senses["image"].encoder)
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = base.backbone.blocks[0].attention.query.weight + added[name]
    assert torch.allclose(target.backbone.blocks[0].attention.query.weight, expected, atol=1e-6)
    assert torch.equal(target.backbone.output.weight, base.backbone.output.weight)


BROKEN = {
    "no scale": ({}, None, "do not say their scale"),
    "not plain": ({"use_dora": True}, None, "no plain LoRA"),
    "half": ({}, "lora_B", "lacks the other half"),
    "vectors": ({}, "magnitude", "no plain LoRA"),
    "ranks": ({}, "ranks", "no halves of one matrix"),
    "module": ({}, "module", "unexpected"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_adapters(what, tmp_path):
    config, change, said = BROKEN[what]
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
        said = "no format of Transformer"
    save_file(tensors, str(tmp_path / "adapter_model.safetensors"))
    with pytest.raises(ValueError, match=said):
        load(target, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def gguf(path, source, kind="llama"):
    """A GGUF file of a small Llama in fp32, its queries and keys in the order of llama.cpp."""

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    facts = {"general.architecture": (8, text(kind)), "general.alignment": (4, struct.pack("<I", 64))}
    for name, value in {"attention.head_count": 4, "attention.head_count_kv": 2, "block_count": 2}.items():
        facts[f"{kind}.{name}"] = (4, struct.pack("<I", value))
    facts[f"{kind}.rope.freq_base"] = (6, struct.pack("<f", 5000.0))
    facts[f"{kind}.attention.layer_norm_rms_epsilon"] = (6, struct.pack("<f", 1e-5))
    back = {theirs: name for name, theirs in GGUF_NAMES.items()}
    tensors = {}
    for ours, value in source.state_dict().items():
        pattern = ours.replace("blocks.0.", "blocks.{}.").replace("blocks.1.", "blocks.{}.")
        leaf = pattern.rpartition(".")[2]
        name = back[pattern] if pattern in back else back[pattern.replace(leaf, "*")].replace("*", leaf)
        name = name.replace("{}", ours.split(".")[1])
        if kind == "llama" and (".attn_q." in name or ".attn_k." in name):
            heads = 4 if ".attn_q." in name else 2
            value = value.view(heads, 2, -1, *value.shape[1:]).transpose(1, 2).reshape(value.shape)
        tensors[name] = value
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for name, (number, raw) in facts.items():
        head += text(name) + struct.pack("<I", number) + raw
    body = b""
    for name, value in tensors.items():
        head += text(name) + struct.pack(f"<I{value.ndim}QIQ", value.ndim, *reversed(value.shape), 0, len(body))
        body += value.detach().numpy().tobytes()
        body += bytes(-len(body) % 64)
    path.write_bytes(head + bytes(-len(head) % 64) + body)


@pytest.mark.parametrize(("kind", "knobs"), [("llama", {}), ("llama", {"tied": True}), ("qwen2", {"bias": True})])
def test_gguf(tmp_path, kind, knobs):
    source, target = llama(**knobs), llama(**knobs)
    gguf(tmp_path / "a.gguf", source, kind)
    report = load(target, tmp_path)
    assert report.format == "gguf"
    assert same(source, target)
    assert header(tmp_path / "a.gguf").facts[f"{kind}.block_count"] == 2


def test_gguf_of_an_unknown_architecture(tmp_path):
    gguf(tmp_path / "a.gguf", llama(), "gemma")
    with pytest.raises(ValueError, match=r"holds a 'gemma'; known architectures: llama, qwen2, qwen3"):
        read(tmp_path / "a.gguf")


def test_what_is_a_hub_id():
    assert all(hub.is_id(name) for name in ("BlinkDL/rwkv-6-world", "hf://a/b", "hf://a/b@main/c/d.pth"))
    assert not any(hub.is_id(name) for name in ("a", "a/b.pth", "/a/b", "../a", "a/..", "a/b/c", "./a/b", "~/a"))


def test_which_files_of_a_repository_are_fetched():
    both = ["model.safetensors", "pytorch_model.bin", "config.json", "a.py", "onnx/model.safetensors", "README.md"]
    assert hub.choose(both) == ["config.json", "model.safetensors"]
    assert hub.choose(["a.pth", "b.pth"]) == ["a.pth", "b.pth"]


def test_the_hub_out_of_reach_and_not_installed(monkeypatch):
    package = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise ConnectionError("Name or service not known")

    def gone(*_, **__):
        raise package.errors.LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(package.HfApi, "list_repo_files", offline)
    monkeypatch.setattr(package, "snapshot_download", gone)
    with pytest.raises(ConnectionError, match="'some/body', and the hub cannot be reached"):
        load(llama(), "some/body")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'mmrnn\[hub\]'"):
        load(llama(), "some/body")


def test_from_the_hub(tmp_path, monkeypatch):
    package = pytest.importorskip("huggingface_hub")
    source, target = llama(), llama()
    shard(tmp_path, export(source, "llama"))
    names = [path.name for path in tmp_path.iterdir()]
    monkeypatch.setattr(package.HfApi, "list_repo_files", lambda *_, **__: names)
    monkeypatch.setattr(package, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert load(target, "some/body").format == "llama"
    assert same(source, target)
    (tmp_path / "one.pth").write_bytes(b"")
    torch.save(export(source, "llama"), tmp_path / "one.pth")
    fetched = []
    monkeypatch.setattr(package, "hf_hub_download", lambda *a, **k: fetched.append((a, k)) or str(tmp_path / "one.pth"))
    load(target, "hf://some/body@v1/one.pth")
    assert fetched == [(("some/body", "one.pth"), {"revision": "v1"})]


def test_older_rwkv_files_spread_what_a_head_has(tmp_path):
    """RWKV-5.0 and 5.1: one decay and one bonus a head; `time_first` is the logarithm of the bonus."""
    source = RWKV5(vocab=20, width=32, depth=2, head_size=16, gate=False)
    tensors = export(source, "rwkv5")
    for layer in range(2):
        tensors[f"blocks.{layer}.att.time_decay"] = torch.tensor([-1.0, -2.0])
        del tensors[f"blocks.{layer}.att.time_faaaa"]
        tensors[f"blocks.{layer}.att.time_first"] = torch.tensor([0.5, 0.25])
    torch.save(tensors, tmp_path / "a.pth")
    report = load(source, tmp_path / "a.pth")
    assert "4 decays and bonuses of whole heads" in report.notes[0]
    mix = source.blocks[1].time_mix
    assert mix.decay.tolist() == [[-1.0] * 16, [-2.0] * 16]
    assert torch.allclose(mix.bonus[1], torch.tensor(0.25).exp())
    with pytest.raises(WeightsError, match=r"missing: blocks\.0\.time_mix\.gate\.weight"):
        load(RWKV5(vocab=20, width=32, depth=2, head_size=16), tmp_path / "a.pth")


def test_rwkv6_is_not_taken_for_rwkv5():
    with pytest.raises(WeightsError, match="no format of RWKV6"):
        load(
            RWKV6(vocab=20, width=32, depth=2, head_size=16, mix_rank=4, decay_rank=4),
            {"blocks.0.att.time_mix_k": torch.zeros(1), "blocks.0.att.ln_x.weight": torch.zeros(1)},
        )
