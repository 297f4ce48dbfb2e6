"""From an image and a question to the reply: beside the processors and models of transformers, small and random.

Pixels and ids are equal, logits within 3e-5, replies the same. The tokenizers are trained here.
"""

import json

import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mmrnn.config.compose import compose
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.data.image import image_source
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.generate import generate
from mmrnn.tokenizers import HFTokenizer
from mmrnn.types import SLOT, Sample, Turn
from mmrnn.weights import load
from tests.peers import tiny_models
from tests.peers.tiny_models import transformers

SENTENCES = [
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers.",
    "USER: What stands near the kettle? ASSISTANT: A small cat.",
    "Question: How many chairs can be seen? Short answer: two chairs. Answer: a mug near a river.",
]
QUESTIONS = ["What stands near the kettle?", "How many chairs,\nand which colour?", "Où est 12 345 + x²?"]
NEW = 8


def llama_file(specials):
    """A file like Llama-2's: a blank in front of every text, unknown letters as bytes."""
    model = models.BPE(byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    every = [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=every))
    # The bytes are ordinary tokens, so the file is written once more without their being special.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def opt_file():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, initial_alphabet=letters)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    return tokenizer


def t5_file():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(" {2,}", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=specials, unk_token="<unk>")
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def photo(size=(70, 50)):
    width, height = size
    return Image.fromarray(torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy())


def card(name):
    return instantiate(plain(compose(config=f"prompt/{name}"))["prompt"])


def written(prompt, question, tag):
    spans = prompt.spans([Turn("user", f"<image>\n{question}"), Turn("assistant", "")], 1)
    return "".join(tag if span.image else span.text for span in spans)


def one(image, question):
    return Sample((Turn("user", f"<image>\n{question}"), Turn("assistant", "")), (image_source(image),))


def compare(peer, theirs, assistant, image, question, slot, first=None):
    """Pixels, ids, logits and the reply; `theirs` is what the processor made of the same image and question."""
    batch = assistant.reader.collator()([one(image, question)])
    torch.testing.assert_close(batch.images["image"], theirs["pixel_values"], atol=1e-6, rtol=0)
    assert filled(batch, slot) == theirs["input_ids"][0].tolist()
    compare_replies(peer, theirs, assistant, batch, image, question, first)


def filled(batch, slot):
    """Ids of the only row, with the word that transformers has where an image stands."""
    return batch.sequence.ids[0].masked_fill(batch.sequence.ids[0] == SLOT, slot).tolist()


def compare_replies(peer, given, assistant, batch, image, question, first=None):
    """Logits, the most likely ids, and the text that `ask` makes of them; `given` are the inputs of the peer."""
    ours = assistant.model
    new = peer.generate(**given, max_new_tokens=NEW, do_sample=False)[0, -NEW:].tolist()
    start = {} if first is None else {"decoder_input_ids": torch.tensor([[first]])}
    logits = peer(**given, **start).logits[:, -1]
    torch.testing.assert_close(ours.head(ours(batch).hidden[:, -1]), logits, atol=3e-5, rtol=0)
    assert generate(ours, batch, max_new_tokens=NEW)[0] == new
    ids = []
    for id in new:
        ids.append(id)
        if assistant.stop.finished(ids):
            break
    reply = assistant.stop.clean(assistant.tokenizer.decode(ids))
    assert assistant.ask(image, question, max_new_tokens=NEW) == reply


@pytest.fixture(params=QUESTIONS)
def question(request):
    return request.param


@torch.no_grad()
def test_llava(tmp_path, question):
    file = llama_file(["<unk>", "<s>", "</s>"])
    file.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    file.save(str(tmp_path / "tokenizer.json"))
    vocab = file.get_vocab_size()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=file, bos_token="<s>", eos_token="</s>")
    fast.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    peer, ours = tiny_models.llava(vocab + 1, vocab)
    load(ours, peer.state_dict())
    prompt = card("vicuna")
    assistant = Assistant(ours, HFTokenizer(path=str(tmp_path / "tokenizer.json"), vocab=vocab + 1), prompt)
    image = photo()
    theirs = processor(images=image, text=written(prompt, question, "<image>"), return_tensors="pt")
    compare(peer, theirs, assistant, image, question, vocab)


def blip2_processor(fast):
    fast.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    mean, std = tiny_models.CLIP["mean"], tiny_models.CLIP["std"]
    pixels = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32}, image_mean=mean, image_std=std)
    return transformers.Blip2Processor(pixels, fast, num_query_tokens=4)


