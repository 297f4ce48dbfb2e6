"""A state is resumed only with the weights, the tokenizer and the scan that it was made with."""

from copy import deepcopy

import pytest
import torch

from mmrnn.backbones import RWKV5, RWKV6, RWKV7, scan
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.fingerprint import scan_fingerprint, tokenizer_fingerprint, weights_fingerprint
from mmrnn.inference.generate import generate, prefill
from mmrnn.model.vlm import VLM
from mmrnn.prompts import RWKVChat
from mmrnn.tokenizers import DemoTokenizer, RWKVWorldTokenizer
from mmrnn.types import Batch, Sequence, State


def make(kind=RWKV6, order=scan.bidirectional, tokenizer=DemoTokenizer):
    torch.manual_seed(0)
    model = VLM(kind(vocab=1024, width=32, depth=2, head_size=16), {}, order)
    return Assistant(model.eval(), tokenizer(), RWKVChat())


def prompt(text):
    return Batch(Sequence(torch.tensor([DemoTokenizer().encode(text)])))


@torch.no_grad()
def state_of(assistant):
    return prefill(assistant.model, prompt("User: what is"))[1]


def test_a_reply_goes_on_from_a_file(tmp_path):
    assistant = make()
    state = state_of(assistant)
    assistant.save_state(state, tmp_path / "state")
    back = make().load_state(tmp_path / "state")
    rest = prompt(" this?")
    expected = generate(assistant.model, rest, state=state, max_new_tokens=5)
    assert generate(assistant.model, rest, state=back, max_new_tokens=5) == expected


def trained():
    assistant = make()
    model = assistant.model.train()
    model.head(model(prompt("a cat")).hidden).square().sum().backward()
    torch.optim.SGD(model.parameters(), 1e-3).step()
    return assistant


FOREIGN = {
    "weights": (trained, "made with weights"),
    "scan": (lambda: make(order=scan.forward), "but this model has scan forward"),
    "tokenizer": (lambda: make(tokenizer=RWKVWorldTokenizer), "made with tokenizer"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_by_name(name, tmp_path):
    other, message = FOREIGN[name]
    assistant = make()
    assistant.save_state(state_of(assistant), tmp_path / "state")
    with pytest.raises(ValueError, match=message):
        other().load_state(tmp_path / "state")


def test_a_state_of_another_backbone_is_neither_written_nor_read(tmp_path):
    assistant, other = make(), make(RWKV7)
    with pytest.raises(ValueError, match="belongs to rwkv7"):
        assistant.save_state(state_of(other), tmp_path / "state")
    assert not (tmp_path / "state").exists()
    state_of(assistant).save(tmp_path / "state")
    with pytest.raises(ValueError, match="does not say which weights"):
        assistant.load_state(tmp_path / "state")


def test_tensors_that_do_not_fit_are_refused_in_spite_of_the_facts(tmp_path):
    assistant = make()
    state = state_of(assistant)
    assistant.save_state(state, tmp_path / "state")
    forged = State(state.layers[:1], origin=state.origin)
    facts = {"weights": weights_fingerprint(assistant.model), "scan": scan_fingerprint(scan.bidirectional, 2)}
    forged.save(tmp_path / "forged", {**facts, "tokenizer": tokenizer_fingerprint(DemoTokenizer())})
    with pytest.raises(ValueError, match="1 layers for 2"):
        assistant.load_state(tmp_path / "forged")


def test_the_same_weights_have_one_fingerprint_in_fp32_and_bf16():
    model = make().model
    assert weights_fingerprint(model) == weights_fingerprint(deepcopy(model).bfloat16())
    changed = deepcopy(model)
    with torch.no_grad():
        changed.backbone.blocks[1].norm_time.bias.add_(0.01)
    assert weights_fingerprint(model) != weights_fingerprint(changed)


def test_scans_are_told_apart():
    scans = (scan.bidirectional, scan.multidirectional, scan.spiral, scan.snake, scan.zigzag)
    assert len({scan_fingerprint(each, 4) for each in (None, *scans)}) == 6
    assert scan_fingerprint(scan.forward, 4) == "forward"


@pytest.mark.parametrize("kind", [RWKV5, RWKV6, RWKV7])
@torch.no_grad()
def test_a_state_after_24k_tokens_is_as_large_as_after_1k(kind, tmp_path):
    assistant = make(kind)
    sizes = []
    for length in (1024, 24576):
        batch = Batch(Sequence(torch.randint(1, 300, (1, length))))
        _, state = prefill(assistant.model, batch, prefill_chunk=1024)
        storages = {value.untyped_storage().data_ptr(): value.untyped_storage() for value in state.tensors.values()}
        held = sum(storage.nbytes() for storage in storages.values())
        assistant.save_state(state, tmp_path / "state")
        sizes.append((state.nbytes, held, (tmp_path / "state").stat().st_size))
    assert sizes[0] == sizes[1]
    assert sizes[0][0] == sizes[0][1]
