"""lm-eval's own command line with a run as its text model, and the model by itself."""

import json
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mmrnn.backbones import HFDecoder
from mmrnn.inference.assistant import Assistant
from mmrnn.inference.generate import generate
from mmrnn.model.vlm import VLM
from mmrnn.prompts import RWKVChat, Template
from mmrnn.tokenizers import DemoTokenizer, HFTokenizer

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm-eval: pip install 'mmrnn[lm-eval]'")

ROOT = Path(__file__).parents[2]
PAIRS = [
    ("what is it? a cat.\n\nUser: and", " a dog"),
    ("what is it? a cat.\n\nUser: and", " two red things, and"),
    ("", "the family"),
    ("Is this a mechanic? ", "no"),
    ("a", "t"),
]


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, 0, ("task", number, 1)) for number, args in enumerate(arguments)]


@pytest.fixture
def model(tiny_run):
    from mmrnn.evaluation.lm_eval import TextModel

    return lambda **options: TextModel(str(tiny_run.folder), device="cpu", **options)


@torch.no_grad()
def in_one_pass(tiny_run, ids, count):
    """Log-probabilities and likeliest ids of the last `count` tokens of a text."""
    from mmrnn.types import Batch, Sequence

    model = tiny_run.assistant.model
    logits = model.head(model(Batch(Sequence(torch.tensor([ids])), {}, {})).hidden[0]).float()
    steps = range(len(ids) - count, len(ids))
    values = [float(logits[step - 1].log_softmax(-1)[ids[step]]) for step in steps]
    return sum(values), [int(logits[step - 1].argmax()) for step in steps] == ids[-count:]


@needs_lm_eval
def test_log_probabilities_are_those_of_one_pass_in_every_batch(model, tiny_run):
    encode = tiny_run.assistant.tokenizer.encode
    split = [(encode(context), encode(reply)) for context, reply in PAIRS[:2]]
    split += [([0], encode("the family")), (encode("Is this a mechanic?"), encode(" no"))]  # 0 ends a text
    split += [([0], encode("at"))]  # one token, though "a" is the context
    assert len(encode("at")) == 1
    expected = [in_one_pass(tiny_run, context + reply, len(reply)) for context, reply in split]
    [greedy] = generated(tiny_run, ["a"], 3)
    for size in (1, 3):
        asked = requests("loglikelihood", *PAIRS, ("a", greedy))
        found = model(batch_size=size).loglikelihood(asked, disable_tqdm=True)
        assert [value for value, _ in found[:5]] == pytest.approx([value for value, _ in expected], abs=1e-4)
        assert [best for _, best in found[:5]] == [best for _, best in expected] == [False] * 5
        assert found[5][1]


@needs_lm_eval
def test_whole_texts(model, tiny_run):
    texts = ["the cat and the dog. " * 20, "a", "two things"]
    encoded = [tiny_run.assistant.tokenizer.encode(text) for text in texts]
    expected = [in_one_pass(tiny_run, [0, *ids], len(ids))[0] for ids in encoded]
    found = model(batch_size=2).loglikelihood_rolling(requests("loglikelihood_rolling", *((text,) for text in texts)))
    assert found == pytest.approx(expected, abs=1e-3)


def generated(tiny_run, contexts, count):
    from mmrnn.types import Batch, Sequence

    tokenizer = tiny_run.assistant.tokenizer
    batches = [Batch(Sequence(torch.tensor([tokenizer.encode(text)])), {}, {}) for text in contexts]
    return [tokenizer.decode(generate(tiny_run.assistant.model, each, max_new_tokens=count)[0]) for each in batches]


@needs_lm_eval
def test_replies_continue_the_raw_text(model, tiny_run):
    contexts = [text for text, _ in PAIRS if text]
    whole = generated(tiny_run, contexts, 8)
    stop = whole[0].split()[-1]
    for size in (1, 3):
        for until, expected in (([], whole), ([stop], [text.partition(stop)[0] for text in whole])):
            settings = {"until": until, "max_gen_toks": 8, "do_sample": False, "temperature": 0.0}
            asked = requests("generate_until", *((text, settings) for text in contexts))
            assert model(batch_size=size).generate_until(asked, disable_tqdm=True) == expected


@needs_lm_eval
def test_the_end_of_a_turn_ends_plain_text_no_more_than_any_other_token(model):
    made = model()
    line = made.text_tokenizer.encode("\n\n")
    assert line[0] in made.text_tokenizer.ends
    assert not made._stop(()).finished(line)
    assert made._stop(()).finished([0])
    made.apply_chat_template([{"role": "user", "content": "what?"}])
    assert made._stop(()).finished(line)


@needs_lm_eval
def test_a_dialogue_is_written_by_the_prompt_of_the_run(model):
    made = model()
    made.prompt = RWKVChat()
    talk = [{"role": role, "content": text} for role, text in (("user", "a?"), ("assistant", "b"), ("user", "c?"))]
    assert made.apply_chat_template(talk) == "User: a?\n\nAssistant: b\n\nUser: c?\n\nAssistant:"
    begun = [*talk, {"role": "assistant", "content": "it is"}]
    assert made.apply_chat_template(begun, add_generation_prompt=False).endswith("User: c?\n\nAssistant: it is")
    made.prompt = Template()
    written = made.apply_chat_template([{"role": "system", "content": "Be short."}, talk[0]])
    assert written == "Be short. USER: a? ASSISTANT:"
    assert made.chat_template(True) == "Template"
    assert made.chat_template(False) == ""
    assert made.tokenizer_name == "DemoTokenizer-Template"