@torch.no_grad()
def test_blip2_with_opt(tmp_path, question):
    file = opt_file()
    file.save(str(tmp_path / "tokenizer.json"))
    vocab = file.get_vocab_size()
    peer, ours = tiny_models.blip2(*tiny_models.opt(vocab + 1), vocab)
    load(ours, peer.state_dict())
    tokens = {"bos": None, "pad": "<pad>", "prefix_space": False}
    tokenizer = HFTokenizer(path=str(tmp_path / "tokenizer.json"), vocab=vocab + 1, **tokens)
    prompt = card("blip2_opt")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=file, eos_token="</s>", pad_token="<pad>")
    image = photo()
    words = written(prompt, question, "").removeprefix("</s>")  # which OPT's tokenizer adds
    theirs = blip2_processor(fast)(images=image, text=words, return_tensors="pt")
    compare(peer, theirs, Assistant(ours, tokenizer, prompt), image, question, vocab)


@torch.no_grad()
def test_blip2_with_t5(tmp_path, question):
    file = t5_file()
    file.save(str(tmp_path / "tokenizer.json"))
    vocab = file.get_vocab_size()
    peer, ours = tiny_models.blip2(*tiny_models.t5(vocab + 1), vocab)
    peer.language_model.lm_head.weight = torch.nn.Parameter(torch.randn(vocab + 1, 32))
    load(ours, {name: value.clone() for name, value in peer.state_dict().items()})
    tokenizer = HFTokenizer(path=str(tmp_path / "tokenizer.json"), vocab=vocab + 1, bos=None, pad="<pad>")
    prompt = card("blip2_t5")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=file, eos_token="</s>", pad_token="<pad>")
    image = photo()
    words = written(prompt, question, "").removesuffix("</s>")  # which T5's tokenizer adds
    theirs = blip2_processor(fast)(images=image, text=words, return_tensors="pt")
    compare(peer, theirs, Assistant(ours, tokenizer, prompt), image, question, vocab, first=0)


class UnderscoreFirst(transformers.PreTrainedTokenizerFast):
    """Fuyu's own tokenizer writes an underscore before the first placeholder, which its processor takes away."""

    def __call__(self, text, **knobs):
        found = super().__call__(text, **knobs)
        if text.startswith("|SPEAKER|"):
            found["input_ids"] = torch.cat([torch.zeros(1, 1).long(), found["input_ids"]], dim=1)
            found["attention_mask"] = torch.cat([torch.ones(1, 1).long(), found["attention_mask"]], dim=1)
        return found


@torch.no_grad()
def test_fuyu(tmp_path, question):
    patch = ["|SPEAKER|", "|NEWLINE|", "<0x00>", "<0x04>"]
    specials = ["<unk>", "<s>", "</s>", "|ENDOFTEXT|", *patch]
    file = llama_file(specials)
    file.save(str(tmp_path / "tokenizer.json"))
    vocab = file.get_vocab_size()
    fast = UnderscoreFirst(tokenizer_object=file, bos_token="<s>", eos_token="|ENDOFTEXT|")
    fast.pad_token = "|ENDOFTEXT|"
    size = {"height": 64, "width": 96}
    pixels = transformers.FuyuImageProcessor(size=size, patch_size={"height": 8, "width": 8})
    processor = transformers.FuyuProcessor(pixels, fast)
    image = photo()
    theirs = processor(images=image, text=f"{question}\n", return_tensors="pt")
    slot, newline = (file.token_to_id(name) for name in ("|SPEAKER|", "|NEWLINE|"))
    peer, ours = tiny_models.fuyu(vocab, slot, patch=8, size=(64, 96))
    backbone, connector = ours.backbone, ours.modalities["image"].connector
    load(backbone, peer.state_dict())
    load(connector, peer.state_dict(), strict=False)
    connector.newline.copy_(backbone.embed(torch.tensor([[newline]]))[0, 0])
    marks = {"bos": None, "eos": ("|ENDOFTEXT|",), "pad": "|ENDOFTEXT|"}
    tokenizer = HFTokenizer(path=str(tmp_path / "tokenizer.json"), vocab=vocab, **marks)
    assistant = Assistant(ours, tokenizer, card("fuyu"))
    batch = assistant.reader.collator()([one(image, question)])
    patches = ours.modalities["image"].encode(batch.images["image"])
    expected = torch.cat([patch.flatten() for patch in theirs["image_patches"]])
    torch.testing.assert_close(patches.flatten(), expected, atol=1e-6, rtol=0)
    ids = theirs["input_ids"][0]
    assert filled(batch, slot) == ids.masked_fill(ids == newline, slot).tolist()  # ours is no word of the text
    given = {"input_ids": theirs["input_ids"], "pixel_values": patches}
    compare_replies(peer, given, assistant, batch, image, question)
