"""What is wrong with a whole configuration: its cards one by one, and parts that do not go together."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrnn import cards
from mmrnn.fit import fit

Tree = Mapping[str, Any]

WIRED = {"encoder": 0, "connector": 2, "backbone": 0}
"""How many positional arguments the builder gives to the parts of these groups; elsewhere it gives all."""


def faults(tree: Tree, trusted: Collection[str] = ()) -> list[str]:
    """Every fault as `path: what, and the way out`; parts that are right alone must go together, too."""
    found = [*_alone(tree, trusted)]
    return found or [*_together(tree, trusted)]


def settings(tree: Tree, root: Tree, path: str = "") -> Iterator[str]:
    """Values of another type than the root file, which is the signature of what belongs to no part, gives them."""
    for name, default in root.items():
        value = tree.get(name, default)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            yield from settings(value, default, f"{path}{name}.")
        elif default is not None:
            try:
                fit(value, type(default))
            except TypeError as error:
                yield f"{path}{name}: {error}"


def senses(tree: Tree) -> list[tuple[str, str, Tree]]:
    """Name, path and parts of every sense; those of the image sense stand at the root."""
    more = tree.get("senses") or {}
    return [("image", "", tree), *((name, f"senses.{name}.", sense) for name, sense in more.items())]


def sources(weights: Tree, path: str = "") -> Iterator[tuple[str, Any]]:
    """The files named under `weights`, with the path of the part that each is for."""
    for name, value in weights.items():
        if isinstance(value, Mapping):
            yield from sources(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _alone(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    parts = [
        "backbone",
        *(f"{path}{part}" for _, path, _ in senses(tree) for part in ("encoder", "connector")),
    ]
    for path in parts:
        group = path.rpartition(".")[2]
        card = _at(tree, path)
        if cards.is_card(card):
            yield from cards.faults(card, path, WIRED[group], trusted)
        else:
            yield f"{path}: nothing is chosen; say {path}=NAME (`mmrnn list {group}` names them)"
    for name, value in tree.items():
        if cards.is_card(value) and name not in WIRED:
            yield from cards.faults(value, name, None, trusted)
        elif name not in ("senses", *WIRED):
            yield from cards.inner_faults(value, name, trusted)
    loadable = ["model", *parts, *(["hook"] if tree.get("hook") else [])]
    for path, source in sources(tree.get("weights") or {}):
        if path == "hook" and source is None:
            continue
        if path not in loadable:
            yield f"weights.{path}: there is no such part; there are: {', '.join(loadable)}"
        for one in source if isinstance(source, list | tuple) else [source]:
            if one is not None and not Path(one).exists() and not _elsewhere(one):
                yield f"weights.{path}: there is no file or folder {str(one)!r}"


def _elsewhere(source: Any) -> bool:
    """Whether it names something on the hub or in an installed package."""
    from mmrnn.weights import hub, packages

    return hub.is_id(source) or packages.is_packaged(source)


def _together(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    backbone = cards.find(tree["backbone"], trusted)
    scan = tree.get("scan")
    order = scan["_target_"].rpartition(".")[2] if cards.is_card(scan) else "forward"
    if order != "forward" and getattr(backbone, "recurrent", True) is False:
        yield (
            f"scan: {order} is an order for recurrent backbones to read patches in; "
            f"{backbone.__name__} attends to all of them at once, so say scan=forward"
        )
    yield from _added(tree, backbone, trusted)
    known, room = _vocab(tree.get("tokenizer"), trusted), _vocab(tree["backbone"], trusted)
    if known is not None and room is not None and known > room:
        yield (
            f"tokenizer: it makes {known} different ids, but backbone.vocab={room}; choose the tokenizer of "
            f"that backbone, or say backbone.vocab={known}"
        )


def _added(tree: Tree, backbone: Any, trusted: Collection[str]) -> Iterator[str]:
    """Hooks, positions, masks and packed rows that have no meaning for this backbone or these connectors."""
    name, recurrent = backbone.__name__, getattr(backbone, "recurrent", True)
    for group, own in (("position", "sequential"), ("mask", "causal")):
        card = tree.get(group)
        policy = cards.find(card, trusted) if cards.is_card(card) else None
        kind = own if policy is None else policy.__name__
        if recurrent and kind != own:
            yield (
                f"{group}: an RNN reads one token after the other, so {kind} has no meaning for {name}; "
                f"say {group}={own}, and give structure by scan and by the ends of rows"
            )
        elif group == "position":
            given, wanted = getattr(policy, "axes", 1), getattr(backbone, "axes", 1)
            if given != wanted and not (wanted == 0 and kind == own):
                way = "glm_2d" if wanted == 2 else own
                yield f"position: {kind} gives {given} of them a token, and {name} takes {wanted}; say position={way}"
        elif getattr(backbone, "axes", 1) == 0 and kind != own:
            yield f"mask: the context of an encoder-decoder sees all of itself already; say mask={own}"
    if tree.get("pack") and getattr(backbone, "axes", 1) == 0:
        yield f"pack: {name} reads one sample a row; say pack=false"
    hook = cards.find(tree["hook"], trusted) if cards.is_card(tree.get("hook")) else None
    offered = getattr(backbone, "hooks", ())
    lacking = [need for need in getattr(hook, "needs", ()) if need not in offered]
    if lacking:
        other = "; mlp_expert is the one for RNNs" if recurrent and "mlp" in offered else ""
        yield f"hook: {hook.__name__} changes the {lacking[0]} of every block, which {name} does not let it{other}"
    beside, reads = _beside(tree.get("connector"), trusted), getattr(hook, "reads_beside", False)
    if beside and not reads:
        what = f"{hook.__name__} routes tokens in slots" if hook else "nothing else reads them"
        yield f"hook: the connector's tokens fill no slots of the text, and {what}; say hook=gated_cross_attention"
    if reads and not beside:
        what = "reads tokens beside the text, and this connector fills slots"
        yield f"connector: {hook.__name__} {what}; say connector=flamingo"


def _beside(card: Any, trusted: Collection[str]) -> bool:
    """Whether the tokens of a connector, or of one inside it, stand beside the text."""
    if isinstance(card, list | tuple):
        return any(_beside(item, trusted) for item in card)
    if not isinstance(card, Mapping):
        return False
    own = cards.is_card(card) and getattr(cards.find(card, trusted), "beside", False)
    return bool(own) or any(_beside(value, trusted) for value in card.values())


def _vocab(card: Any, trusted: Collection[str]) -> int | None:
    """How many ids a part knows, where its card or its class says so."""
    if not cards.is_card(card):
        return None
    vocab = card.get("vocab", getattr(cards.find(card, trusted), "vocab", None))
    return vocab if isinstance(vocab, int) else None


def _at(tree: Tree, path: str) -> Any:
    node: Any = tree
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node
