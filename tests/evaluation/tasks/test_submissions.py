"""Files for servers, compared with what LLaVA's converters write."""

import openpyxl
import pytest

from mmrnn.config.instantiate import instantiate
from mmrnn.evaluation.tasks import submissions
from tests.evaluation.tasks.test_official_files import CARDS, asked, card

SUBMITTED = [name for name in CARDS if card(name).get("submission")]
REPLIES = {
    "vqav2": ["The Dog.", "Two"],
    "vizwiz": ["Unanswerable", "é, 1000!"],
    "gqa": ["No.", " Boy ..", "sea"],
    "seed": ["A", "C. x"],
    "mmvet": ["x = 5\n", 'a "b"'],
}
WRITTEN = {
    "vqav2": '[{"question_id": 262144000, "answer": ""}, {"question_id": 262144001, "answer": "dog"}, '
    '{"question_id": 262144002, "answer": "2"}, {"question_id": 262144003, "answer": ""}]',
    "vizwiz": '[{"image": "VizWiz_test_00000000.jpg", "answer": "unanswerable"}, '
    '{"image": "VizWiz_test_00000001.jpg", "answer": "\\u00e9 1000"}]',
    "gqa": '[{"questionId": "201307251", "prediction": "no"}, {"questionId": "2", "prediction": " boy "}, '
    '{"questionId": "3", "prediction": "sea"}]',
    "seed": '{"question_id": "101669", "prediction": "A"}\n{"question_id": "v1_3", "prediction": "C. x"}\n'
    '{"question_id": "7", "prediction": ""}\n',
    "mmvet": '{\n  "v1_0": "x = 5\\n",\n  "v1_1": "a \\"b\\""\n}',
}


@pytest.mark.parametrize("name", [name for name in SUBMITTED if not name.startswith("mmbench")])
def test_written_files(name, tmp_path):
    task, questions = asked(name, tmp_path)
    replies = {one.id: reply for one, reply in zip(questions, REPLIES[name], strict=False)}
    path = task.submission(tmp_path, tmp_path / "out", questions, replies)
    assert path.read_text(encoding="utf-8") == WRITTEN[name]
    assert path.parent == tmp_path / "out"
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("name", [name for name in SUBMITTED if name.startswith("mmbench")])
def test_the_table_of_mmbench(name, tmp_path):
    task, questions = asked(name, tmp_path)
    replies = dict(zip([one.id for one in questions], ["B", "=HYPERLINK(1)", "C\x01"], strict=False))
    sheet = openpyxl.load_workbook(task.submission(tmp_path, tmp_path, questions, replies)).active
    rows = [*sheet.values]
    assert rows[0] == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    assert rows[1] == (241, "How many?", "one", 'two, or "both"', "three", None, "B", "B", "dev")
    assert [row[6] for row in rows[2:]] == ["=HYPERLINK(1)", "C", None]
    assert sheet.cell(3, 7).data_type == "s"
    assert rows[4][2] == "=1+1"
    assert sheet.cell(5, 3).data_type == "s"


def test_the_list_of_the_server_is_needed(tmp_path):
    task, questions = asked("vqav2", tmp_path)
    (tmp_path / "vqav2/llava_vqav2_mscoco_test2015.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"llava_vqav2_mscoco_test2015\.jsonl is missing; .* set root="):
        task.submission(tmp_path, tmp_path, questions, {})


def test_without_openpyxl(tmp_path, monkeypatch):
    _, questions = asked("mmbench", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(ImportError, match=r"MMBench's submission needs openpyxl .*pip install 'mmrnn\[tasks\]'"):
        submissions.mmbench(tmp_path, tmp_path, questions, {})
    assert callable(instantiate(card("mmbench")).submission)
