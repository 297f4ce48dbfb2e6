"""The Q-Former with its text branch, as it is trained before there is a language model (BLIP-2, first stage)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrnn.connectors.qformer import EPS, FeedForward, QFormer
from mmrnn.types import Layout


class TextQFormer(QFormer):
    """A Q-Former that reads text too: queries and words share the self-attention and have a feed-forward each.

    As a connector it is what `QFormer` is; `text` and `joint` are what the losses of the first stage ask for, and a
    QFormer that is loaded from its weights leaves the text branch out.

    Args:
        vocab: words; that of BERT and one more that begins a text to be generated.
        positions: the longest text.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        queries: int = 32,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        ffn: int = 3072,
        cross_every: int = 2,
        dropout: float = 0.1,
        vocab: int = 30523,
        positions: int = 512,
    ):
        super().__init__(
            in_dim,
            out_dim,
            queries=queries,
            width=width,
            depth=depth,
            heads=heads,
            ffn=ffn,
            cross_every=cross_every,
            dropout=dropout,
        )
        self.words = nn.Embedding(vocab, width)
        self.places = nn.Embedding(positions, width)
        self.text_ffns = nn.ModuleList(FeedForward(width, ffn, dropout) for _ in range(depth))
        # The word is predicted by the table of words behind one more layer.
        self.predict = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, EPS))
        self.predict_bias = nn.Parameter(torch.zeros(vocab))
        with torch.no_grad():
            for module in (self.words, self.places, *self.text_ffns.modules(), *self.predict):
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, std=0.02)

    def seen(self, tokens: Float[Tensor, "m n e"]) -> Float[Tensor, "m q w"]:
        """The queries after they looked at the images, before any projection."""
        queries = self.dropout(self.norm(self.queries).expand(len(tokens), -1, -1))
        for layer in self.layers:
            queries = layer(queries, tokens)
        return queries

    def forward(self, tokens: Float[Tensor, "m n e"], layout: Layout | None = None) -> Float[Tensor, "m q d"]:
        return self.head(self.seen(tokens))

    def text(self, ids: Int[Tensor, "m t"], known: Bool[Tensor, "m t"]) -> Float[Tensor, "m t w"]:
        """The words by themselves, each seeing all; `known` is False at padding."""
        words = self._embed(ids)
        for layer, ffn in zip(self.layers, self.text_ffns, strict=True):
            words = ffn(layer.attention(words, mask=known[:, None, None].expand(-1, 1, ids.shape[1], -1)))
        return words

    def joint(
        self,
        tokens: Float[Tensor, "m n e"],
        ids: Int[Tensor, "m t"],
        known: Bool[Tensor, "m t"],
        mode: Literal["both", "causal"] = "both",
    ) -> tuple[Float[Tensor, "m q w"], Float[Tensor, "m t w"]]:
        """Queries and words together.

        Args:
            mode: `both`: all see all. `causal`: queries see queries, a word sees the queries and the words before it.
        """
        size = len(self.queries)
        mask = _mask(size, known, mode)
        x = torch.cat([self.dropout(self.norm(self.queries).expand(len(tokens), -1, -1)), self._embed(ids)], dim=1)
        for layer, ffn in zip(self.layers, self.text_ffns, strict=True):
            x = layer.attention(x, mask=mask)
            queries, words = x[:, :size], x[:, size:]
            if layer.cross is not None:
                queries = layer.cross(queries, tokens)
            x = torch.cat([layer.ffn(queries), ffn(words)], dim=1)
        return x[:, :size], x[:, size:]

    def words_after(self, words: Float[Tensor, "m t w"]) -> Float[Tensor, "m t vocab"]:
        """Logits of the word after each."""
        return self.predict(words) @ self.words.weight.T + self.predict_bias

    def _embed(self, ids: Int[Tensor, "m t"]) -> Float[Tensor, "m t w"]:
        places = self.places.weight[: ids.shape[1]]
        return self.dropout(self.norm(self.words(ids) + places))


def _mask(queries: int, known: Bool[Tensor, "m t"], mode: str) -> Bool[Tensor, "m 1 s s"]:
    m, t = known.shape
    seen = torch.cat([known.new_ones(m, queries), known], dim=1)
    mask = seen[:, None, None].expand(m, 1, queries + t, -1)
    if mode == "both":
        return mask
    total = queries + t
    order = torch.ones(total, total, dtype=torch.bool, device=known.device).tril()
    order[:queries, :queries] = True
    return mask & order
