"""Version of RWKV that a file is from."""

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6
from mmrnn.weights import WeightsError, load
from mmrnn.weights.export import export


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
    assert "4 decays and bonuses per head" in report.notes[0]
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
