"""The chat page in Chromium: an image is uploaded, a question is asked, the reply streams in, and all stays here."""

import os
import shutil
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.inference.scripted import IMAGE, OTHER
from tests.inference.server.live import WAIT, Live, wait_until
from tests.inference.server.test_completions import alone

pytestmark = pytest.mark.browser

LOCAL = ("127.0.0.1", "localhost", None)
POLICY = "csp"
"""Failure of a request that the browser did not send, because the page forbids it."""

OUTSIDE = "https://example.com"

RECORD = """
seen = new Set()
const record = () => document.querySelectorAll("[data-testid=bot]").forEach(reply => seen.add(reply.innerText.trim()))
new MutationObserver(record).observe(document.body, {subtree: true, childList: true, characterData: true})
"""
"""Program that keeps all texts that the replies of a page have had."""


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="there is no playwright: pip install playwright")
    names = "chromium", "chromium-browser", "google-chrome"
    if (path := next(filter(None, map(shutil.which, names)), None)) is None:
        pytest.skip(f"there is no Chromium ({', '.join(names)}): apt-get install chromium")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as driver, driver.chromium.launch(executable_path=path, args=options) as made:
        yield made


@pytest.fixture(scope="module")
def live(used, tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mmrnn[page]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # put back at the end
        slow = type(used.model).head
        patch.setattr(used.model, "head", lambda hidden: (time.sleep(0.05), slow(used.model, hidden))[1], raising=False)
        made = Live(used.reader, {"max_images": 3}, api_key="secret", uploads=tmp_path_factory.mktemp("uploads"))
        yield made
        made.stop()


@pytest.fixture
def names(monkeypatch):
    """Names of the machines that this process asks for."""
    found, resolve = set(), socket.getaddrinfo

    def recorded(host, *more, **options):
        found.add(host)
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    return found


@pytest.fixture
def page(chromium, live, names):
    """The page, opened by a visitor with the key; no request of his leaves the machine, and none fails."""
    key = {"username": "me", "password": "secret"}
    with chromium.new_context(viewport={"width": 1000, "height": 800}, http_credentials=key) as context:
        requests, faults = [], []
        context.on("request", lambda request: requests.append(request.url))
        context.on("requestfailed", lambda request: request.failure == POLICY and requests.remove(request.url))
        context.on("response", lambda reply: faults.append((reply.status, reply.url)) if reply.status >= 400 else None)
        made = context.new_page()
        made.set_default_timeout(1000 * WAIT)
        made.on("pageerror", lambda error: faults.append(str(error)))
        made.goto(live.url.removesuffix("/v1") + "/page")
        made.locator("textarea").first.wait_for()
        yield made
    assert len(requests) > 10
    assert {urlsplit(url).hostname for url in requests} <= {*LOCAL}
    assert names <= {*LOCAL}
    assert faults == []
    wait_until(lambda: live.idle)


def ask(page, question, *files):
    # It is disabled, and then emptied, for as long as the question before it is at hand.
    wait_until(page.locator("textarea").first.is_enabled)
    if files:
        page.locator("input[type=file]").first.set_input_files(files)
        page.locator(".thumbnails img").nth(len(files) - 1).wait_for()
    page.locator("textarea").first.fill(question)
    page.locator("textarea").first.press("Enter")


def set_length(page, tokens):
    page.get_by_text("Options").click()
    box = page.get_by_label("Max tokens")

    def filled():
        box.fill(str(tokens))
        page.wait_for_timeout(500)
        return box.input_value() == str(tokens)

    wait_until(filled)  # the page gives the box its default shortly after it has shown it
    page.get_by_text("Options").click()


def replies(page):
    return page.locator("[data-testid=bot]")


def answered(page, count):
    """Texts of the replies, as soon as there are so many and the last one is whole."""
    replies(page).nth(count - 1).wait_for()
    wait_until(page.locator("textarea").first.is_enabled)
    return [text.strip() for text in replies(page).all_inner_texts()]


def keep(page, name, folder):
    """Keep a screenshot of the page, in the folder that `MMRNN_SCREENSHOTS` names or in that of the test."""
    folder = Path(os.environ.get("MMRNN_SCREENSHOTS", folder))
    folder.mkdir(parents=True, exist_ok=True)
    assert len(page.screenshot(path=folder / f"{name}.png")) > 10_000


@pytest.fixture
def photos(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        image = (IMAGE, OTHER)[number % 2]
        image.resize(((40 - number) * image.width, 40 * image.height)).save(path)
    return paths


def test_upload_ask_and_see_the_reply_stream_in(used, page, photos, tmp_path):
    set_length(page, 30)
    page.evaluate(RECORD)
    ask(page, "what is it?", photos[0])
    [first] = answered(page, 1)
    expected = alone(used, "<image>\nwhat is it?", images=[Path(photos[0]).read_bytes()], max_new_tokens=30)
    assert words(first) == words(expected)
    texts = page.evaluate("[...seen]")
    assert len(texts) > 3
    assert sorted(texts, key=len) == texts
    keep(page, "page", tmp_path)
    ask(page, "and these?", *photos[1:3])
    assert len(answered(page, 2)[1]) > 0
    assert page.locator("[data-testid=user] img").count() == 3
    assert page.get_by_label("Share").filter(visible=True).count() == 0
    keep(page, "page-second-turn", tmp_path)


def words(text):
    """A text without what Markdown makes of its white space and signs."""
    return [*filter(str.isalnum, text)]


def test_a_refusal_is_shown_and_the_dialogue_goes_on(page, photos, tmp_path):
    set_length(page, 8)
    ask(page, "what?", *photos)
    page.get_by_text("the messages have 4 images; this server allows 3").wait_for()
    keep(page, "page-refused", tmp_path)
    ask(page, "what is it?", photos[0])
    assert len(answered(page, 1)[0]) > 0


def test_retry_and_undo(page):
    set_length(page, 8)
    ask(page, "why?")
    [first] = answered(page, 1)
    with page.expect_request("**/queue/join*"):
        page.get_by_role("button", name="Retry").click()
    wait_until(lambda: answered(page, 1) == [first])
    page.get_by_role("button", name="Undo").click()
    replies(page).first.wait_for(state="detached")
    wait_until(lambda: page.locator("textarea").first.input_value() == "why?")


def test_stop(live, page):
    ask(page, "why?")
    replies(page).first.wait_for()
    assert live.engine.requests == 1
    page.get_by_label("Stop").click()
    wait_until(lambda: live.idle)
    page.locator("[data-testid=submit-button]").wait_for()


def test_text_of_a_visitor_loads_nothing(page):
    ask(page, f"![a]({OUTSIDE}/a.png) <img src='{OUTSIDE}/b.png'> <iframe src='{OUTSIDE}'></iframe> {OUTSIDE}")
    replies(page).first.wait_for()
