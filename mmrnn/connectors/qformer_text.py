"""Q-Former with its text branch, as trained in BLIP-2's first stage (arXiv 2301.12597)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmrnn.connectors.qformer import EPS, PostNormFeedForward, QFormer
from mmrnn.types import Fraction, PositiveInt, TextConnector, reset_layers


class TextQFormer(QFormer, TextConnector):
    """Q-Former that also encodes text: queries and text share the self-attention, each with its own feed-forward.

    As a connector it is a `QFormer`; the losses of the first stage call `forward_text` and `forward_joint`. A `QFormer`
    that loads its weights leaves the text branch out.

    Args:
        vocab: number of token ids: those of BERT, and one more that begins a text to be generated.
        positions: greatest length of a text.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int | None = None,
        *,
        queries: PositiveInt = 32,
        width: PositiveInt = 768,
        depth: PositiveInt = 12,
        heads: PositiveInt = 12,
        ffn: PositiveInt = 3072,
        cross_every: PositiveInt = 2,
        dropout: Fraction = 0.1,
        vocab: PositiveInt = 30523,
        positions: PositiveInt = 512,
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
        self.vocab, self.hidden_width = vocab, width
        self.token_embedding = nn.Embedding(vocab, width)
        self.position_embedding = nn.Embedding(positions, width)
        self.text_ffns = nn.ModuleList(PostNormFeedForward(width, ffn, dropout) for _ in range(depth))
        # Its output is multiplied by the embedding matrix, so that the weights are tied.
        self.lm_transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, EPS))
        self.lm_bias = nn.Parameter(torch.zeros(vocab))
        self._reset_text_matrices()

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        super().reset()
        for module in (self.token_embedding, self.position_embedding, self.text_ffns, self.lm_transform):
            reset_layers(module)
        nn.init.zeros_(self.lm_bias)
        self._reset_text_matrices()

    def _reset_text_matrices(self) -> None:
        embeddings = (self.token_embedding, self.position_embedding)
        for module in (*embeddings, *self.text_ffns.modules(), *self.lm_transform):
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward_text(self, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]) -> Float[Tensor, "m t w"]:
        """Compute the hidden states of texts by themselves, with bidirectional attention."""
        text = self._embed_text(ids)
        for layer, ffn in zip(self.layers, self.text_ffns, strict=True):
            text = ffn(layer.attention(text, mask=mask[:, None, None].expand(-1, 1, ids.shape[1], -1)))
        return text

    def forward_joint(
        self,
        tokens: Float[Tensor, "m n e"],
        ids: Int[Tensor, "m t"],
        mask: Bool[Tensor, "m t"],
        mode: Literal["bidirectional", "causal"] = "bidirectional",
    ) -> tuple[Float[Tensor, "m q w"], Float[Tensor, "m t w"]]:
        """Compute the hidden states of queries and texts together.

        Args:
            mode: of the self-attention. `causal`: queries attend to queries, a token of the text to the queries and to
                the text up to itself.
        """
        count = len(self.queries)
        joint_mask = _joint_mask(count, mask, mode)
        x = torch.cat([self.embed_queries(len(tokens)), self._embed_text(ids)], dim=1)
        for layer, text_ffn in zip(self.layers, self.text_ffns, strict=True):
            x = layer.attention(x, mask=joint_mask)
            x = torch.cat([layer.update_queries(x[:, :count], tokens), text_ffn(x[:, count:])], dim=1)
        return x[:, :count], x[:, count:]

    def next_token_logits(self, hidden: Float[Tensor, "m t w"]) -> Float[Tensor, "m t vocab"]:
        """Compute the logits of the token after each position of a text."""
        return self.lm_transform(hidden) @ self.token_embedding.weight.T + self.lm_bias

    def _embed_text(self, ids: Int[Tensor, "m t"]) -> Float[Tensor, "m t w"]:
        known = self.position_embedding.num_embeddings
        if ids.shape[1] > known:
            raise ValueError(
                f"a text of {ids.shape[1]} tokens is longer than the positions of the connector ({known}); shorten it, "
                "or in training set max_length or connector.positions"
            )
        positions = self.position_embedding.weight[: ids.shape[1]]
        return self.dropout(self.norm(self.token_embedding(ids) + positions))


def _joint_mask(queries: int, text_mask: Bool[Tensor, "m t"], mode: str) -> Bool[Tensor, "m 1 s s"]:
    m, t = text_mask.shape
    total = queries + t
    keys = torch.cat([text_mask.new_ones(m, queries), text_mask], dim=1)
    mask = keys[:, None, None].expand(m, 1, total, -1)
    if mode == "bidirectional":
        return mask
    causal = torch.ones(total, total, dtype=torch.bool, device=mask.device).tril()
    causal[:queries, :queries] = True
    return mask & causal
