"""Native decoding gives the results of the blocks, whatever happened to the model in between."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmrnn.backbones import RWKV5, RWKV6, rwkv
from mmrnn.backbones.native_decode import PREPARED, max_rows
from mmrnn.types import Sequence, State
from mmrnn_kernels import decode_step

pytestmark = pytest.mark.skipif(
    decode_step.unavailable_reason() is not None, reason=str(decode_step.unavailable_reason())
)

SIZES = {"vocab": 51, "width": 48, "depth": 3, "head_size": 16, "ffn": 80}


def rwkv6(**knobs):
    return randomised(RWKV6(**SIZES, mix_rank=5, decay_rank=7, **knobs))


def rwkv5(**knobs):
    return randomised(RWKV5(**SIZES, **knobs))


def randomised(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(params=[rwkv6, rwkv5])
def make(request):
    return request.param


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def calls(monkeypatch):
    """Every result of the native step; None: the blocks computed it."""
    found, plain = [], rwkv.native_decode_step
    monkeypatch.setattr(rwkv, "native_decode_step", lambda *inputs: found.append(plain(*inputs)) or found[-1])
    return found


def token(rows=1):
    return Sequence(torch.randint(0, 51, (rows, 1)))


def read(model, rows=1, length=6) -> State:
    return model(Sequence(torch.randint(0, 51, (rows, length))))[1]


def run_blocks(model, sequence, state):
    """Run the blocks without native decoding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rwkv, "native_decode_step", lambda *_: None)
        return model(sequence, state)


def close(model, sequence, state, tolerance=2e-5):
    hidden, after = model(sequence, state)
    expected, then = run_blocks(model, sequence, state)
    assert hidden.dtype == expected.dtype
    assert (hidden - expected).abs().max() <= tolerance * expected.abs().max()
    for one, other in zip(after.layers, then.layers, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            assert (one[name] - other[name]).abs().max() <= tolerance * other[name].abs().max(), name
    return hidden, after


@pytest.mark.parametrize("rows", [1, 2, 5, 17])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 4e-2)])
def test_equals_the_blocks(make, calls, rows, dtype, tolerance):
    model = make().to(dtype)
    state = read(model, rows)
    for _ in range(3):
        _, state = close(model, token(rows), state, tolerance)
    assert all(answer is not None for answer in calls[1:])
    assert calls[0] is None, "the blocks read a prompt"


@pytest.mark.parametrize(
    ("dtype", "feature", "most"),
    [
        (torch.float32, "has_avx512", {True: 127, False: 40}),
        (torch.bfloat16, "multiplies_bf16", {True: 24, False: 256}),
    ],
)
@pytest.mark.parametrize("present", [True, False])
def test_largest_batch(make, calls, monkeypatch, dtype, feature, most, present):
    monkeypatch.setattr(f"mmrnn.backbones.native_decode.{feature}", lambda: present)
    model, most = make().to(dtype), most[present]
    assert max_rows(dtype) == most
    for rows in (most, most + 1):
        model(token(rows))
    assert [answer is None for answer in calls] == [False, True]


def test_bf16_is_as_accurate_as_the_blocks(make):
    model = make().bfloat16()
    exact = make().double()
    exact.load_state_dict(model.state_dict())
    state, step = read(model), token()
    truth = run_blocks(exact, step, state.map(torch.Tensor.double))[0]
    hidden, plain = model(step, state)[0], run_blocks(model, step, state)[0]
    assert (hidden - truth).abs().max() <= 1.5 * (plain - truth).abs().max()


def test_continuing_twice_from_one_state(make):
    model = make()
    state = read(model, rows=2)
    for _ in range(2):  # also a state that the native code itself has made
        kept, step = state.clone(), token(2)
        first, after = model(step, state)
        copied, turned = after.clone(), after.select(torch.tensor([1, 0]))
        again, _ = model(step, state)
        assert torch.equal(first, again)
        for now, then in ((state, kept), (after, copied)):
            for one, other in zip(now.layers, then.layers, strict=True):
                assert all(torch.equal(one[name], other[name]) for name in one)
        close(model, token(2), turned)
        close(model, token(1), after.select(torch.tensor([1])))
        state = after


def test_native_state_file_round_trip(make, tmp_path):
    model = make()
    _, state = model(token(), read(model))
    state.save(tmp_path / "state.safetensors")
    back = State.load(tmp_path / "state.safetensors")
    assert back.nbytes == state.nbytes == model.state(1).nbytes
    step = token()
    assert torch.equal(model(step, back)[0], model(step, state)[0])


def test_a_learned_start_state(make):
    model = make(learned_state=True)
    close(model, token(3), model.state(3))


