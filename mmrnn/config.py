"""The only door to Hydra: from names on a command line to a model.

model = build(compose("model=visualrwkv6_small", "connector=qformer"))
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrnn import cards
from mmrnn.cards import ConfigError
from mmrnn.faults import faults, senses, settings, sources

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mmrnn.vlm import VLM


def conf_dir() -> Path:
    """The cards: inside the installed package, or beside it in a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


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
            from mmrnn.overrides import explain

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


def plain(cfg: Any) -> Any:
    """A configuration as plain dicts and lists, references resolved; what is plain already stays.

    Raises:
        ConfigError: a reference `${...}` leads nowhere.
    """
    if cfg is None or isinstance(cfg, dict | list | tuple | str | int | float):
        return cfg
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def check(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = ()) -> None:
    """Compare a configuration with the parts that it names, before anything is built.

    Args:
        trusted: packages beside mmrnn whose classes the cards may name.

    Raises:
        ConfigError: every fault at once, as `path: what, and the way out`.
    """
    import yaml

    tree = plain(cfg)
    root = yaml.safe_load((conf_dir() / "train.yaml").read_text(encoding="utf-8"))
    own = {name: value for name, value in root.items() if name not in ("defaults", "hydra", "out")}
    if found := [*faults(tree, trusted), *settings(tree, own)]:
        raise ConfigError(*found)


def make(node: Any, *wired: Any, trusted: Collection[str] = ()) -> Any:
    """The part that a card describes, the cards inside it made first; `wired` are its positional arguments.

    Raises:
        ValueError: the card names a class outside mmrnn that is not trusted, or one that is not there.
    """
    return cards.make(plain(node), *wired, trusted=trusted)


def build(cfg: "DictConfig | Mapping[str, Any]", *, trusted: Collection[str] = (), filled: bool = False) -> "VLM":
    """Make the parts, let each ask its neighbour for its size, put them together, read the weights.

    Published weights that a card asks for (`pretrained`) are fetched, unless `weights` names others;
    `weights: {}` builds everything as it is initialised, and under `torch.device("meta")` nothing is read.
    A backbone whose weights are read is built without memory and takes those of the file.

    Args:
        filled: the caller fills the whole model from a file: the backbone stays without memory until then.

    Raises:
        ConfigError: what `check` finds, or what a part says of its knobs or its weights.
        ConnectionError: published weights are asked for, and their hub cannot be reached.
    """
    check(cfg, trusted=trusted)
    from mmrnn.vlm import VLM, Sense

    tree, parts = plain(cfg), {}

    def part(path: str, card: Any, *wired: Any) -> Any:
        try:
            return make(card, *wired, trusted=trusted)
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from error

    weights = tree.get("weights") or {}
    named = {path for path, source in sources(weights) if source is not None}
    given = filled or bool({"model", "backbone"} & named or (weights and tree["backbone"].get("pretrained")))
    backbone = _empty(lambda: part("backbone", tree["backbone"])) if given else part("backbone", tree["backbone"])
    for name, path, sense in senses(tree):
        encoder = part(f"{path}encoder", sense["encoder"])
        parts[name] = Sense(encoder, part(f"{path}connector", sense["connector"], encoder.width, backbone.width))
        try:
            parts[name].layout(*parts[name].image.size)
        except ValueError as error:
            # A connector says here, and not at the first batch, that it has no place for such tokens.
            raise ConfigError(f"{path}connector: {error}") from error
    hook, adapter = tree.get("hook"), tree.get("adapter")
    model = VLM(
        backbone,
        parts,
        part("scan", tree.get("scan")),
        position=part("position", tree.get("position")),
        mask=part("mask", tree.get("mask")),
        hook=part("hook", hook, backbone, parts["image"].connector.width) if hook else None,
    )
    model.config = tree
    _load(model, weights)
    if adapter:
        try:
            part("adapter", adapter)(model)
        except ValueError as error:
            raise ConfigError(f"adapter: {error}") from error
    return model


def _empty(make: Callable[[], Any]) -> Any:
    """A part without memory for its parameters, unless it keeps tensors that no file will bring."""
    import torch

    with torch.device("meta"):
        module = make()
    brought = set(module.state_dict())
    return module if {name for name, _ in module.named_buffers()} <= brought else make()


def _load(model: "VLM", weights: Mapping[str, Any]) -> None:
    import torch

    from mmrnn.encoders.pretrained import fetch
    from mmrnn.weights import load

    if torch.get_default_device().type == "meta":
        return
    named = {path: source for path, source in sources(weights) if source is not None}
    added = len((model.config.get("tokenizer") or {}).get("added") or ())
    for name, sense in model.senses.items() if weights else ():
        path = "encoder" if name == "image" else f"senses.{name}.encoder"
        if not {path, "model"} & set(named):
            fetch(sense.encoder)
    published = getattr(model.backbone, "pretrained", None)
    if weights and published and not {"backbone", "model"} & set(named):
        named["backbone"] = published
    for path, source in sorted(named.items(), key=lambda one: one[0] == "hook"):
        place = path if path.startswith(("backbone", "senses.", "hook")) else f"senses.image.{path}"
        try:
            load(model if path == "model" else model.get_submodule(place), source, new_words=added)
        except ValueError as error:
            raise ConfigError(f"weights.{path}: {error}") from error
    if model.hook is not None and not {"hook", "model"} & set(named):
        model.hook.adopt(model.backbone)
