"""Pieces: a dialogue as it is read by a model. A prompt makes them of turns, `tokenize` makes ids of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from mmrnn.data.sample import TAG, Turn
from mmrnn.types import IGNORE, SLOT, Block, Layout, Tokenizer


@dataclass(frozen=True)
class Piece:
    """A stretch of text, tokenised by itself, or the place of a picture. A target is what the model learns to say.

    `sense` reads what stands at a place, where it is no picture.
    """

    text: str = ""
    target: bool = False
    picture: bool = False
    sense: str | None = None


class Row(NamedTuple):
    """Ids, labels (the ids where supervised, else IGNORE) and the blocks of the pictures among them."""

    ids: list[int]
    labels: list[int]
    blocks: list[Block]


@runtime_checkable
class Prompt(Protocol):
    """How a dialogue is written for a model. A reply is over at any of `stops`."""

    stops: tuple[str, ...]

    def pieces(self, turns: Sequence[Turn], pictures: int) -> list[Piece]:
        """The pieces of a dialogue about so many pictures, the reply to an empty last turn left out.

        Raises:
            ValueError: tags and pictures do not agree, or the turns are not what this prompt can write.
        """
        ...


def tokenize(
    pieces: Sequence[Piece], tokenizer: Tokenizer, layouts: Sequence[Layout] = (), row: int = 0, sense: str = "image"
) -> Row:
    """The ids of all pieces, slots where the pictures come.

    A tokenizer may have `starts`: ids that every text begins with (the BOS of Llama). A picture whose tokens stand
    beside the text is marked in it by the words `<image>`.

    Args:
        layouts: how the visual tokens of each picture lie, in the order of the picture pieces.
        row: the row of the batch that the blocks will name.

    Raises:
        ValueError: fewer layouts than picture pieces.
    """
    ids = list(getattr(tokenizer, "starts", ()))
    labels = [IGNORE] * len(ids)
    blocks: list[Block] = []
    for piece in pieces:
        if piece.picture:
            if len(blocks) == len(layouts):
                wanted = sum(piece.picture for piece in pieces)
                raise ValueError(f"the text has places for {wanted} pictures, but there are layouts for {len(layouts)}")
            layout = layouts[len(blocks)]
            blocks.append(Block(row, len(ids), layout, piece.sense or sense))
            tokens = tokenizer.encode(TAG) if layout.beside else [SLOT] * layout.tokens
        else:
            tokens = tokenizer.encode(piece.text)
        ids += tokens
        labels += tokens if piece.target else [IGNORE] * len(tokens)
    return Row(ids, labels, blocks)


def observe(pieces: Sequence[Piece], senses: Sequence[str]) -> list[Piece]:
    """The pieces with the places of other senses than the image: `<state>` in a text is one for the sense `state`."""
    if not senses:
        return list(pieces)
    tags = re.compile(f"<({'|'.join(map(re.escape, senses))})>")
    found = []
    for piece in pieces:
        if piece.picture or piece.target:
            found.append(piece)
            continue
        for index, part in enumerate(tags.split(piece.text)):  # text, sense, text, sense, ..., text
            if index % 2:
                found.append(Piece(picture=True, sense=part))
            elif part:
                found.append(Piece(part))
    return found


def cut(row: Row, length: int) -> Row:
    """The first `length` positions of a row, with the pictures that lie in them.

    Raises:
        ValueError: a picture would be cut in two.
    """
    blocks = [block for block in row.blocks if block.start < length and block.stop <= length]
    for block in row.blocks:
        if block.start < length < block.stop:
            raise ValueError(f"the length ({length}) cuts the picture at {block.start}:{block.stop} in two")
    return Row(row.ids[:length], row.labels[:length], blocks)
