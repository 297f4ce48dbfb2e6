"""The losses of BLIP-2's first stage (arXiv 2301.12597): contrast, match and generate, without a language model."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmrnn.model.vlm import VLM
from mmrnn.training.distributed.gather_rows import gather_rows, processes
from mmrnn.types import (
    IGNORE,
    Batch,
    Embedder,
    Fraction,
    Matcher,
    NonNegativeInt,
    Objective,
    Output,
    PositiveFloat,
    PositiveInt,
    TextConnector,
    reset_layers,
)


class BLIP2Pretraining(nn.Module, Objective, Embedder, Matcher):
    """Image-text contrast, image-text matching and image-grounded generation over a `TextQFormer`, equally weighted.

    The text of a row is all of its ids but the slots; its first stands for the whole text. Negatives come from all
    processes of a distributed run, and get gradients there. As an embedder it gives an image as many vectors as the
    Q-Former has queries, and a text one.

    Args:
        width: of the features that are contrasted.
        smoothing: of the labels of contrast and generation.
        begin: the id that takes the place of a text's first one where the text is generated.
        temperature: that the contrast begins with.
    """

    needs_backbone = False
    compares_samples = True

    def __init__(
        self,
        model: VLM,
        *,
        width: PositiveInt = 256,
        smoothing: Fraction = 0.1,
        begin: NonNegativeInt = 30522,
        temperature: PositiveFloat = 0.07,
    ):
        super().__init__()
        connector = model.modalities["image"].connector
        if not isinstance(connector, TextConnector):
            raise ValueError(f"{type(connector).__name__} reads no text; choose connector=qformer_text")
        if begin >= connector.vocab:
            raise ValueError(f"begin ({begin}) must be below the connector's vocab ({connector.vocab})")
        inner = connector.hidden_width
        self.smoothing, self.begin, self.initial_temperature = smoothing, begin, temperature
        self.image_proj = nn.Linear(inner, width)
        self.text_proj = nn.Linear(inner, width)
        self.itm_head = nn.Linear(inner, 2)
        # One axis, because a scalar cannot be sharded.
        self.temperature = nn.Parameter(torch.full((1,), temperature))

    def reset(self) -> None:
        """Initialise parameters in place, from the same random numbers as the constructor."""
        reset_layers(self)
        nn.init.constant_(self.temperature, self.initial_temperature)

    def forward(self, model: VLM, output: Output) -> Float[Tensor, ""]:
        """The sum of the three losses of a batch with one image a row; 0 for a batch without images.

        Raises:
            ValueError: there are no images, or a single one, and no other process has any.
        """
        batch, connector = output.batch, model.modalities["image"].connector
        rows, tokens = image_tokens(model, batch)
        (every_text, first), (every_known, _) = map(gather_rows, texts(batch, rows))
        own = slice(first, first + len(rows))
        ids, known = every_text[own], every_known[own]
        queries, words = connector.forward_image(tokens), connector.forward_text(ids, known)
        contrast, (to_text, to_image) = self.contrast(queries, words)
        with torch.no_grad():
            images, sentences = (negatives(similar, first) for similar in (to_image, to_text))
        matching = self.matching(
            connector,
            tokens,
            ids,
            known,
            gather_rows(tokens)[0][images],
            every_text[sentences],
            every_known[sentences],
        )
        return contrast + matching + self.generation(connector, tokens, ids, known)

    def num_units(self, batch: Batch) -> int:
        """Number of rows with an image."""
        return len({block.sample for block in batch.sequence.image_spans if block.modality == "image"})

    def embedder(self) -> Embedder:
        """Itself."""
        return self

    def embed_images(self, model: VLM, batch: Batch) -> Float[Tensor, "m q w"]:
        """Embed the first image of every row. See `Embedder`."""
        _, tokens = image_tokens(model, batch)
        return self.project_queries(model.modalities["image"].connector.forward_image(tokens))

    def embed_texts(self, model: VLM, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]) -> Float[Tensor, "m 1 w"]:
        """Embed texts. See `Embedder`."""
        return self.project_words(model.modalities["image"].connector.forward_text(ids, mask))[:, None]

    def match(
        self, model: VLM, batch: Batch, ids: Int[Tensor, "m t"], mask: Bool[Tensor, "m t"]
    ) -> Float[Tensor, " m"]:
        """Return the logit that image and text belong together. See `Matcher`."""
        _, tokens = image_tokens(model, batch)
        return self.belongs(model.modalities["image"].connector, tokens, ids, mask)[:, 1]

    def project_queries(self, queries: Float[Tensor, "m q w"]) -> Float[Tensor, "m q _"]:
        """Project the hidden states of the queries to vectors of unit length."""
        return F.normalize(self.image_proj(queries), dim=-1)

    def project_words(self, words: Float[Tensor, "m t w"]) -> Float[Tensor, "m _"]:
        """Project the hidden state of the first token of each text, which stands for it, to a vector of unit length."""
        return F.normalize(self.text_proj(words[:, 0]), dim=-1)

    def contrast(
        self, queries: Float[Tensor, "m q w"], words: Float[Tensor, "m t w"], same: Bool[Tensor, "m all"] | None = None
    ) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, "m all"], Float[Tensor, "m all"]]]:
        """The loss, and how similar each image is to all texts and each text to all images.

        Args:
            same: which texts belong to an image, where it is more than its own one (retrieval).
        """
        image, text = self.project_queries(queries), self.project_words(words)
        # The most similar query stands for the image.
        (every, first), (images, _) = gather_rows(text), gather_rows(image)
        to_text = (image @ every.T).amax(1) / self.temperature
        to_image = torch.einsum("tw,mqw->tmq", text, images).amax(2) / self.temperature
        if same is None:
            goal = torch.arange(len(text), device=text.device) + first
            losses = [mean_cross_entropy(x, goal, self.smoothing) for x in (to_text, to_image)]
        else:
            share = same / same.sum(1, keepdim=True)
            share = (1 - self.smoothing) * share + self.smoothing / same.shape[1]
            losses = [F.cross_entropy(x, share) for x in (to_text, to_image)]
        return sum(losses) / 2, (to_text, to_image)

    def matching(
        self,
        connector: TextConnector,
        tokens: Float[Tensor, "m n e"],
        ids: Int[Tensor, "m t"],
        known: Bool[Tensor, "m t"],
        other_tokens: Float[Tensor, "m n e"],
        other_ids: Int[Tensor, "m t"],
        other_known: Bool[Tensor, "m t"],
    ) -> Float[Tensor, ""]:
        """Image-text matching loss over matched pairs, texts with a wrong image, and images with a wrong text."""
        logits = self.belongs(
            connector,
            torch.cat([tokens, other_tokens, tokens]),
            torch.cat([ids, ids, other_ids]),
            torch.cat([known, known, other_known]),
        )
        goal = torch.cat([ids.new_ones(len(ids)), ids.new_zeros(2 * len(ids))])
        return mean_cross_entropy(logits, goal)

    def belongs(
        self,
        connector: TextConnector,
        tokens: Float[Tensor, "m n e"],
        ids: Int[Tensor, "m t"],
        known: Bool[Tensor, "m t"],
    ) -> Float[Tensor, "m 2"]:
        """Logits of no and yes, the mean over the queries."""
        queries, _ = connector.forward_joint(tokens, ids, known)
        return self.itm_head(queries).mean(1)

    def generation(
        self,
        connector: TextConnector,
        tokens: Float[Tensor, "m n e"],
        ids: Int[Tensor, "m t"],
        known: Bool[Tensor, "m t"],
    ) -> Float[Tensor, ""]:
        """The text word by word, each seeing the queries and the words before it."""
        opened = torch.cat([torch.full_like(ids[:, :1], self.begin), ids[:, 1:]], dim=1)
        _, words = connector.forward_joint(tokens, opened, known, "causal")
        logits = connector.next_token_logits(words)[:, :-1]
        goal = opened.masked_fill(~known, IGNORE)[:, 1:]
        return mean_cross_entropy(logits.flatten(0, 1), goal.flatten(), self.smoothing)


def image_tokens(model: VLM, batch: Batch) -> tuple[list[int], Float[Tensor, "m n e"]]:
    """The rows that show an image, and the encoder's tokens of the first one of each.

    Without an image all parts run over no rows, as the other processes wait for ours.
    """
    modality = model.modalities["image"]
    if "image" in batch.features:
        tokens = batch.features["image"]
    elif "image" in batch.images:
        tokens = modality.encode(batch.images["image"])
    elif processes() > 1:
        tokens = modality.encode(next(modality.parameters()).new_zeros(0, 3, *modality.image.size))
    else:
        raise ValueError("these losses compare texts with images, and the batch has no image")
    blocks = [block for block in batch.sequence.image_spans if block.modality == "image"]
    first: dict[int, int] = {}
    for index, block in enumerate(blocks):
        first.setdefault(block.sample, index)
    return list(first), tokens[list(first.values())]


def texts(batch: Batch, rows: list[int]) -> tuple[Int[Tensor, "m t"], Bool[Tensor, "m t"]]:
    """The ids of some rows without slots and padding, and where they are."""
    sequence = batch.sequence
    found = []
    for row in rows:
        ids, labels = sequence.ids[row], sequence.labels[row]
        end = int((labels != IGNORE).nonzero().max()) + 1
        found.append(ids[:end][ids[:end] >= 0])
    if not found:
        return sequence.ids[:0], sequence.ids[:0] >= 0
    known = [torch.ones_like(ids, dtype=torch.bool) for ids in found]
    return tuple(nn.utils.rnn.pad_sequence(group, batch_first=True) for group in (found, known))


def mean_cross_entropy(
    logits: Float[Tensor, "n classes"], goal: Int[Tensor, " n"], smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy, the mean over the goals that are not `IGNORE`; 0 of none."""
    total = F.cross_entropy(logits, goal, label_smoothing=smoothing, reduction="sum", ignore_index=IGNORE)
    return total / (goal != IGNORE).sum().clamp(min=1)


def negatives(similar: Float[Tensor, "m all"], first: int) -> Int[Tensor, " m"]:
    """For every row a column that is not its own (row + first), drawn by how similar it is.

    Raises:
        ValueError: there is no other column.
    """
    if similar.shape[1] < 2:
        raise ValueError("one image has no negative; take batches of several")
    chance = similar.float().softmax(1) + 1e-4
    rows = torch.arange(len(chance), device=chance.device)
    chance[rows, rows + first] = 0
    return torch.multinomial(chance, 1).squeeze(1)
