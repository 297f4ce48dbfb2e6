"""Frozen matrices in bf16: which they are, and every design runs with them."""

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.data import Collator
from mmrnn.inference.generate import generate
from mmrnn.model.build import build
from mmrnn.training.build import build_parts
from mmrnn.training.distributed.world import World
from mmrnn.training.frozen import cast_frozen, resolve_frozen_dtype
from mmrnn.training.run import train
from tests.conf.test_cards import two_rows_with_images
from tests.training.distributed.ranks import run_ranks

TINY = sorted(path.stem for path in (conf_dir() / "model").glob("*_tiny.yaml"))
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL = (
    "model=visualrwkv6_tiny",
    "data.scenes=8",
    "data.rounds=2",
    "stage=align",
    "stage.align.steps=3",
    "stage.align.batch_size=4",
    "evaluate.samples=3",
    "evaluate.max_new_tokens=4",
    "precision=bf16",
)


@pytest.mark.parametrize(
    ("setting", "precision", "device", "found"),
    [
        ("auto", "bf16", CPU, torch.float32),
        ("auto", "auto", GPU, torch.bfloat16),
        ("auto", "bf16", GPU, torch.bfloat16),
        ("auto", "fp32", GPU, torch.float32),
        ("auto", "fp16", GPU, torch.float32),
        ("fp32", "bf16", GPU, torch.float32),
        ("bf16", "bf16", CPU, torch.bfloat16),
    ],
)
def test_setting(setting, precision, device, found):
    assert resolve_frozen_dtype(setting, precision, device) == found


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bf16_needs_a_forward_pass_in_bf16(precision):
    with pytest.raises(ConfigError, match="frozen_dtype: bf16 needs a forward pass in bf16, not in fp"):
        resolve_frozen_dtype("bf16", precision, GPU)


@pytest.mark.parametrize("name", TINY)
def test_every_design(name):
    """The connector learns in front of a frozen language model, with the loss of one that is frozen in fp32."""
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = build(compose(f"model={name}", "weights={}")).eval()
        batch = two_rows_with_images(model)
        names = [key for key, _ in model.named_parameters()]
        # Where the connector has no parameters, the encoder learns.
        trained = {key for key in names if ".connector." in key} or {key for key in names if ".encoder." in key}
        cast_frozen(model, trained, dtype)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(key in trained)
            assert parameter.dtype == (dtype if key not in trained and parameter.dim() > 1 else torch.float32), key
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.head(model(batch).hidden)
            loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch.sequence.labels[:, 1:].flatten())
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
        losses.append(loss.item())
    with torch.autocast("cpu", torch.bfloat16):
        assert [len(reply) for reply in generate(model, batch, max_new_tokens=2)] == [2, 2]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_a_run(tmp_path):
    """Evaluation reads the frozen matrices too, and the saved ones have half the size."""
    cfg = plain(compose(*SMALL, "frozen_dtype=bf16"))
    parts = build_parts({**cfg, "choices": {}})
    assert parts.trained
    train(cfg, tmp_path)
    saved = load_file(str(tmp_path / "model.safetensors"))
    for name, value in parts.model.state_dict().items():
        frozen = name not in parts.trained and value.dim() > 1
        assert value.dtype == saved[name].dtype == (torch.bfloat16 if frozen else torch.float32), name
        assert torch.equal(value, saved[name]) or not frozen, name


def first_loss(world, cfg):
    """Loss and norm of the gradient of the first samples, the dtypes of all parameters, and the connector."""
    parts = build_parts(cfg, world)
    [stage] = parts.stages.values()
    stage.apply_freezing(parts.model)
    step = parts.strategy.wrap(parts.step)
    collate = Collator(parts.tokenizer, parts.prompt, dict(parts.model.modalities), max_length=cfg["max_length"])
    with torch.autocast("cpu", torch.bfloat16):
        loss, *_ = step(collate([parts.data[index] for index in range(4)]), (1.0,))
    loss.backward()
    gradients = [value.grad for value in parts.model.parameters() if value.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    [connector] = [part.connector for part in parts.model.modalities.values()]
    learnt = [value.full_tensor() if isinstance(value, DTensor) else value for value in connector.parameters()]
    dtypes = {name: str(value.dtype) for name, value in parts.model.named_parameters()}
    return (
        loss.item(),
        float(norm.full_tensor() if isinstance(norm, DTensor) else norm),
        dtypes,
        [value.detach() for value in learnt],
    )


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("adapter=lora", 'stage.align.train=[connector,"*lora_*"]')])
def test_sharded(tmp_path, more):
    """Blocks with frozen matrices in bf16 and learning ones in fp32 are sharded as one."""
    if more:
        pytest.importorskip("peft")
    alone = plain(compose(*SMALL, "model=llava15_tiny", "weights={}", "frozen_dtype=bf16", *more)) | {"choices": {}}
    expected = first_loss(World(), alone)
    assert {"torch.float32", "torch.bfloat16"} == set(expected[2].values())
    sharded = {**alone, "strategy": plain(compose(config="strategy/fsdp"))["strategy"]}
    for loss, norm, dtypes, connector in run_ranks(2, first_loss, tmp_path, sharded):
        assert dtypes == expected[2]
        assert all(map(torch.equal, connector, expected[3]))
        assert loss == pytest.approx(expected[0], rel=2e-3)
        assert norm == pytest.approx(expected[1], rel=1e-2)


def test_the_default_on_a_cpu_is_fp32():
    parts = build_parts({**plain(compose(*SMALL)), "choices": {}})
    assert {value.dtype for value in parts.model.parameters()} == {torch.float32}
