"""tools/docs_screenshots.py: its trainings fit the cards, and a page of a browser becomes a small image."""

import pytest
from PIL import Image

from mmrnn.config.compose import compose
from mmrnn.config.sweep import read_sweep
from mmrnn.config.sweep_plan import plan_sweep
from mmrnn.config.tree import plain
from mmrnn.config.validate import check

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("playwright.sync_api", reason="there is no playwright: pip install playwright")
    return __import__("docs_screenshots")


def test_the_trainings_fit(tool):
    check(compose(*tool.TRAIN[tool.RUN]))
    flag, *words = tool.TRAIN[tool.SWEEP]
    assert flag == "-m"
    own = [word for word in words if word.startswith("sweep")]
    sweep = read_sweep(plain(compose(*own).sweep), plain(compose("sweep=prompt").sweep)["grid"])
    jobs = plan_sweep([word for word in words if word not in own], sweep).jobs
    assert len(jobs) == 9
    for job in jobs.values():
        check(compose(*job))


def test_a_page_is_kept(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "IMAGES", tmp_path)
    try:
        path = tool.chromium()
    except RuntimeError as fault:
        pytest.skip(str(fault))
    with (
        tool.sync_playwright() as driver,
        driver.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser,
        tool.opened(browser, 300) as page,
    ):
        page.set_content("<body style='background: rgb(200, 30, 30)'>")
        tool.keep("red", page.screenshot())
    image = Image.open(tmp_path / "red.png")
    assert (image.size, image.mode) == ((tool.WIDTH, 300), "P")
    assert image.convert("RGB").getpixel((500, 150)) == (200, 30, 30)


def test_a_machine_without_chromium_is_told(tool, monkeypatch):
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        tool.chromium()
