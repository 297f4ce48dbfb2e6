"""Faults of configurations, and targets that are refused."""

import sys

import pytest

import mmrnn
from mmrnn.config.compose import compose, sweep_jobs
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import find_target, instantiate
from mmrnn.config.tree import plain
from mmrnn.config.validate import card_faults, check
from mmrnn.model.build import build


def faults_of(*overrides: str, trusted=(), **options) -> tuple[str, ...]:
    """The faults of a configuration, empty when it fits."""
    try:
        check(compose(*overrides, **options), trusted=trusted)
    except ConfigError as error:
        return error.faults
    return ()


def test_a_valid_configuration_has_no_faults():
    assert faults_of("model=visualrwkv6_tiny", "connector.bias=false") == ()


def test_every_fault_of_the_overrides_is_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        compose("model=visualrwkv6_tiny", "connector=qformr", "bakbone=rwkv6_tiny", "backbone.dept=3", "seed")
    faults = caught.value.faults
    assert [fault.split(":")[0] for fault in faults] == ["connector=qformr", "bakbone", "seed", "backbone.dept"]
    assert "did you mean 'qformer'?" in faults[0]
    assert "did you mean 'backbone'?" in faults[1]
    assert "key=value" in faults[2]
    assert "did you mean 'depth'?" in faults[3]


def test_an_option_that_is_close_to_none_lists_all():
    with pytest.raises(ConfigError, match=r"there is no card scan/xyz; there are: bidirectional, forward"):
        compose("model=visualrwkv6_tiny", "scan=xyz")


def test_a_sweep_in_the_wrong_place_is_explained():
    with pytest.raises(ConfigError, match=r"connector=linear,mlp: several values in one run; sweep over them with -m"):
        compose("connector=linear,mlp")


def test_every_fault_of_the_cards_is_listed_at_once():
    faults = faults_of("model=visualrwkv6_tiny", "+backbone.dept=3", "backbone.width=wide", "+connector.in_dim=7")
    assert len(faults) == 3
    assert "connector.in_dim: the builder supplies it from the neighbouring part; remove it" in faults
    assert "backbone.width: expected int, got 'wide'" in faults
    assert "backbone.dept: RWKV6 has no such knob; did you mean 'depth'?" in faults


def test_values_that_belong_to_no_part():
    wrong = ("seed=one", "evaluate.every=1.5", "feature_cache_gib=0.5", "max_skipped=2")
    faults = faults_of("model=visualrwkv6_tiny", *wrong)
    assert faults == (
        "seed: expected int, got 'one'",
        "max_skipped: expected float of at least 0 and of at most 1, got 2.0",
        "evaluate.every: expected int, got 1.5",
    )
    faults = faults_of("model=visualrwkv6_tiny", "evaluate.tasks=gqa")
    assert faults == ("evaluate.tasks: expected tuple[str, ...], got 'gqa'",)


def test_the_optimizer_and_schedule_of_a_stage_are_checked():
    own = ("model=visualrwkv6_tiny", "+optimizer@stage.instruct.optimizer=muon")
    assert faults_of(*own, "stage.instruct.optimizer.momentum=0.9", "+schedule@stage.instruct.schedule=linear") == ()
    assert faults_of(*own, "+stage.instruct.optimizer.lr=1", "stage.instruct.schedule=linear") == (
        "stage.instruct.schedule: expected a card, got 'linear'; set +schedule@stage.instruct.schedule=NAME",
        "stage.instruct.optimizer.lr: the builder supplies it from the neighbouring part; remove it",
    )
    [fault] = faults_of("model=visualrwkv6_tiny", "+schedule@stage.instruct.optimizer=linear")
    assert "Linear does not fulfil the contract mmrnn.types.Optimizer" in fault
    faults = faults_of("model=visualrwkv6_tiny", "schedule.warmup=few", "+optimizer.beta=1")
    assert faults == (
        "optimizer.beta: MuonWithAdamW has no such knob; did you mean 'betas'?",
        "schedule.warmup: expected int, got 'few'",
    )


def test_a_missing_knob_is_named():
    cfg = plain(compose("model=visualrwkv6_tiny"))
    cfg["connector"] = {"_target_": "mmrnn.connectors.Sequential"}
    with pytest.raises(ConfigError, match=r"connector.parts: Sequential requires it; add it to the card"):
        check(cfg)


def test_a_missing_choice_is_named():
    assert faults_of("model=visualrwkv6_tiny", "~connector") == (
        "connector: no card is chosen; set connector=NAME (`mmrnn list connector` shows them)",
    )


def test_a_class_that_is_not_there():
    faults = faults_of("model=visualrwkv6_tiny", "connector._target_=mmrnn.connectors.Liner")
    assert faults == ("connector._target_: there is no 'Liner' in mmrnn.connectors; did you mean 'Linear'?",)


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("mmrnn.conectors.Linear", "there is no 'conectors' in mmrnn; did you mean 'connectors'?"),
        ("mmrnn.connectors.Linear.Inner", "there is no 'Inner' in mmrnn.connectors.Linear"),
        ("mmrnn.connectors", "'mmrnn.connectors' is neither a class nor a function"),
    ],
)
def test_targets_that_lead_nowhere(target, fault):
    assert [*card_faults({"_target_": target}, "connector")] == [f"connector._target_: {fault}"]


