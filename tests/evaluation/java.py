"""Java for the tokenizer of captions, or a program in its place."""

import os
import shutil
import sys

import pytest

PROGRAM = """#!{python} -IS
import pathlib, re, sys
text = pathlib.Path(sys.argv[-1]).read_bytes().decode()
lines = [re.sub("([.,!?]|'s)", r" \\1", line.lower()) + "\\n" for line in text.splitlines()]
sys.stdout.buffer.write("".join(lines).encode())
"""
"""It ends lines where Java's tokenizer does, and splits marks off."""


def put_in_place(folder, monkeypatch):
    """Make captions be tokenised by a program that needs no Java."""
    (folder / "java").write_text(PROGRAM.format(python=sys.executable))
    (folder / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def need():
    """Skip a test of Java's own tokenizer where there is none."""
    if shutil.which("java") is None:
        pytest.skip("there is no Java here")
