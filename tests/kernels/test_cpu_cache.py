"""Native code comes from a folder and a file that no other user can write, else from a private build."""

import os
import shutil

import pytest

from mmrnn_kernels.common.native import build, cache

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, build.COMPILERS)), reason=f"no C++ compiler ({', '.join(build.COMPILERS)})"
)


def forget():
    build.load_or_reason.cache_clear()
    build.native_function.cache_clear()


@pytest.fixture(autouse=True)
def unbuilt():
    forget()
    yield
    forget()


@pytest.fixture
def source(tmp_path):
    """Native code that answers 1."""
    path = tmp_path / "own" / "one.cpp"
    path.parent.mkdir()
    path.write_text('extern "C" int answer() { return 1; }')
    return path


@pytest.fixture
def folder(monkeypatch, tmp_path, source):
    """The cache folder, with a library whose name fits but which answers 666."""
    root = tmp_path / "root"
    monkeypatch.setenv("XDG_CACHE_HOME", str(root))
    assert build.unavailable_reason(source) is None
    folder = root / "mmrnn"
    (good,) = folder.iterdir()
    evil = source.with_name("evil.cpp")
    evil.write_text(source.read_text().replace("1", "666"))
    library = build.compile_library(evil, [shutil.which("c++"), *build.FLAGS], source.parent, "evil")
    good.unlink()
    shutil.copy(library._name, folder / build.library_name(good.name.split("-")[0], source.parent / library._name))
    forget()
    return folder


def answer(source):
    return build.native_function(source, "answer")()


def open_to_all(path):
    path.chmod(0o777)


def open_to_a_group(path):
    path.chmod(0o770)


def give_away(path):
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(path, 54321, -1)


CHANGES = [open_to_all, open_to_a_group, give_away]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", ["folder", "parent"])
def test_a_folder_that_others_can_write_is_not_used(folder, source, change, place):
    changed, kept = folder if place == "folder" else folder.parent, [*folder.iterdir()]
    change(changed)
    with pytest.warns(RuntimeWarning, match=f"^native code is built in each process and not kept: .*{changed}"):
        assert answer(source) == 1
    assert [*folder.iterdir()] == kept


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_others_can_write_is_not_loaded(folder, source, change):
    (planted,) = folder.iterdir()
    change(planted)
    assert answer(source) == 1
    (built,) = set(folder.iterdir()) - {planted}
    assert cache.unsafe_reason(built) is None
    assert built.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_not_loaded(folder, source, kind):
    (planted,) = folder.iterdir()
    moved = planted.rename(folder.parent / planted.name)
    if kind == "link":
        planted.symlink_to(moved)
    else:
        os.mkfifo(planted, 0o600)
    assert answer(source) == 1


def test_a_link_to_a_folder_that_others_can_write(folder, source, monkeypatch, tmp_path):
    open_to_all(folder)
    (tmp_path / "mmrnn").symlink_to(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(RuntimeWarning, match=f"other users can write to {folder}, change that with `chmod go-w`"):
        assert answer(source) == 1


def test_a_folder_of_mine_where_all_can_write_but_not_rename(folder, source):
    folder.parent.chmod(0o1777)
    assert answer(source) == 666, "what is in a safe folder is trusted"


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "HOME"])
def test_a_relative_folder_is_not_used(folder, source, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv(name, "root")
    with pytest.warns(RuntimeWarning, match=rf"not kept: {name} is a relative path \(root.*\), make it absolute$"):
        assert answer(source) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["mmrnn"]


def test_no_safe_folder_at_all(folder, source, monkeypatch):
    open_to_all(folder)
    monkeypatch.setattr(build.tempfile, "tempdir", str(folder))
    with pytest.warns(RuntimeWarning, match="not kept"):
        reason = build.unavailable_reason(source)
    assert f"could not build one.cpp: other users can write to {folder}" in reason
