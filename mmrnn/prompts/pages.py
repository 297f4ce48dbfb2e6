"""Pages: text with pictures anywhere in it, all of it learnt."""

from collections.abc import Sequence

from mmrnn.data.sample import Turn
from mmrnn.prompts.dialogue import split
from mmrnn.prompts.piece import Piece
from mmrnn.prompts.place import place


class Pages:
    """No roles and no words of its own: the turns follow one another, and every word of them is learnt. So VILA reads
    pages of the web and pairs of picture and caption (arXiv 2312.07533). No blanks are left around a picture.

    Args:
        end: what closes a page.
    """

    def __init__(self, *, end: str = "</s>") -> None:
        self.end, self.stops = end, (end,)

    def pieces(self, turns: Sequence[Turn], pictures: int) -> list[Piece]:
        """See `Prompt`. Roles may come in any order; pictures stand in turns of the user."""
        placed = iter(place([turn.text for turn in turns if turn.role == "user"], pictures, "inline"))
        texts = [next(placed) if turn.role == "user" else turn.text for turn in turns]
        going = turns[-1].role == "assistant" and not turns[-1].text.strip()
        found = split(" ".join(text.strip() for text in texts if text.strip()), pictures)
        words = [piece if piece.picture else Piece(piece.text.strip(), target=not going) for piece in found]
        words = [piece for piece in words if piece.picture or piece.text]
        if going:
            return words
        if words and not words[-1].picture:
            return [*words[:-1], Piece(words[-1].text + self.end, target=True)]
        return [*words, Piece(self.end, target=True)]
