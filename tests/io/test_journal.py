"""Journal of a pass: lines survive a kill, the output appears whole, settings are compared."""

import pytest

from mmrnn.io.journal import LINES, open_journal, partial_folder
from mmrnn.io.lock import FolderInUseError


def test_lines_go_on_where_they_ended(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_journal(out, {"knob": 1}) as journal:
        assert journal.done == 0
        journal.append([{"a": 1}, {}])
        journal.append([])
        assert journal.done == 2
    with (partial_folder(out) / LINES).open("ab") as file:
        file.write('{"a": "cut é'.encode()[:-1])
    with open_journal(out, {"knob": 1}) as journal:
        assert journal.done == 2
        journal.append([{"a": 3}])
        assert [*journal] == [{"a": 1}, {}, {"a": 3}]
        assert not out.exists()
        journal.finish(line for line in journal if line)
    assert out.read_text() == '{"a": 1}\n{"a": 3}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(ValueError, match=r"out.jsonl exists; delete it"), open_journal(out, {"knob": 1}):
        pass


def test_a_pass_that_is_killed_between_output_and_removal_ends_again(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_journal(out, {}) as journal:
        journal.append([{"a": 1}])
        out.write_text('{"a": 1}\n')
    with open_journal(out, {}) as journal:
        assert journal.done == 1
        journal.finish(journal)
    assert out.read_text() == '{"a": 1}\n'
    assert not partial_folder(out).exists()


def test_an_output_that_cannot_be_made_leaves_the_lines(tmp_path):
    out = tmp_path / "out.jsonl"

    def records():
        yield {"a": 1}
        raise ValueError("broken")

    with open_journal(out, {}) as journal:
        journal.append([{"a": 1}])
        with pytest.raises(ValueError, match="broken"):
            journal.finish(records())
    assert not out.exists()
    with open_journal(out, {}) as journal:
        assert journal.done == 1


def test_other_settings_and_other_processes_are_refused(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_journal(out, {"a": [1], "b": {"c": (2,)}}):
        pass
    with open_journal(out, {"a": [1], "b": {"c": [2]}}):
        pass
    with pytest.raises(ValueError, match=r"they differ in b, d"), open_journal(out, {"a": [1], "b": 2, "d": None}):
        pass


def test_a_damaged_line_is_named(tmp_path):
    out = tmp_path / "out.jsonl"
    with open_journal(out, {}) as journal:
        journal.append([{"a": 1}])
        journal.path.write_text('{"a": 1}\nno json\n')
        with pytest.raises(ValueError, match=r"lines.jsonl is damaged: line 2 is not JSON"):
            list(journal)


def test_the_folder_belongs_to_one_process(tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"

    def held(*args, **options):
        raise FolderInUseError("in use")

    monkeypatch.setattr("mmrnn.io.journal.lock_folder", held)
    with pytest.raises(FolderInUseError), open_journal(out, {}):
        pass
