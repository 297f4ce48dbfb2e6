"""The only door to Hydra: overrides to a configuration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn.config.error import ConfigError
from mmrnn.config.override_errors import explain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def conf_dir() -> Path:
    """The cards: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def compose(*overrides: str, config: str = "train", dirs: Sequence[str | Path] = ()) -> "DictConfig":
    """The whole configuration that these overrides choose, inside a Hydra application or outside.

    Args:
        overrides: as on the command line: `connector=qformer`, `connector.queries=32`, `+new.key=1`.
        config: the root file in `conf/`.
        dirs: further folders of cards, laid out like `conf/` (`mine/connector/mine.yaml`).

    Raises:
        ConfigError: every override that names no card, group or knob, each with the nearest name.
    """
    places = searchpath(dirs)
    with _hydra() as read:
        try:
            return read(config, [*places, *overrides])
        except Exception as error:
            groups = [path.name for root in (conf_dir(), *dirs) for path in Path(root).iterdir() if path.is_dir()]
            raise explain(lambda some: read(config, [*places, *some]), overrides, groups, error) from error


def jobs(*overrides: str, config: str = "train", dirs: Sequence[str | Path] = ()) -> Iterator[list[str]]:
    """The overrides of every job of a sweep: `connector=linear,mlp seed=1,2` makes four.

    Sweeps without an end (`interval(0,1)`) are left at what the configuration says.

    Raises:
        ConfigError: an override cannot be read.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    places = searchpath(dirs)
    with _hydra() as read:
        try:
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(list(overrides))
            single = [one.input_line for one in parsed if not one.is_sweep_override()]
            sweeper = read(config, [*places, *single], return_hydra_config=True).hydra.sweeper
            params = [f"{name}={value}" for name, value in (sweeper.get("params") or {}).items()]
            choices = {}
            for one in (*parser.parse_overrides(params), *parsed):
                if not one.is_sweep_override():
                    choices[one.key_or_group] = [one.input_line]
                elif one.is_discrete_sweep():
                    values = one.sweep_string_iterator()
                    choices[one.key_or_group] = [f"{one.get_key_element()}={value}" for value in values]
        except HydraException as error:
            raise ConfigError(" ".join(str(error).splitlines()[:2])) from error
    return (list(job) for job in product(*choices.values()))


def searchpath(dirs: Sequence[str | Path]) -> list[str]:
    """The override that lets further folders of cards join ours.

    Raises:
        ConfigError: no such folder.
    """
    if missing := [f"{folder}: there is no such folder of cards" for folder in dirs if not Path(folder).is_dir()]:
        raise ConfigError(*missing)
    places = ",".join(f"'file://{Path(folder).resolve()}'" for folder in dirs)
    return [f"hydra.searchpath=[{places}]"] if dirs else []


@contextmanager
def _hydra() -> Iterator[Any]:
    """Hydra's `compose` over our cards; an application that is running in Hydra finds all as it was."""
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