@needs_lm_eval
def test_a_text_begins_with_bos_or_a_given_id(model, tiny_run, monkeypatch):
    encode = tiny_run.assistant.tokenizer.encode
    [line] = encode("\n")
    made = model(prefix_id=line)
    assert made.prefix_token_id == line
    assert made.tok_encode("a", add_special_tokens=False) == encode("a")
    assert made._encode_pair("a", " b") == ([line, *encode("a")], encode(" b"))
    asked = requests("loglikelihood", *PAIRS[:1])
    ids = [line, *encode(PAIRS[0][0]), *encode(PAIRS[0][1])]
    expected = in_one_pass(tiny_run, ids, len(encode(PAIRS[0][1])))
    assert made.loglikelihood(asked, disable_tqdm=True)[0][0] == pytest.approx(expected[0], abs=1e-4)
    with pytest.raises(ValueError, match=r"prefix_id \(1024\) must be an id below 1024"):
        model(prefix_id=1024)
    monkeypatch.setattr(DemoTokenizer, "starts", (5,))
    assert model().tok_encode("a")[0] == model().prefix_token_id == 5


@needs_lm_eval
def test_numbers_are_those_of_the_model_that_lm_eval_has_for_transformers(monkeypatch, tmp_path):
    pytest.importorskip("accelerate")  # which that model needs
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from mmrnn.evaluation import lm_eval

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet)
    bpe.train_from_iterator([text for pair in PAIRS for text in pair], trainer)
    bpe.save(str(tmp_path / "tokenizer.json"))
    backbone = HFDecoder(
        name="opt", vocab=300, width=32, arch={"num_hidden_layers": 2, "num_attention_heads": 2}
    ).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tokenizer = HFTokenizer(path=str(tmp_path / "tokenizer.json"), vocab=300, bos=None, pad=None, prefix_space=False)
    assistant = Assistant(VLM(backbone, {}), tokenizer, Template())
    monkeypatch.setattr(lm_eval, "load_assistant", lambda *_: assistant)
    own = lm_eval.TextModel("", batch_size=2)
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="</s>")
    theirs = HFLM(pretrained=backbone.model, tokenizer=fast, backend="causal", batch_size=2, max_length=512)

    pairs = [pair for pair in PAIRS if pair != ("a", "t")]
    found, expected = (each.loglikelihood(requests("loglikelihood", *pairs)) for each in (own, theirs))
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    texts = [("what is it? a cat.\n\nUser: and a dog" * 5,), ("a",)]
    found, expected = (each.loglikelihood_rolling(requests("loglikelihood_rolling", *texts)) for each in (own, theirs))
    assert found == pytest.approx(expected, abs=1e-3)
    settings = {"until": ["e"], "max_gen_toks": 12, "do_sample": False}
    asked = [(text, settings) for text, _ in PAIRS if text]
    assert own.generate_until(requests("generate_until", *asked)) == theirs.generate_until(
        requests("generate_until", *asked)
    )


ITEMS = [
    {"question": "what is it? a", "options": [" cat", " long and winding list", "b"], "gold": 0},
    {"question": "count the things", "options": [" 1", " 2 3 4", " family"], "gold": 0},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/items.jsonl}}
test_split: test
doc_to_text: "{{{{question}}}}"
{rest}
"""
RANK = """
output_type: multiple_choice
target_delimiter: ""
doc_to_choice: "{{options}}"
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
OWN = """
output_type: generate_until
doc_to_target: "{{own}}"
generation_kwargs: {max_gen_toks: 6, until: ["\\n\\n"], do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def tasks(tiny_run, tmp_path):
    """Folder of local tasks: the likeliest of the candidates, and the run's own replies."""
    encode = tiny_run.assistant.tokenizer.encode
    rows = []
    for item in ITEMS:
        ids = encode(item["question"])
        values = [in_one_pass(tiny_run, ids + encode(text), len(encode(text)))[0] for text in item["options"]]
        [own] = generated(tiny_run, [item["question"]], 6)
        rows.append({**item, "gold": values.index(max(values)), "own": own.partition("\n\n")[0]})
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, rest in (("my_choice", RANK), ("my_text", OWN)):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, folder=tmp_path, rest=rest))
    return tmp_path


@pytest.mark.slow
@needs_lm_eval
def test_the_command_of_the_page_on_local_tasks(tasks, tiny_run):
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    [command] = [line for line in page.splitlines() if "mmrnn.evaluation.lm_eval" in line and "--include_path" in line]
    places = {
        "pretrained=runs/v6/instruct": f"pretrained={tiny_run.folder}",
        "my_tasks": str(tasks),
        "results": str(tasks / "out"),
    }
    program, *words = [places.get(word, word) for word in shlex.split(command)]
    assert program == "python"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tasks / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *words, "--device", "cpu"], env=environment, capture_output=True, text=True, timeout=600
    )
    files = [*tasks.glob("out/*/results_*.json")]
    assert len(files) == 1, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(files[0].read_text())["results"]
    assert found["my_choice"]["acc,none"] == 1.0
    assert found["my_text"]["exact_match,none"] == 1.0


def test_a_missing_package_is_named():
    code = "import sys; sys.modules['lm_eval'] = None; import mmrnn.evaluation.lm_eval"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "needs lm-eval" in done.stderr
    assert "pip install 'mmrnn[lm-eval]'" in done.stderr