CHANGES: dict[str, Callable] = {
    "an optimizer": lambda model: [p.add_(0.1) for p in model.parameters()],
    "writing to data": lambda model: [p.data.mul_(0.9) for p in model.parameters()],
    "loading": lambda model: model.load_state_dict({k: v * 1.1 for k, v in model.state_dict().items()}),
    "loading by assignment": lambda model: model.load_state_dict(
        {k: v * 1.1 for k, v in model.state_dict().items()}, assign=True
    ),
    "another type": lambda model: model.bfloat16().float(),
    "a new parameter": lambda model: setattr(
        model.blocks[1].time_mix.key, "weight", nn.Parameter(torch.randn_like(model.blocks[1].time_mix.key.weight))
    ),
    "a new layer": lambda model: setattr(model.blocks[1].channel_mix, "key", nn.Linear(48, 80, bias=False)),
    "a new block": lambda model: model.blocks.__setitem__(1, copy.deepcopy(model.blocks[2])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(make, change):
    model = make()
    step, state = token(), read(model)
    before, _ = model(step, state)
    CHANGES[change](model)
    after, _ = close(model, step, state)
    assert (after - before).abs().max() > 1e-4


def test_training_in_between(make):
    model = make()
    step, state = token(), read(model)
    before, _ = model(step, state)
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=0.01)
        hidden, _ = model(step, state)
        model.head(hidden).square().sum().backward()
        assert all(p.grad is not None for p in model.blocks.parameters())
        optimizer.step()
    after, _ = close(model.eval(), step, state)
    assert (after - before).abs().max() > 1e-3


class Bias(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs):
        mixed, state = self.inner(*inputs)
        return mixed + 1, state


class NoAddress(torch.Tensor):
    """A weight without memory of its own, as a quantised one; what is computed with it is a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def detach(self):
        return super().detach().as_subclass(NoAddress)

    def data_ptr(self):
        raise RuntimeError("no address")


CASES = ["hook", "part", "bias", "double", "transposed", "subclass", "backend", "training", "autocast"]


@pytest.mark.parametrize("change", CASES)
def test_falls_back_to_the_blocks(make, calls, change):
    model = make()
    step, state = token(), read(model)
    model(step, state)
    if change == "hook":
        model.blocks[1].time_mix.register_forward_hook(lambda _module, _inputs, output: (output[0] + 1, output[1]))
    elif change == "part":
        mix = model.blocks[1].time_mix
        model.blocks[1].time_mix = Bias(mix)
        model.blocks[1].time_mix.heads, model.blocks[1].time_mix.backend = mix.heads, mix.backend
    elif change == "bias":
        model.blocks[1].time_mix.key = nn.Linear(48, 48)
    elif change == "double":
        model, state = model.double(), state.map(torch.Tensor.double)
    elif change == "transposed":
        weight = model.blocks[1].time_mix.key.weight
        weight.data = weight.data.T.contiguous().T
    elif change == "subclass":
        key = model.blocks[1].time_mix.key
        key.weight = nn.Parameter(key.weight.detach().as_subclass(NoAddress))
        assert type(key.weight) is NoAddress
    elif change == "backend":
        model = make(backend="reference")
    elif change == "training":
        model.train()
    with torch.autocast("cpu", enabled=change == "autocast"):
        calls.clear()
        close(model, step, state)
        close(model, step, state)
    assert calls == [None] * 2


def test_gradients_come_from_the_blocks(make, calls):
    model = make()
    with torch.enable_grad():
        model.head(model(token())[0]).square().sum().backward()
    assert calls == [None]


def test_other_sizes_fall_back(calls):
    model = randomised(RWKV6(vocab=9, width=24, depth=1, head_size=8, mix_rank=2, decay_rank=2))
    model(Sequence(torch.tensor([[1]])))
    assert calls == [None]


def test_a_wrong_state_falls_back(make):
    model = make()
    no_address = read(model, rows=2).map(lambda x: x.as_subclass(NoAddress))
    for state in (read(model, rows=3), State(read(model).layers[:2]), State(({},) * 3), no_address):
        assert rwkv.native_decode_step(model, torch.randn(2, 1, 48), state) is None


def test_without_a_compiler(make, monkeypatch):
    model = make()
    step, state = token(), read(model)
    expected = model(step, state)[0]
    monkeypatch.setattr("mmrnn.backbones.native_decode.unavailable_reason", lambda: "no C++ compiler was found")
    monkeypatch.setattr("mmrnn_kernels.decode_step.unavailable_reason", lambda: "no C++ compiler was found")
    found = model(step, state)[0]
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_copies_and_pickles_are_prepared_anew(make):
    model = make()
    step, state = token(), read(model)
    before = model(step, state)[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin.blocks[0].time_mix.key.weight.mul_(3)
        assert (close(twin, step, state)[0] - before).abs().max() > 1e-4
    assert torch.equal(model(step, state)[0], before)
    count = len(PREPARED)
    del model, twin
    assert len(PREPARED) < count, "a prepared step lives no longer than its model"


def test_threads_change_nothing(make):
    model = make()
    step, state = token(3), read(model, rows=3)
    alone = model(step, state)[0]
    torch.set_num_threads(2)
    try:
        assert torch.equal(model(step, state)[0], alone)
    finally:
        torch.set_num_threads(1)
