"""Q-Formers begin from a bare file of BERT: its layers, its embeddings and its head; the rest stays as initialised."""

import pytest
import torch

import mmrnn
from mmrnn.config.compose import compose
from mmrnn.connectors import QFormer, TextQFormer
from mmrnn.weights import WeightsError, load

transformers = pytest.importorskip("transformers")

SIZES = {"queries": 3, "width": 32, "depth": 2, "heads": 4, "ffn": 64, "dropout": 0.0}


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.BertForPreTraining(config).eval()
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight.zero_()  # a Q-Former has none
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def variants(bert):
    """Tensors as they are published: with and without heads and prefix, norms named as in 2018 and since."""
    whole = bert.state_dict()
    old = {"weight": "gamma", "bias": "beta"}
    yield whole
    yield {
        name.replace(f"Norm.{new}", f"Norm.{old[new]}"): value
        for name, value in whole.items()
        for new in old
        if name.endswith(new)
    } | {name: value for name, value in whole.items() if "Norm" not in name}
    yield bert.bert.state_dict()


@torch.no_grad()
def test_a_text_is_read_as_by_bert(bert):
    ids, mask = torch.randint(1, 50, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    expected = bert(ids, mask.long())
    hidden = bert.bert(ids, mask.long()).last_hidden_state
    for number, tensors in enumerate(variants(bert)):
        former = TextQFormer(12, **SIZES, vocab=51, positions=16).eval()
        before = former.layers[0].cross.key.weight.clone(), former.queries.clone()
        report = load(former, tensors)
        torch.testing.assert_close(former.forward_text(ids, mask), hidden, rtol=1e-5, atol=1e-5)
        if number < 2:
            logits = former.next_token_logits(hidden)[..., :50]
            torch.testing.assert_close(logits, expected.prediction_logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(former.layers[0].cross.key.weight, before[0])
        assert torch.equal(former.queries, before[1])
        assert torch.equal(former.layers[1].ffn.up.weight, former.text_ffns[1].up.weight)
        assert "1 rows were added to the embedding" in report.notes[0]
        assert "not in the source, as initialised: layers.*.cross.key.bias" in report.notes[1]


def test_a_q_former_takes_the_layers_alone_and_holes_are_still_faults(bert):
    tensors = bert.state_dict()
    former = QFormer(12, 20, **SIZES)
    report = load(former, tensors)
    theirs = tensors["bert.encoder.layer.1.output.dense.weight"]
    assert torch.equal(former.layers[1].ffn.down.weight, theirs)
    assert report.ignored["bert.embeddings.word_embeddings.weight"] == "belongs to the text branch"
    hole = {name: value for name, value in tensors.items() if "layer.1.attention.self.key" not in name}
    with pytest.raises(WeightsError, match=r"missing: layers\.1\.attention\.key\.bias"):
        load(QFormer(12, 20, **SIZES), hole)
    with torch.device("meta"):
        empty = QFormer(12, 20, **SIZES)
    with pytest.raises(WeightsError, match="the module has no values for it"):
        load(empty, tensors)


def test_on_the_command_line(bert, tmp_path):
    torch.save(bert.state_dict(), tmp_path / "bert.bin")
    small = (
        "connector=qformer_tiny",
        "connector.width=32",
        "connector.depth=2",
        "connector.heads=4",
        "connector.ffn=64",
    )
    model = mmrnn.build(compose("model=llava_tiny", *small, f"weights.connector={tmp_path / 'bert.bin'}"))
    key = model.modalities["image"].connector.layers[0].attention.key
    assert torch.equal(key.weight, bert.bert.encoder.layer[0].attention.self.key.weight)
    assert any("as initialised: head.bias" in note for note in model.load_notes)
