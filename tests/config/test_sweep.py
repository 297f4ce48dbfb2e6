"""Sweeps as files: what a card may say, its mistakes, and the jobs that it makes."""

import pytest

from mmrnn.config import recipe_stages
from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.error import ConfigError
from mmrnn.config.sweep import Contrast, read_sweep
from mmrnn.config.sweep_plan import MAX_JOBS, job_name, label, plan_sweep
from mmrnn.config.tree import plain
from mmrnn.config.validate import RUN, check

GOOD = {
    "grid": {"connector": ["linear", "mlp"], "prompt": ["first", "last"]},
    "seeds": [0, 1],
    "vary": {"connector": {"mlp": {"stage.instruct.lr": 0.003, "prompt.system": "a, b"}}},
    "contrasts": [{"group": "prompt", "option": "last", "against": "first", "by": "connector"}],
    "note": "why",
}


def test_jobs_are_all_combinations_with_what_goes_with_their_options():
    plan = plan_sweep(["model=llava15_tiny", "workers=0"], read_sweep(GOOD), card="mine", same={"workers"})
    base, varied = ["model=llava15_tiny", "workers=0"], ["stage.instruct.lr=0.003", 'prompt.system="a, b"']
    assert [*plan.jobs.values()] == [
        [*base, f"connector={connector}", f"prompt={prompt}", f"seed={seed}", *(varied if connector == "mlp" else ())]
        for connector in ("linear", "mlp")
        for prompt in ("first", "last")
        for seed in (0, 1)
    ]
    assert plan.grid == {"connector": ["linear", "mlp"], "prompt": ["first", "last"], "seed": ["0", "1"]}
    assert (plan.card, plan.overrides, plan.note) == ("mine", ["model=llava15_tiny"], "why")
    assert plan.contrasts == [{"group": "prompt", "option": "last", "against": "first", "by": "connector"}]
    assert read_sweep(GOOD).contrasts == (Contrast(group="prompt", option="last", against="first", by="connector"),)


def test_names_outlast_an_extension_another_order_and_settings_that_change_nothing():
    def names(*words, **changes):
        return set(plan_sweep(words, read_sweep(GOOD | changes), same={"workers"}).jobs)

    first = names("data.scenes=12", "stage.instruct.steps=2")
    assert len(first) == 8
    assert names("stage.instruct.steps=2", "data.scenes=12", "workers=2") == first
    grid = {"prompt": ["last", "sandwich", "first"], "connector": ["mlp", "linear"]}
    assert names("data.scenes=12", "stage.instruct.steps=2", grid=grid, seeds=[2, 1, 0]) > first
    assert not names("data.scenes=13", "stage.instruct.steps=2") & first
    other = {"connector": {"mlp": {"stage.instruct.lr": 0.002}}}
    assert len(names("data.scenes=12", "stage.instruct.steps=2", vary=other) & first) == 4
    assert all(name.startswith("job_") for name in first)
    assert job_name(["a=1", "b=2"]) == job_name(["b=2", "a=1"]) != job_name(["a=1", "b=3"])


def test_a_sweep_of_the_command_line_alone():
    plan = plan_sweep(["connector=linear,mlp", "precision=fp32,bf16", "workers=0"], same={"precision", "workers"})
    assert plan.card is None
    assert len(plan.jobs) == 4, "what is swept over names a job, whatever it changes"
    assert plan.overrides == []
    assert plan.grid == {"connector": ["linear", "mlp"], "precision": ["fp32", "bf16"]}
    [first, *_] = plan.jobs.values()
    assert label(first, plan.grid) == "connector=linear precision=fp32"
    assert label(["a=1"], {}) == "a=1"


def test_overrides_of_every_job_yield_to_the_command_line():
    sweep = read_sweep(GOOD | {"overrides": {"recipe": "llava_align", "data.fold": 1}})
    assert plan_sweep([], sweep).overrides == ["recipe=llava_align", "data.fold=1"]
    plan = plan_sweep(["data.fold=0"], sweep)
    assert plan.overrides == ["recipe=llava_align", "data.fold=0"]
    assert all(job[:2] == plan.overrides for job in plan.jobs.values())


def test_a_recipe_of_several_stages():
    sweep = read_sweep({"grid": {"stage.align.steps": [1, 2]}})
    plan = plan_sweep(["model=visualrwkv6_tiny", "recipe=visualrwkv6"], sweep)
    assert [job[-1] for job in plan.jobs.values()] == [f"++stages.align.stage.only.steps={steps}" for steps in (1, 2)]


