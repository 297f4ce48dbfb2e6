"""Screenshots of the documentation: the report of a run and of a sweep, the chat page, and the site.

    pip install 'mmrnn[demo,stats,page,docs]' playwright        # and Chromium: apt-get install chromium
    python tools/docs_screenshots.py                            # docs/images/*.png

Run and sweep are trained in build/screenshots first, within minutes; where they are finished already, they are left
alone. `python tools/docs_screenshots.py page site` takes some of the screenshots.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import docs_site
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from mmrnn.checkpoints.config_file import read_config
from mmrnn.cli import serve
from mmrnn.config.instantiate import instantiate

ROOT = Path(__file__).parents[1]
IMAGES, ROOM = ROOT / "docs" / "images", ROOT / "build" / "screenshots"
RUN, SWEEP = ROOM / "visualrwkv6_small", ROOM / "prompt"

TRAIN = {
    RUN: ("seed=1", "tracker=none"),
    SWEEP: (
        *("-m", "sweep=prompt", "sweep.grid.model=[visualrwkv6_small]", "sweep.seeds=[0,1,2]"),
        *("data=demo", "stage=instruct", "stage.instruct.steps=80", "data.scenes=600", "evaluate.samples=180"),
        "tracker=none",
    ),
}
"""Folder -> words of `mmrnn train`."""

WIDTH = 1000
QUESTION = "what do you see, and where?"
"""Asked of an image with more than one thing."""

WAIT_MS = 60_000


def run_mmrnn(*words: str) -> None:
    """Run a command of mmrnn.

    Raises:
        CalledProcessError: it fails.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mmrnn", *words]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=True)


def keep(name: str, taken: bytes) -> None:
    """Write a screenshot with 256 colours, a fraction of its bytes."""
    image = Image.open(io.BytesIO(taken)).convert("RGB").quantize(256, kmeans=5)
    image.save(IMAGES / f"{name}.png", optimize=True)
    print(IMAGES / f"{name}.png")


@contextmanager
def opened(browser: Browser, height: int) -> Iterator[Page]:
    """Context with a tab of that height in pixels."""
    with browser.new_context(viewport={"width": WIDTH, "height": height}, color_scheme="light") as context:
        context.set_default_timeout(WAIT_MS)
        yield context.new_page()


def report(browser: Browser) -> None:
    """Report of a run: its beginning, and its first examples."""
    run_mmrnn("train", *TRAIN[RUN], f"out={RUN}")
    with opened(browser, 590) as page:
        page.goto((RUN / "report.html").as_uri())
        keep("report", page.screenshot())
        page.set_viewport_size({"width": WIDTH, "height": 655})
        page.get_by_text("Examples: scenes").evaluate("heading => heading.scrollIntoView()")
        keep("report_examples", page.screenshot())


def comparison(browser: Browser) -> None:
    """Report of a sweep with several seeds: its first plots."""
    run_mmrnn("train", *TRAIN[SWEEP], f"out={SWEEP}")
    run_mmrnn("report", str(SWEEP))
    with opened(browser, 655) as page:
        page.goto((SWEEP / "comparison.html").as_uri())
        page.locator("svg.wide").first.evaluate("plot => plot.scrollIntoView()")
        keep("comparison", page.screenshot())


def chat(browser: Browser) -> None:
    """Chat page of `mmrnn serve --page`, after a question about a held-out image."""
    run_mmrnn("train", *TRAIN[RUN], f"out={RUN}")
    photo = ROOM / "scene.png"
    held_out = instantiate(read_config(RUN)["data"]).held_out(720)["scenes"]
    asked = next(
        sample for sample in map(held_out.__getitem__, range(len(held_out))) if QUESTION in sample.turns[0].text
    )
    asked.images[0].open().resize((320, 320), Image.Resampling.LANCZOS).save(photo)
    with serve.open_server(serve.parser().parse([str(RUN), "--page", "--port", "0"])) as made:
        thread = Thread(target=made.server.run, kwargs={"sockets": [made.socket]}, daemon=True)
        thread.start()
        with opened(browser, 820) as page:
            page.goto(made.url.removesuffix("/v1") + "/page")
            page.locator("input[type=file]").first.set_input_files(photo)
            page.locator(".thumbnails img").first.wait_for()
            for count, question in enumerate((QUESTION, "how many things do you see?"), 1):
                page.locator("textarea:enabled").first.fill(question)
                page.locator("textarea").first.press("Enter")
                page.locator("[data-testid=bot]").nth(count - 1).wait_for()
                page.locator("textarea:enabled").first.wait_for()
            keep("page", page.screenshot())
        made.server.should_exit = True
        thread.join()


def site(browser: Browser) -> None:
    """Documentation site: the page with the data flow.

    Raises:
        RuntimeError: it cannot be built.
    """
    if docs_site.main():
        raise RuntimeError("the site cannot be built; mend what `python tools/docs_site.py` names")
    with opened(browser, 640) as page:
        page.goto((ROOT / "build" / "site" / "concepts" / "index.html").as_uri())
        page.wait_for_timeout(500)
        keep("site", page.screenshot())


SHOTS: dict[str, Callable[[Browser], None]] = {"report": report, "comparison": comparison, "page": chat, "site": site}


def chromium() -> str:
    """Path of Chromium.

    Raises:
        RuntimeError: there is none.
    """
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if (path := next(found, None)) is None:
        raise RuntimeError("there is no Chromium; install one: apt-get install chromium")
    return path


def main() -> None:
    """Take the screenshots that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*SHOTS, []], default=[], metavar="NAME", help=", ".join(SHOTS))
    names = parser.parse_args().names or SHOTS
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver, driver.chromium.launch(executable_path=chromium(), args=options) as browser:
        for name in names:
            SHOTS[name](browser)


if __name__ == "__main__":
    main()