def test_a_scan_needs_a_recurrent_backbone():
    [fault] = faults_of("model=llava15_tiny", "scan=bidirectional")
    assert fault.startswith("scan: bidirectional reorders patches for recurrent backbones")
    assert "scan=forward" in fault


@pytest.mark.parametrize(
    ("overrides", "path", "reason"),
    [
        (("model=visualrwkv6_tiny", "horizon=2"), "horizon", "rows are read at once; set train_chunk, or horizon=1"),
        (("model=llava15_tiny", "train_chunk=64"), "train_chunk", "Transformer attends to all positions before"),
        (
            ("model=visualrwkv6_tiny", "train_chunk=64", "objective=eve_tiny"),
            "train_chunk",
            "WeightedSum is no sum over targets and needs a whole batch; use train_chunk=0",
        ),
        (("model=visualrwkv6_tiny", "mask=prefix"), "mask", "RWKV6 is recurrent and cannot use prefix"),
        (("model=visualrwkv6_tiny", "position=shared_image"), "position", "use position=sequential"),
        (("model=llava15_tiny", "position=glm_2d"), "position", "2 position ids a token, but Transformer takes 1"),
        (("model=visualglm_tiny", "position=sequential"), "position", "GLM takes 2; use position=glm_2d"),
        (("model=llava15_tiny", "position=mrope"), "position", "3 position ids a token, but Transformer takes 1"),
        (("model=visualrwkv6_tiny", "backbone=delta_tiny", "position=mrope"), "position", "Hybrid is recurrent and"),
        (
            ("model=visualrwkv6_tiny", "backbone=hybrid_tiny", "position=glm_2d"),
            "position",
            "2 position ids a token, but Hybrid takes 1 or 3; use position=sequential",
        ),
        (
            ("model=visualrwkv6_tiny", "backbone=hybrid_tiny", "train_chunk=64"),
            "train_chunk",
            "Hybrid attends to all positions before",
        ),
        (
            ("model=visualrwkv6_tiny", "backbone=hybrid_tiny", "backbone.pattern=[delta,mamba]"),
            "backbone.pattern",
            "pattern names 'mamba', but mixers has delta, attention",
        ),
        (
            ("model=visualrwkv6_tiny", "backbone=hybrid_tiny", "backbone.mixers.attention.mrope_section=[2,2,2]"),
            "backbone.mixers.attention.mrope_section",
            "mrope_section (2, 2, 2) must sum to the 4 frequencies",
        ),
        (
            ("model=visualglm_tiny", "hook=visual_expert"),
            "hook",
            "changes the attention of a block, which GLM does not",
        ),
        (("model=visualrwkv6_tiny", "hook=visual_expert"), "hook", "does not support; use hook=mlp_expert"),
        (("model=blip2_tiny", "hook=tiny_attention"), "hook", "the input and output of a block, which HFDecoder does"),
        (("model=flamingo_tiny", "hook=visual_expert"), "hook", "the text, and VisualExpert does not attend to them"),
        (("model=llava15_tiny", "connector=flamingo_tiny"), "hook", "no hook attends to them; use hook=gated_cross_"),
        (("model=llava15_tiny", "hook=gated_cross_attention_tiny"), "connector", "use connector=flamingo"),
        (("model=blip2_t5_tiny", "batching=packed"), "batching", "reads one sample a row, and Packed packs several"),
        (("model=blip2_t5_tiny", "mask=prefix"), "mask", "is bidirectional already; use mask=causal"),
        (
            ("model=blip2_t5_tiny", "evaluate.distance=[9]"),
            "evaluate.distance",
            "HFEncoderDecoder reads a prompt as a whole",
        ),
        (
            ("model=llava15_tiny", "mask=prefix", "evaluate.distance=[9]"),
            "evaluate.distance",
            "prefix reads a prompt as a whole",
        ),
    ],
)
def test_parts_that_do_not_fit_together(overrides, path, reason):
    [fault] = faults_of(*overrides)
    assert fault.startswith(f"{path}: ")
    assert reason in fault


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=llava15_tiny", "mask=prefix", "position=shared_image"),
        ("model=llava15_tiny", "evaluate.distance=[9]"),
        ("model=visualrwkv6_tiny", "hook=mlp_expert"),
        ("model=visualrwkv6_tiny", "hook=tiny_attention_tiny"),
        ("model=flamingo_tiny", "backbone=rwkv5_tiny"),
        ("model=cogvlm_tiny", "connector=resampler_tiny"),
    ],
)
def test_parts_that_fit_together(overrides):
    assert faults_of(*overrides) == ()


def test_a_tokenizer_larger_than_the_backbone():
    cfg = plain(compose("model=visualrwkv6_tiny", "backbone.vocab=10"))
    cfg["tokenizer"] = {"_target_": "mmrnn.tokenizers.HFTokenizer", "vocab": 11}
    with pytest.raises(ConfigError, match=r"it has 11 ids, but backbone.vocab=10; .* set backbone.vocab=11"):
        check(cfg)


