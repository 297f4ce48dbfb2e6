"""Commit of a checkout and name of the processor; neither is there everywhere."""

import subprocess

from mmrnn.io import processor
from mmrnn.io.processor import processor_name
from mmrnn.io.versions import commit, library_versions


def test_commit_of_a_checkout(tmp_path, monkeypatch):
    def git(*words):
        done = subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert commit(tmp_path) is None, "no checkout"
    git("init", "-q")
    assert commit(tmp_path) is None, "no commit"
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit(tmp_path) is None, "no git"


def test_versions_of_what_is_installed():
    found = library_versions("no-such-package")
    assert {"python", "torch"} <= found.keys()
    assert "no-such-package" not in found


def test_name_of_the_processor(tmp_path, monkeypatch):
    assert processor_name()
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    assert processor_name() == (processor.platform.processor() or processor.platform.machine())
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n")
    assert processor_name() == "A CPU @ 2 GHz"
