"""Sizes that the tensors beside a configuration do not have are refused before anything of that size is built."""

import time

import pytest
import torch
import yaml

from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.checkpoints.size_check import check_numbers
from mmrnn.cli.main import main
from mmrnn.config.error import ConfigError


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (
            "backbone.depth",
            1_000_000,
            r"backbone\.depth: 1000000 does not fit the weights beside .* \d+ tensors",
        ),
        ("backbone.depth", 0, r"backbone\.depth: expected int of at least 1, got 0"),
        ("backbone.width", 10**9, r"backbone\.width: 1000000000 does not fit the weights"),
        ("backbone.width", 2048, r"has the shape \(.*\) by the configuration, but \(.*\) in the weights beside it"),
        ("backbone.ffn", 4096, r"ffn\S*|key\.weight has the shape \(4096, "),
        ("backbone.heads", 0, r"backbone\.heads: expected int of at least 1 or null, got 0"),
        ("backbone.vocab", 10**12, r"backbone\.vocab: 1000000000000 does not fit"),
        ("encoder.depth", 10**7, r"encoder\.depth: 10000000 does not fit"),
        ("encoder.width", 4000, r"has the shape \(.*\) by the configuration"),
        ("connector.hidden", [10**8], r"connector\.hidden\.0: 100000000 does not fit"),
    ],
)
def test_sizes_beyond_the_file(tmp_path, model, capsys, path, value, fault):
    save(model(), tmp_path)
    cfg = yaml.safe_load((tmp_path / "config.yaml").read_text())
    node, name = cfg[path.partition(".")[0]], path.partition(".")[2]
    node[name] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg))
    began = time.monotonic()
    with pytest.raises(ConfigError, match=fault):
        load_model(tmp_path)
    assert time.monotonic() - began < 20
    assert main(["ask", "--run", str(tmp_path), "image.png", "what?"]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_areas_have_a_bound_of_their_own():
    """The area up to which a tower reads images is larger than any axis of its weights."""
    tensors = {"encoder.patch_embed.weight": torch.zeros(8, 3)}
    check_numbers({"encoder": {"min_pixels": 65536, "max_pixels": 16777216, "video_max_pixels": 25165824}}, tensors)
    with pytest.raises(ConfigError, match=r"encoder\.min_pixels: 1000000000 must be at most 67108864 in a checkpoint"):
        check_numbers({"encoder": {"min_pixels": 10**9}}, tensors)
