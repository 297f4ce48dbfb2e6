"""Words that a vocabulary gets beside those of a file."""

import pytest
import torch
from safetensors.torch import save_file

from mmrnn.backbones import RWKV6, Transformer
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.model.build import build
from mmrnn.weights import WeightsError, load
from mmrnn.weights.export import export
from mmrnn.weights.resize_embeddings import extend_with_mean

SMALL = {"width": 16, "depth": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_rows_are_the_mean(dtype):
    table = torch.randn(5, 3).to(dtype)
    longer = extend_with_mean(table, 8)
    assert longer.dtype == dtype
    assert torch.equal(longer[:5], table)
    for row in longer[5:]:
        torch.testing.assert_close(row.float(), table.float().mean(0), atol=1e-2, rtol=1e-2)
    assert torch.equal(extend_with_mean(table, 5), table)
    with pytest.raises(ValueError, match="5 rows cannot be extended to 4"):
        extend_with_mean(table, 4)


@pytest.mark.parametrize("kind", ["rwkv6", "transformer"])
def test_a_file_with_fewer_words(kind):
    make = {
        "rwkv6": lambda vocab: RWKV6(vocab=vocab, head_size=8, **SMALL),
        "transformer": lambda vocab: Transformer(vocab=vocab, heads=2, ffn=24, **SMALL),
    }[kind]
    old, new = make(20), make(23)
    before = {name: value.clone() for name, value in old.state_dict().items()}
    with pytest.raises(WeightsError, match=r"embedding.weight: \(20, 16\), the module has \(23, 16\)"):
        load(new, before, max_new_rows=2)
    report = load(new, before, max_new_rows=3)
    grown = [note for note in report.notes if "3 rows more than the file has" in note]
    assert len(grown) == 2, "embedding and head"
    for name, value in new.state_dict().items():
        wanted = before[name]
        if value.shape != wanted.shape:
            torch.testing.assert_close(value[20:], wanted.mean(0).expand(3, -1))
        assert torch.equal(value[: len(wanted)], wanted), name


def test_words_of_the_tokenizer_are_added_to_the_language_model(tmp_path):
    old = Transformer(vocab=1024, heads=2, ffn=24, **SMALL)
    save_file(old.state_dict(), str(tmp_path / "old.safetensors"))
    words = ("tokenizer=llava", "tokenizer.vocab=1026", "backbone.vocab=1026", "prompt=v0_marked")
    sizes = ("backbone.width=16", "backbone.depth=2", "backbone.heads=2", "backbone.kv_heads=null", "backbone.ffn=24")
    chosen = ("model=llava_tiny", *words, *sizes, f"weights.backbone={tmp_path}/old.safetensors")
    model = build(compose(*chosen))
    torch.testing.assert_close(model.backbone.embedding.weight[1024:], old.embedding.weight.mean(0).expand(2, -1))
    torch.testing.assert_close(model.backbone.output.weight[1024:], old.output.weight.mean(0).expand(2, -1))
    with pytest.raises(ConfigError, match=r"weights\.backbone: .*do not fit Transformer"):
        build(compose(*chosen, 'tokenizer.added_tokens=["<im_start>"]'))


def test_added_tokens_have_the_rows_of_a_released_file():
    """LLaVA's first release: [PAD], <im_patch>, <im_start>, <im_end> behind the 32000 of Llama, row for row."""
    card = plain(compose("model=llava_tiny", "tokenizer=llava", "prompt=v0_marked"))["tokenizer"]
    first = card["vocab"] - len(card["added_tokens"])
    ids = {token: first + index for index, token in enumerate(card["added_tokens"])}
    assert ids == {"[PAD]": 32000, "<im_patch>": 32001, "<im_start>": 32002, "<im_end>": 32003}
    released, target = (Transformer(vocab=32004, heads=2, ffn=24, **SMALL) for _ in range(2))
    published = export(released, "llama")
    assert not load(target, published, max_new_rows=4).notes
    assert torch.equal(target.embedding.weight[list(ids.values())], released.embedding.weight[32000:])
    fewer = {name: value[:32003] if len(value) == 32004 else value for name, value in published.items()}
    report = load(target, fewer, max_new_rows=4)
    assert report.notes == [
        f"{name}: 1 rows more than the file has, each the mean of its rows"
        for name in ("embedding.weight", "output.weight")
    ]
