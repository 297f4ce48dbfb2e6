"""Places of processes, as launchers tell them."""

import pytest

from mmrnn.config.error import ConfigError
from mmrnn.training.distributed.launchers import first_host, read_launch
from mmrnn.training.distributed.world import World, start_world

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-05,09]",
    "SLURM_JOB_ID": "1234567",
}


def test_torchrun():
    assert read_launch(TORCHRUN)[:4] == (3, 8, 1, "")


def test_srun():
    place = read_launch(SRUN)
    assert place[:4] == (5, 16, 1, "gpu03")
    assert 20_000 <= place.port < 40_000
    assert place.port == read_launch({**SRUN, "SLURM_PROCID": "6"}).port


@pytest.mark.parametrize(
    "variables",
    [{}, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}],
)
def test_one_process_is_alone(variables):
    assert read_launch(variables) is None
    with start_world(environment=variables) as world:
        assert world == World()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[03-05,09],login1", "gpu03"),
        ("gpu[7,9]", "gpu7"),
        ("a[1-2]-ib", "a1-ib"),
    ],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "x"}, {"RANK": "1", "WORLD_SIZE": "²"}, {"PMI_SIZE": "4"}])
def test_variables_that_make_no_sense(variables):
    with pytest.raises(ConfigError, match=next(name for name in variables if name != "RANK")):
        read_launch(variables)


def test_alone_collectives_return_what_they_are_given():
    world = World()
    assert world.sum([1.0, 2.0]) == world.max([1.0, 2.0]) == [1.0, 2.0]
    assert world.gather("a") == ["a"]
    assert world.broadcast("a") == world.on_main(lambda: "a") == "a"
    assert world.any(True)
    assert not world.any(False)


@pytest.mark.parametrize(("kind", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_a_gpu_that_is_not_there(kind, gpus, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(ConfigError, match=f"device={kind}: torch finds {gpus} CUDA devices here; set device=cpu"):
        World().device(kind)
