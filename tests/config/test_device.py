"""Choice of a device by name; what a device lacks is said by name, and what it cannot do is refused."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from mmrnn.config import device as devices
from mmrnn.config.device import accelerator, choose_device, fp64_device, is_device_name, lacking, multiplies_bf16
from mmrnn.config.error import ConfigError
from mmrnn.inference.sampler import Sampler, choose_tokens, seeded_generators
from mmrnn.training.distributed.world import World
from mmrnn.training.precision import resolve


@pytest.fixture
def only(monkeypatch):
    """Let torch find devices of these kinds: `only(mps=1)`; their module answers with the facts given."""
    module = torch.get_device_module

    def install(bf16=True, **counts):
        def find(kind):
            kind = torch.device(kind).type if kind != "npu" else kind
            if kind not in counts and kind in devices.KINDS:
                return SimpleNamespace(device_count=lambda: 0)
            if kind not in counts:
                return module(kind)
            return SimpleNamespace(device_count=lambda: counts[kind], is_bf16_supported=lambda: bf16)

        monkeypatch.setattr(torch, "get_device_module", find)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(counts.get("cuda")))
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: bf16)
        if "npu" in counts:
            monkeypatch.setitem(sys.modules, "torch_npu", ModuleType("torch_npu"))

    return install


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps", "npu", "npu:3", "xpu:0"])
def test_names(name):
    assert is_device_name(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "meta", "xla", "npu0"])
def test_names_of_no_device(name):
    assert not is_device_name(name)
    if name:
        with pytest.raises(ConfigError, match=f"device={name}: must be one of cpu, cuda, xpu, npu, mps"):
            choose_device(name)


def test_a_device_is_taken_by_name_and_cuda_without_one(only):
    only(xpu=2, mps=1)
    assert choose_device("xpu:1") == torch.device("xpu", 1)
    assert choose_device("mps") == torch.device("mps")
    assert choose_device(None) == torch.device("cpu")
    assert accelerator() == "xpu"
    only(cuda=1, xpu=2)
    assert choose_device(None) == torch.device("cuda")
    assert accelerator() == "cuda"
    only()
    assert accelerator() is None


@pytest.mark.parametrize("name", ["mps", "xpu:2"])
def test_a_device_that_is_not_there(only, name):
    only(xpu=2)
    with pytest.raises(ConfigError, match=f"device={name}: torch finds . {name[:3].upper()} devices here; set device="):
        choose_device(name)


def test_a_package_that_is_not_installed_has_its_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(ConfigError, match=r"device=npu: `import torch_npu` fails .*: pip install torch-npu"):
        choose_device("npu")
    assert devices.device_count("npu") == 0


def test_precision_that_a_device_lacks_is_refused(only):
    only(bf16=False, mps=1, xpu=1)
    for kind in ("mps", "xpu"):
        assert not multiplies_bf16(kind)
        assert resolve("auto", kind) == "fp32"
        with pytest.raises(ConfigError, match=f"precision=bf16: device={kind} has no bf16 here; set precision=fp16"):
            resolve("bf16", kind)
        assert resolve("fp16", kind) == "fp16"
    only(mps=1, xpu=1)
    assert resolve("auto", "mps") == resolve("bf16", "xpu") == resolve("auto", "cuda") == "bf16"


def test_what_a_kind_lacks(only):
    only(bf16=False, mps=1, xpu=1)
    words = " ".join(lacking("mps"))
    assert all(each in words for each in ("fp64", "pinned memory", "figures of memory", "several", "Triton", "bf16"))
    assert lacking("xpu") == [
        "Triton kernels (operators run in PyTorch: backend=chunked)",
        "bf16 (precision=auto is fp32)",
    ]
    assert lacking("cuda") == []


def test_several_processes_on_other_devices(only, monkeypatch):
    chosen = []
    monkeypatch.setattr(
        "mmrnn.training.distributed.world.device_module", lambda _: SimpleNamespace(set_device=chosen.append)
    )
    only(xpu=2, mps=1)
    assert World(1, 2, 1).device("xpu") == torch.device("xpu", 1)
    assert chosen == [1]
    with pytest.raises(ConfigError, match="rank 2 is number 2 on its machine, which has 2 GPUs"):
        World(2, 3, 2).device("xpu")
    with pytest.raises(ConfigError, match="device=mps: several processes cannot share it"):
        World(0, 2, 0).device("mps")


def test_tokens_are_drawn_on_the_cpu_where_a_device_lacks_fp64(monkeypatch):
    assert fp64_device(torch.device("mps")) == torch.device("cpu")
    assert fp64_device(torch.device("xpu", 1)) == torch.device("xpu", 1)
    logits, samplers = torch.randn(2, 9), [Sampler(1.0, seed=1), Sampler()]
    expected = choose_tokens(logits, samplers, seeded_generators(samplers, logits.device), [[], []])
    meant = []
    monkeypatch.setattr(
        "mmrnn.inference.sampler.fp64_device", lambda device: meant.append(device) or torch.device("cpu")
    )
    found = choose_tokens(logits, samplers, seeded_generators(samplers, torch.device("mps")), [[], []])
    assert torch.equal(found, expected)
    assert torch.device("mps") in meant
