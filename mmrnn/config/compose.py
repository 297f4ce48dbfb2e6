"""Composition of a configuration from overrides: the only module that uses Hydra."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.config.error import ConfigError
from mmrnn.config.override_errors import explain_overrides
from mmrnn.config.overrides import readable

if TYPE_CHECKING:
    from omegaconf import DictConfig

PLUG_INS = {
    "launcher/joblib": "hydra-joblib-launcher",
    "launcher/ray": "hydra-ray-launcher",
    "launcher/submitit_local": "'mmrnn[slurm]'",
    "launcher/submitit_slurm": "'mmrnn[slurm]'",
    "sweeper/optuna": "hydra-optuna-sweeper",
}
"""Plug-ins of Hydra that docs/sweeps.md names -> what installs them."""


def conf_dir() -> Path:
    """Return the folder of cards: inside the installed package, or next to it in a checkout."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def compose(*overrides: str, config: str = "train", dirs: Sequence[str | Path] = ()) -> "DictConfig":
    """Compose the configuration that overrides choose, inside a Hydra application or outside.

    Args:
        overrides: as on the command line: `connector=qformer`, `connector.queries=32`, `+new.key=1`.
        config: the root file in `conf/`.
        dirs: further folders of cards, laid out like `conf/` (`mine/connector/mine.yaml`).

    Raises:
        ConfigError: overrides that name no card, group or knob, all at once, each with the closest name.
    """
    return _compose(overrides, config, dirs)


def compose_with_choices(
    *overrides: str, config: str = "train", dirs: Sequence[str | Path] = ()
) -> "tuple[DictConfig, dict[str, str]]":
    """Compose a configuration, and return with it the chosen option of every group; arguments as of `compose`.

    Raises:
        ConfigError: as `compose`.
    """
    from omegaconf import open_dict

    cfg = _compose(overrides, config, dirs, return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, chosen_options(choices)


def chosen_options(choices: Mapping[str, Any]) -> dict[str, str]:
    """Return the chosen option of every group that describes a run: not those of Hydra, nor the sweep it belongs to."""
    return {group: str(name) for group, name in choices.items() if not group.startswith("hydra/") and group != "sweep"}


def _compose(overrides: Sequence[str], config: str, dirs: Sequence[str | Path], **options: bool) -> "DictConfig":
    found, overrides = search_path(dirs), readable(overrides)
    with _hydra() as hydra_compose:
        try:
            return hydra_compose(config, [*found, *overrides], **options)
        except Exception as error:
            groups = [path.name for root in (conf_dir(), *dirs) for path in Path(root).iterdir() if path.is_dir()]
            raise explain_overrides(
                lambda some: hydra_compose(config, [*found, *some]), overrides, groups, error
            ) from error


def sweep_jobs(*overrides: str, config: str = "train", dirs: Sequence[str | Path] = ()) -> Iterator[list[str]]:
    """Yield the overrides of every job of a sweep: `connector=linear,mlp seed=1,2` makes four.

    Continuous sweeps (`interval(0,1)`) keep the value of the configuration.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    return (list(job) for job in product(*override_axes(*overrides, config=config, dirs=dirs).values()))


def override_axes(*overrides: str, config: str = "train", dirs: Sequence[str | Path] = ()) -> dict[str, list[str]]:
    """Return the values of every key as overrides, in the order of the keys: several for one that is swept over.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found, overrides = search_path(dirs), readable(overrides)
    with _hydra() as hydra_compose:
        try:
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(list(overrides))
            settings = [one.input_line for one in parsed if one.key_or_group.startswith("hydra")]
            sweeper = hydra_compose(config, [*found, *settings], return_hydra_config=True).hydra.sweeper
            params = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
            choices = {}
            for one in (*parser.parse_overrides(params), *parsed):
                if not one.is_sweep_override():
                    choices[one.key_or_group] = [one.input_line]
                elif one.is_discrete_sweep():
                    values = one.sweep_string_iterator()
                    choices[one.key_or_group] = [f"{one.get_key_element()}={value}" for value in values]
        except HydraException as error:
            raise hydra_fault(error) from error
    return choices


def output_dir(*overrides: str, sweep: bool, dirs: Sequence[str | Path] = ()) -> str:
    """Return the folder of a run, or of a sweep, at the time of the call.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    with _hydra() as hydra_compose:
        try:
            parsed = OverridesParser.create().parse_overrides(readable(overrides))
            single = [one.input_line for one in parsed if not one.is_sweep_override()]
            made = hydra_compose("train", [*search_path(dirs), *single], return_hydra_config=True)
        except HydraException as error:
            raise hydra_fault(error) from error
        return made.hydra.sweep.dir if sweep else made.out


def hydra_fault(error: Exception) -> ConfigError:
    """Return an error of Hydra as one sentence, with the way to get a plug-in that is not installed."""
    text = " ".join(str(error).splitlines()[:2]).strip()
    missing = [package for name, package in PLUG_INS.items() if f"'hydra/{name}'" in text]
    return ConfigError(f"{text}: pip install {missing[0]}" if missing else text)


def search_path(dirs: Sequence[str | Path]) -> list[str]:
    """Return the override that adds folders of cards to the search path of Hydra.

    Raises:
        ConfigError: a folder does not exist.
    """
    if missing := [f"{folder}: there is no such folder of cards" for folder in dirs if not Path(folder).is_dir()]:
        raise ConfigError(*missing)
    places = ",".join(f"'file://{Path(folder).resolve()}'" for folder in dirs)
    return [f"hydra.searchpath=[{places}]"] if dirs else []


@contextmanager
def _hydra() -> Iterator[Any]:
    """Yield Hydra's `compose` over our cards; the state of a running Hydra application is restored afterwards."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import VersionBase

    before, base = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield compose
    finally:
        GlobalHydra.instance().hydra = before
        if before is not None:
            VersionBase.instance().setbase(base)