def test_each_recipe_is_composed_once_for_all_jobs(monkeypatch):
    composed = []
    monkeypatch.setattr(
        recipe_stages, "compose", lambda *words, **more: composed.append(words) or compose(*words, **more)
    )
    plan = plan_sweep(["recipe=visualrwkv6,llava15", "seed=1,2,3"])
    assert len(plan.jobs) == 6
    assert composed == [("recipe=visualrwkv6",), ("recipe=llava15",)]


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "sweep").glob("*.yaml")))
def test_every_card_makes_jobs_that_fit(name):
    sweep = read_sweep(plain(compose(f"sweep={name}").sweep))
    assert sweep.note
    assert sweep.contrasts
    jobs = [*plan_sweep([], sweep, card=name).jobs.values()]
    seen = set()
    for job in jobs:  # each option of the grid once
        if not seen.issuperset(job):
            check(compose(*job), needs=RUN)
            seen.update(job)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"grid": None}, "sweep.grid: expected Mapping[str, tuple[Any, ...]], got None"),
        ({"grid": {}, "seeds": [], "contrasts": [], "vary": {}}, "sweep.grid: there is nothing to cross"),
        ({"grid": {"connector": []}}, "sweep.grid.connector: it has no options; name at least one"),
        ({"grid": {"connector": "linear"}}, "expected tuple[Any, ...], got 'linear'"),
        ({"grids": {}}, "sweep.grids: no such field; did you mean 'grid'?"),
        ({"seeds": [], "more_seeds": [2]}, "sweep.more_seeds: there are no seeds to add them to"),
        ({"more_seeds": [2, 2]}, "sweep.more_seeds: 2, 2 has a value twice"),
        ({"seeds": [1, 1]}, "sweep.seeds: 1, 1 has a value twice"),
        ({"seeds": ["x"]}, "sweep.seeds: expected int"),
        ({"seeds": [-1]}, "sweep.seeds: expected int of"),
        ({"grid": GOOD["grid"] | {"seed": [1]}}, "sweep.grid.seed: seeds are given by sweep.seeds, too"),
        ({"grid": GOOD["grid"] | {"hydra.launcher.n_jobs": [1]}}, "sweep.grid.hydra.launcher.n_jobs: it is no part of"),
        ({"vary": {"conector": {}}}, "sweep.vary.conector: no key of the grid; did you mean 'connector'?"),
        ({"vary": {"connector": {"mpl": {}}}}, "sweep.vary.connector.mpl: no such option in the grid; did you mean"),
        ({"vary": {"connector": {"mlp": {"prompt": "last"}}}}, "sweep.vary.connector.mlp.prompt: the grid crosses"),
        ({"contrasts": "last"}, "sweep.contrasts: expected a list, got 'last'"),
        ({"contrasts": ["last"]}, "sweep.contrasts.0: expected a mapping like {group: prompt"),
        ({"contrasts": [{"group": "prompt", "option": "last"}]}, "sweep.contrasts.0: name an option and what it is"),
        ({"contrasts": [{"group": "prompt", "slope": "log2"}]}, "a slope needs options that are positive numbers"),
        ({"contrasts": [{"group": "prompt", "slope": "log"}]}, "sweep.contrasts.0.slope: expected"),
        (
            {"contrasts": [{"group": "prompt", "slope": "log2", "against": "last"}]},
            "a slope is over all options; remove option and against",
        ),
        ({"overrides": {"prompt": "last"}}, "sweep.overrides.prompt: the grid crosses prompt; remove it"),
        ({"overrides": {"out": "here"}}, "sweep.overrides.out: it is no part of a run; remove it"),
        (
            {"contrasts": [{"group": "promt", "option": "last", "against": "first"}]},
            "sweep.contrasts.0: 'promt' is no key of the grid; did you mean 'prompt'?",
        ),
        (
            {"contrasts": [{"group": "prompt", "option": "lst", "against": "last"}]},
            "sweep.contrasts.0: prompt has no option 'lst' in the grid; did you mean 'last'?",
        ),
        ({"contrasts": [{"group": "prompt", "option": "last", "against": "last"}]}, "'last' is compared with itself"),
        (
            {"contrasts": [{"group": "prompt", "option": "last", "against": "first", "by": "prompt"}]},
            "by 'prompt' is the group itself",
        ),
    ],
)
def test_a_mistake_is_named(change, sentence):
    with pytest.raises(ConfigError) as raised:
        read_sweep(GOOD | change)
    assert sentence in "\n".join(raised.value.faults)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as raised:
        read_sweep({"seeds": [0.5], "notes": ""})
    assert len(raised.value.faults) == 3


def test_what_the_grid_crosses_is_not_set_beside_it():
    for word, way in (("prompt=inline", "sweep.grid.prompt=[...]"), ("seed=3", "sweep.seeds=[...]")):
        with pytest.raises(ConfigError, match="the sweep crosses") as raised:
            plan_sweep([word], read_sweep(GOOD))
        assert f"set {way} in its place" in str(raised.value)


def test_a_grid_without_end_is_refused():
    words = [f"data.scenes=range(1,{MAX_JOBS})", "data.rounds=1,2"]
    with pytest.raises(ConfigError, match=r"the sweep makes 19,998 jobs; cross fewer values"):
        plan_sweep(words)
    assert not plan_sweep(words, jobs=False).jobs
