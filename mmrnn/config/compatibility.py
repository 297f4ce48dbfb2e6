"""Parts that are right alone and have no meaning together.

Classes are compared by the class attributes that `mmrnn.types.parts` gives them; nothing is built.
"""

from collections.abc import Collection, Iterator
from typing import Any

from mmrnn.config.instantiate import find
from mmrnn.config.tree import Tree, cards, is_card
from mmrnn.types.parts import Connector, fulfils


def mismatches(tree: Tree, trusted: Collection[str]) -> Iterator[str]:
    """Faults of parts that do not go together; every card of the tree must be right by itself."""
    backbone = find(tree["backbone"], trusted)
    yield from _order_faults(tree, backbone, trusted)
    yield from _hook_faults(tree, backbone, trusted)
    known, rows = _vocab(tree.get("tokenizer"), trusted), _vocab(tree["backbone"], trusted)
    if known is not None and rows is not None and known > rows:
        yield (
            f"tokenizer: it makes {known} different ids, but backbone.vocab={rows}; choose the tokenizer of "
            f"that backbone, or say backbone.vocab={known}"
        )


def _order_faults(tree: Tree, backbone: Any, trusted: Collection[str]) -> Iterator[str]:
    """Scans, positions, masks and packed rows that have no meaning for this backbone."""
    name = backbone.__name__
    scan, position, mask = (_found(tree.get(group), trusted) for group in ("scan", "position", "mask"))
    if scan is not None and scan.reorders and not backbone.recurrent:
        yield (
            f"scan: {scan.__name__} is an order for recurrent backbones to read patches in; "
            f"{name} attends to all of them at once, so say scan=forward"
        )
    if backbone.recurrent:
        for group, own, policy in (("position", "sequential", position), ("mask", "causal", mask)):
            if policy is not None and not vars(policy)[own]:
                yield (
                    f"{group}: an RNN reads one token after the other, so {policy.__name__} has no meaning for {name}; "
                    f"say {group}={own}, and give structure by scan and by the ends of rows"
                )
        return
    if position is not None and position.axes != backbone.axes and not (backbone.axes == 0 and position.sequential):
        way = "glm_2d" if backbone.axes == 2 else "sequential"
        yield (
            f"position: {position.__name__} gives {position.axes} of them a token, and {name} takes {backbone.axes}; "
            f"say position={way}"
        )
    if backbone.axes == 0 and mask is not None and not mask.causal:
        yield "mask: the context of an encoder-decoder sees all of itself already; say mask=causal"
    if backbone.axes == 0 and tree.get("pack"):
        yield f"pack: {name} reads one sample a row; say pack=false"


def _hook_faults(tree: Tree, backbone: Any, trusted: Collection[str]) -> Iterator[str]:
    """Hooks that this backbone does not allow, or that these connectors have no tokens for."""
    hook = _found(tree.get("hook"), trusted)
    lacking = [need for need in hook.needs if need not in backbone.hooks] if hook else []
    if lacking:
        other = "; mlp_expert is the one for RNNs" if backbone.recurrent and "mlp" in backbone.hooks else ""
        yield (
            f"hook: {hook.__name__} changes the {lacking[0]} of every block, which {backbone.__name__} does not let it"
            f"{other}"
        )
    parts = [find(card, trusted) for _, card in cards(tree.get("connector"))]
    offered = any(part.for_cross_attention for part in parts if fulfils(part, Connector))
    wanted = hook is not None and hook.needs_cross_attention_tokens
    if offered and not wanted:
        why = f"{hook.__name__} routes tokens in slots" if hook else "nothing else reads them"
        yield f"hook: the connector's tokens fill no slots of the text, and {why}; say hook=gated_cross_attention"
    if wanted and not offered:
        why = "attends to tokens that fill no slots, and this connector fills slots"
        yield f"connector: {hook.__name__} {why}; say connector=flamingo"


def _found(card: Any, trusted: Collection[str]) -> Any:
    return find(card, trusted) if is_card(card) else None


def _vocab(card: Any, trusted: Collection[str]) -> int | None:
    """Number of ids of a part, where its card or its class says so."""
    if not is_card(card):
        return None
    vocab = card["vocab"] if "vocab" in card else vars(find(card, trusted)).get("vocab")
    return vocab if isinstance(vocab, int) else None
