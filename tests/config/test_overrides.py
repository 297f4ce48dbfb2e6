"""Overrides as people paste them: read as they are meant, or refused with the words that would do."""

from pathlib import Path

import pytest

from mmrnn.config.compose import compose, sweep_jobs
from mmrnn.config.error import ConfigError
from mmrnn.config.overrides import readable
from mmrnn.config.validate import check


@pytest.mark.parametrize(
    "path",
    [
        "/a/epoch=1.json",
        "/图/a.json",
        "/a/x(1).json",
        "/a/it's.json",
        'a"b".json',
        "C:\\a\\b.json",
        "a b.json",
        "/a/ü#.json",
    ],
)
def test_paths_are_read_as_written(path):
    assert compose("data=llava", f"data.file={path}").data.file == path


def test_the_home_folder():
    assert compose("data=llava", "data.file=~/a (1).json").data.file == str(Path.home() / "a (1).json")
    assert compose("data=llava", "data.file='~/a.json'").data.file == "~/a.json"


def test_what_hydra_can_read_is_left_alone():
    own = ["seed=1,2", "scan=glob(s*)", "~hook", "+a.b={c: 1}", "x=[a,b]", "y='a=b'", "z=${seed}", "seed=range(1,3)"]
    assert readable(own) == own


def test_a_sweep_over_pasted_paths():
    assert [*sweep_jobs("data=llava", "data.file=/a=1.json", "seed=1,2")][1][1:] == ['data.file="/a=1.json"', "seed=2"]


def test_a_mapping_may_have_new_keys_and_is_checked():
    cfg = compose("data=llava", "stage.instruct.lr_mult={encoder:0.1}")
    check(cfg)
    assert dict(cfg.stage.instruct.lr_mult) == {"encoder": 0.1}
    with pytest.raises(ConfigError, match=r"stage.instruct.stps: Stage has no such knob; did you mean 'steps'"):
        check(compose("stage.instruct={stps: 3}"))
    with pytest.raises(
        ConfigError, match=r"backbone.arch.num_hiden_layers: opt has no such size; did you mean 'num_hid"
    ):
        check(compose("model=blip2_tiny", "backbone.arch={num_hiden_layers: 3}"))


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.file=/a,b=1.json", """quote it: 'data.file="/a,b=1.json"'"""),
        ("data.file=[a", "quote it: "),
        ("model.x=1", "model.x: model is a group of cards, which is chosen by model=NAME and has no knobs"),
        ("evaluate={evry: 3}", "evaluate.evry: no such knob; did you mean 'every'?"),
        ("scan.speed=3", "scan.speed: no such knob; there are none"),
        ("evaluate.evry=3", "evaluate.evry: no such knob; did you mean 'every'?"),
    ],
)
def test_what_cannot_be_read_is_told(override, fault):
    with pytest.raises(ConfigError) as caught:
        compose("data=llava", override)
    assert fault in str(caught.value)


def test_a_setting_that_is_not_there():
    with pytest.raises(ConfigError, match=r"evaluate.evry: no such setting; did you mean 'every'"):
        check(compose("+evaluate.evry=3"))