def test_weights_that_are_not_there(tmp_path):
    faults = faults_of("model=visualrwkv6_tiny", f"weights.backbone={tmp_path}/none.pth", "+weights.enc=x")
    assert faults[0] == f"weights.backbone: no such file or folder: '{tmp_path}/none.pth'"
    assert faults[1].startswith("weights.enc: no such part; there are: model, backbone, encoder")


def test_a_part_that_refuses_its_knobs_is_named():
    with pytest.raises(ConfigError, match=r"encoder: .*image size \(.*must be a multiple of patch \(7\)"):
        build(compose("model=visualrwkv6_tiny", "encoder=patch_tiny", "encoder.patch=7"))


@pytest.mark.parametrize("target", ["os.system", "subprocess.run", "builtins.eval", "torch.load"])
def test_code_outside_mmrnn_is_refused(target):
    with pytest.raises(ValueError, match=r"outside mmrnn; to trust it, set trusted=\["):
        instantiate({"_target_": target, "command": "true"})


def test_nothing_is_imported_before_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "intruder.py").write_text("raise SystemExit('this ran')")
    monkeypatch.syspath_prepend(tmp_path)
    [fault] = card_faults({"_target_": "intruder.Part"}, "encoder")
    assert fault.startswith("encoder._target_: 'intruder.Part' would run code of 'intruder'")
    assert "intruder" not in sys.modules


@pytest.mark.parametrize(
    "target", ["mmrnn.io.tensor_files.pickle.loads", "mmrnn.cli.main.import_module", "mmrnn.config.compose.Path.home"]
)
def test_what_our_modules_import_cannot_be_reached_through_them(target):
    with pytest.raises(ValueError, match="outside mmrnn"):
        find_target({"_target_": target})


def test_a_function_of_ours_is_not_called_by_a_card(tmp_path):
    card = {"_target_": "mmrnn.checkpoints.config_file.save_config", "folder": str(tmp_path), "cfg": {"written": True}}
    with pytest.raises(ValueError, match="is a function; name a class"):
        instantiate(card)
    assert [*tmp_path.iterdir()] == []


def test_a_card_of_another_package(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text(
        "from mmrnn.connectors import Linear\n"
        "class Mine(Linear):\n"
        "    def __init__(self, in_dim, out_dim=None, *, twice: bool = False, **more):\n"
        "        super().__init__(in_dim, out_dim, **more)\n"
    )
    (tmp_path / "cards" / "connector").mkdir(parents=True)
    (tmp_path / "cards" / "connector" / "mine.yaml").write_text("_target_: elsewhere.Mine\ntwice: true\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = compose("model=visualrwkv6_tiny", "connector=mine", dirs=[tmp_path / "cards"])
    with pytest.raises(ConfigError, match=r"trusted=\[elsewhere\]"):
        build(cfg)
    model = build(cfg, trusted=["elsewhere"])
    assert type(model.modalities["image"].connector).__name__ == "Mine"


def test_a_folder_of_cards_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder of cards"):
        compose(dirs=[tmp_path / "none"])


def test_a_reference_that_leads_nowhere():
    assert faults_of("model=visualrwkv6_tiny", "seed=${sed}") == ("seed: Interpolation key 'sed' not found",)


def test_the_jobs_of_a_sweep():
    faults = [*sweep_jobs("connector=linear,mlp", "seed=range(1,3)", "scan=glob(s*)", "backbone=rwkv6_tiny")]
    assert len(faults) == 2 * 2 * 2
    assert faults[0] == ["connector=linear", "seed=1", "scan=snake", "backbone=rwkv6_tiny"]


def test_a_second_modality():
    cfg = plain(compose("model=visualrwkv6_tiny"))
    cfg["modalities"] = {"state": {"encoder": cfg["encoder"], "connector": cfg["connector"]}}
    assert set(build(cfg).modalities) == {"image", "state"}
    cfg["modalities"]["state"]["connector"] = {"_target_": "mmrnn.connectors.Linear", "dept": 1}
    with pytest.raises(ConfigError, match=r"modalities.state.connector.dept: Linear has no such knob"):
        check(cfg)


def test_compose_inside_a_running_hydra_application():
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(mmrnn.conf_dir()), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        compose("model=visualrwkv6_tiny")
        assert GlobalHydra.instance().hydra is running
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tokenizer", "mmrnn"),
        ("prompt", [1]),
        ("stage", "connector"),
        ("modalities", 3),
        ("weights", "a.pth"),
        ("data", "x"),
    ],
)
def test_a_node_of_another_shape(path, value):
    """A group that is no mapping ended in AttributeError, in whatever read it first."""
    tree = plain(compose("model=visualrwkv6_tiny"))
    with pytest.raises(ConfigError, match=rf"^{path}: expected a (card|mapping of \w+( to files)?), got "):
        check({**tree, path: value})


def test_an_option_that_timm_stumbles_over():
    with pytest.raises(ConfigError, match=r"encoder: timm cannot build .* with .*: KeyError: 'ull'"):
        build(compose("model=visualrwkv6_tiny", "encoder.act=ull"))
