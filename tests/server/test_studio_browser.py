"""The studio in Chromium: `make browser-test` runs these tests, the default run does not."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from server_process import (
    RunningServer,
    free_port,
    read_sound,
    start_server,
    stop_server,
    wait_until,
)

from unison_audio.tasks.table import TASKS

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

FIELDS: dict[str, dict[str, str]] = {
    "tts": {"text": "good morning"},
    "zero_shot_tts": {"text": "hello"},
    "t2a": {"caption": "rain"},
    "t2a_mix": {"first": "rain", "last": "a dog barking"},
    "t2as": {"gender": "male", "text": "hello", "caption": "rain"},
    "timed": {},
    "edit_add": {"event": "rain"},
    "edit_remove": {"event": "rain"},
    "edit_replace": {"old": "rain", "new": "thunder"},
    "speech_insert": {"text": "yes"},
    "speech_delete": {},
    "speech_rewrite": {"new": "no"},
    "denoise": {},
    "audio_to_speech": {"event": "rain", "text": "yes"},
    "speech_to_audio": {"event": "rain"},
}

SECONDS = 120
"""Longest wait for something to appear: on a busy machine a short sound takes half a minute."""

WATCH = """() => {
  const [play, position] = ["#play", "#position"].map((name) => document.querySelector(name));
  const watched = (window.watched = { playing: false, furthest: 0 });
  const timer = setInterval(() => {
    watched.playing ||= play.dataset.playing === "true";
    watched.furthest = Math.max(watched.furthest, Number(position.value));
  }, 10);
  watched.stop = () => {
    clearInterval(timer);
    if (play.dataset.playing === "true") play.click();
  };
}"""
"""Script that notes whether something plays, and how far."""

SWITCH = """() => {
  const [play, position, a, b] = ["#play", "#position", "#source-track", "#result-track"].map(
    (name) => document.querySelector(name));
  if (Number(position.value) <= 0.3) return null;
  document.querySelector("#side-a").click();
  return { heard: [a.dataset.heard, b.dataset.heard], at: Number(position.value),
    playing: play.dataset.playing };
}"""
"""Script that switches sides once 0.3 s were heard, and tells what is heard then."""

READY = "#server-state[data-state=ready]"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


class Studio:
    """A page of the studio, and its console."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        size = {"width": 1280, "height": 900}
        self.context = browser.new_context(viewport=size, accept_downloads=True, **options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.goto(url)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def until(self, expression: str) -> None:
        # Playwright's own wait evaluates inside the page, which the page's policy forbids.
        wait_until(lambda: bool(self.page.evaluate(expression)), SECONDS)

    def ready(self) -> "Studio":
        self.page.wait_for_selector(READY)
        self.page.wait_for_selector("#task option[value=denoise]", state="attached")
        return self

    def source(self, path: Path) -> None:
        self.page.set_input_files("#source-file", str(path))
        self.page.wait_for_selector("#source-track > div:not(.playhead)")
        self.until("document.querySelector('#source-name').textContent")

    def choose(self, task: str, fields: dict[str, str]) -> None:
        self.page.check("#mode-form", force=True)
        self.page.select_option("#task", task)
        for name, value in fields.items():
            field = self.page.locator(f"#field-{name}")
            if name == "gender":
                field.select_option(value)
            else:
                field.fill(value)

    def generate(self) -> None:
        count = self.page.locator("#history-list > li").count()
        self.page.click("#run")
        self.finish(count)

    def finish(self, count: int) -> None:
        self.until(f"document.querySelectorAll('#history-list > li').length === {count + 1}")
        self.page.wait_for_selector("#request[aria-busy=false]")
        assert self.page.is_hidden("#problem")

    def play(self) -> None:
        # The page itself watches: a short sound may have ended before a question reaches it.
        self.page.evaluate(WATCH)
        self.page.click("#play")
        self.until("watched.playing && watched.furthest > 0.1")
        self.page.evaluate("watched.stop()")

    def result(self) -> bytes:
        with self.page.expect_download() as download:
            self.page.click("#download")
        return Path(download.value.path()).read_bytes()

    def drag(self, selector: str, start: float, end: float, height: float) -> None:
        self.page.locator(selector).scroll_into_view_if_needed()
        box = self.page.locator(selector).bounding_box()
        mouse, y = self.page.mouse, box["y"] + height
        mouse.move(box["x"] + start * box["width"], y)
        mouse.down()
        mouse.move(box["x"] + end * box["width"], y, steps=8)
        mouse.up()

    def values(self, selector: str) -> list[str]:
        return [one.input_value() for one in self.page.locator(selector).all()]

    def copied(self, kind: str) -> str:
        self.page.click(f"#copy-{kind}")
        self.until("document.querySelector('#toast').textContent === 'Copied.'")
        return str(self.page.evaluate("navigator.clipboard.readText()"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds with a tone that swells, in 16 bits at 16 kHz."""
    path = tmp_path_factory.mktemp("recording") / "a source.wav"
    time = np.arange(32_000) / 16_000
    tone = 0.2 * np.sin(2 * np.pi * 300 * time) * np.sin(np.pi * time / 2)
    soundfile.write(path, tone, 16_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def studio(browser: Any, server: RunningServer, recording: Path) -> Iterator[Studio]:
    """A page with a source and a stored voice, which all tasks share."""
    studio = Studio(browser, server.url).ready()
    page = studio.page
    studio.source(recording)
    page.click("#voice-new summary")
    page.fill("#voice-name", "carla")
    page.fill("#voice-text", "good morning")
    page.fill("#voice-consent", "I am the speaker, and I agree.")
    page.check("#voice-from-source")
    page.click("#voice-save")
    page.wait_for_selector("#voice-list li")
    yield studio
    page.click("#voice-list button")
    page.wait_for_selector("#voices-empty:visible")
    assert studio.complaints == []
    studio.context.close()


def test_all_tasks_have_fields() -> None:
    assert set(FIELDS) == set(TASKS)


@pytest.mark.parametrize("task", FIELDS)
def test_a_task_from_the_form_to_a_played_result(studio: Studio, task: str) -> None:
    studio.choose(task, FIELDS[task])
    if task == "timed":
        studio.page.click("#timeline-add")
        studio.page.keyboard.type("rain")
    studio.generate()
    entry = studio.page.locator("#history-list > li").first
    assert entry.get_attribute("aria-current") == "true"
    assert studio.page.is_checked("#side-b")
    studio.play()
    samples, rate = read_sound(studio.result())
    assert len(samples) > 0.2 * rate
    assert studio.complaints == []


@pytest.fixture
def fresh(browser: Any, server: RunningServer) -> Iterator[Studio]:
    studio = Studio(browser, server.url).ready()
    yield studio
    assert studio.complaints == []
    studio.context.close()


def test_a_recording_from_the_microphone(fresh: Studio) -> None:
    fresh.page.click("#record")
    fresh.page.wait_for_selector("#record[aria-pressed=true]")
    fresh.page.wait_for_timeout(1500)
    fresh.page.click("#record")
    fresh.page.wait_for_selector("#source-track canvas")
    assert fresh.page.is_checked("#side-a")
    fresh.play()
    fresh.choose("denoise", {})
    fresh.generate()
    samples, rate = read_sound(fresh.result())
    assert rate == 48_000
    assert len(samples) > 0.8 * rate


def test_an_edit_of_a_region_leaves_the_rest(fresh: Studio, recording: Path) -> None:
    fresh.source(recording)
    fresh.drag("#source-track", 0.25, 0.5, 40)
    start, end = map(float, fresh.values("#region-list input"))
    assert (start, end) == (pytest.approx(0.5, abs=0.06), pytest.approx(1.0, abs=0.06))
    fresh.page.click("#region-add")
    assert len(fresh.values("#region-list input")) == 4
    fresh.page.locator("#region-list button").nth(1).click()
    fresh.page.locator("#region-list input").first.fill("0.6")
    fresh.page.keyboard.press("Tab")
    assert fresh.values("#region-list input")[0] == "0.6"
    fresh.choose("edit_add", {"event": "thunder"})
    fresh.generate()
    before, _ = soundfile.read(recording, dtype="int16")
    after = np.round(read_sound(fresh.result())[0][:, 0] * 32768).astype(int)
    changed = np.flatnonzero(before != after) / 16_000
    assert changed.size > 1000
    assert changed.min() >= 0.59
    assert changed.max() <= end + 0.01


def test_switching_sides_keeps_the_place(fresh: Studio, recording: Path) -> None:
    page = fresh.page
    fresh.source(recording)
    fresh.choose("edit_add", {"event": "rain"})
    fresh.generate()
    page.click("#play")
    found: list[Any] = []
    wait_until(lambda: bool(found.append(page.evaluate(SWITCH)) or found[-1]), SECONDS)
    assert found[-1]["heard"] == ["true", "false"]
    assert found[-1]["at"] > 0.3
    assert found[-1]["playing"] == "true"
    page.wait_for_selector("#play[data-playing=false]")  # both end together


def test_a_timeline_by_dragging_and_by_keys(fresh: Studio) -> None:
    fresh.choose("timed", {})
    fresh.drag("#timeline-lane", 0.1, 0.4, 70)
    fresh.page.keyboard.type("rain")
    fresh.drag("#timeline-lane", 0.5, 0.9, 70)
    fresh.page.keyboard.type("a dog barking")
    assert fresh.values("#timeline-events input") == [
        "rain",
        "0.5",
        "2",
        "a dog barking",
        "2.5",
        "4.5",
    ]
    fresh.drag("#timeline-lane", 0.25, 0.35, 34)  # the first block, by its middle
    assert fresh.values("#timeline-events input")[:3] == ["rain", "1", "2.5"]
    fresh.page.keyboard.press("ArrowLeft")
    fresh.page.keyboard.press("Shift+ArrowRight")
    assert fresh.values("#timeline-events input")[:3] == ["rain", "0.9", "2.5"]
    fresh.generate()
    assert len(read_sound(fresh.result())[0]) == pytest.approx(80_000, abs=2)
    fresh.page.locator(".block").first.focus()
    fresh.page.keyboard.press("Delete")
    assert fresh.page.locator(".block").count() == 1


def test_it_says_what_is_unknown_before_the_button_is_pressed(fresh: Studio) -> None:
    page = fresh.page
    fresh.choose("tts", {"text": "hello Zoë"})
    page.wait_for_selector("#preview mark")
    assert page.locator("#preview mark").all_inner_texts() == ["Zoë"]
    assert "not trained on the word zoë" in page.inner_text("#check-list")
    assert page.inner_text("#run") == "Generate anyway"
    assert page.get_attribute("#length", "placeholder") == "2.56 to 3.84"
    fresh.choose("t2a", {"caption": "a violin and rain"})
    assert page.get_attribute("#length", "placeholder") == "2.56"
    fresh.until("document.querySelector('#preview mark')?.textContent === 'a violin'")
    fresh.choose("t2a", {"caption": "rain"})
    page.wait_for_selector("#check[data-checked=true]")
    assert page.locator("#preview mark").count() == 0
    assert page.inner_text("#run") == "Generate"
    assert page.locator("#history-list > li").count() == 0
    fresh.choose("edit_add", {"event": "rain"})
    page.click("#run")
    assert "record a source" in page.inner_text("#problem")
    fresh.choose("t2a", {"caption": "rain"})
    page.locator("#steps").evaluate("one => one.value = 2000")
    page.click("#run")
    assert page.locator("#steps").evaluate("one => one === document.activeElement")
    assert page.locator("#history-list > li").count() == 0


def test_history_runs_again_and_copies_make_the_same(
    fresh: Studio, recording: Path, tmp_path: Path
) -> None:
    page = fresh.page
    shutil.copy(recording, tmp_path)
    fresh.source(recording)
    page.click("#settings summary")
    page.click("#seed-new")
    seed = page.input_value("#seed")
    page.fill("#steps", "3")
    page.fill("#candidates", "1")
    fresh.choose("edit_add", {"event": "rain"})
    fresh.drag("#source-track", 0.25, 0.5, 40)
    fresh.generate()
    made = fresh.result()
    page.reload()
    fresh.ready()
    assert page.locator("#history-list > li").count() == 1
    assert f"seed {seed}" in page.inner_text("#history-list .hint")
    page.click("text=Run again")
    fresh.finish(1)
    assert fresh.result() == made
    page.locator("#history-list button", has_text="Load").first.click()
    fresh.until(f"document.querySelector('#seed').value === '{seed}'")
    assert page.input_value("#field-event") == "rain"
    assert len(fresh.values("#region-list input")) == 2

    name = f"edit_add-{seed}.wav"
    for kind in ("curl", "python"):
        (tmp_path / name).unlink(missing_ok=True)
        text = fresh.copied(kind)
        words = ["bash", "-euc", text] if kind == "curl" else [sys.executable, "-c", text]
        subprocess.run(words, cwd=tmp_path, check=True, timeout=300)
        assert (tmp_path / name).read_bytes() == made
    command = shlex.split(fresh.copied("command"))
    assert command[0] == "unison-audio"
    run = [sys.executable, "-m", "unison_audio.cli.main", *command[1:]]
    subprocess.run(run, cwd=tmp_path, check=True, timeout=300, capture_output=True)
    again, first = soundfile.read(tmp_path / name)[0], read_sound(made)[0][:, 0]
    # Another process may use other threads, whose rounding moves a sample by a step of 16 bits.
    np.testing.assert_allclose(again, first, rtol=0, atol=1.01 / 32768)
    page.click("#history-clear")
    page.wait_for_selector("#history-empty:visible")
    page.reload()
    assert fresh.ready().page.locator("#history-list > li").count() == 0


def test_an_own_instruction_is_sent_by_key(fresh: Studio) -> None:
    page = fresh.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link to the form
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("#mode-text")
    page.keyboard.press("Tab")
    page.keyboard.type("[Audio] rain and thunder")
    page.keyboard.press("Control+Enter")
    fresh.finish(0)
    assert "Two sounds" in page.inner_text("#history-list .hint")


def test_progress_is_shown_and_a_request_can_be_cancelled(fresh: Studio) -> None:
    page = fresh.page
    page.click("#settings summary")
    page.fill("#steps", "1000")
    fresh.choose("t2a", {"caption": "rain"})
    page.click("#run")
    shown = "document.querySelector('#progress-text').textContent"
    fresh.until(f"/^Generating, step \\d+ of 1000, /.test({shown})")
    fresh.until("document.querySelector('#progress').value > 1")
    assert page.evaluate("document.querySelector('#progress').max") == 1000
    page.click("#cancel")
    fresh.until("document.querySelector('#progress-text').textContent === 'Cancelled'")
    assert page.locator("#history-list > li").count() == 0


def test_a_restart_of_the_server_is_survived(browser: Any, tmp_path: Path) -> None:
    server = start_server(tmp_path, port=(port := free_port()))
    studio = Studio(browser, server.url).ready()
    studio.choose("t2a", {"caption": "rain"})
    studio.generate()
    made = studio.result()
    stop_server(server)
    studio.page.wait_for_selector("#server-state[data-state=away]")
    studio.page.click("#run")
    studio.page.wait_for_selector("#problem:visible")
    assert "cannot be reached" in studio.page.inner_text("#problem")
    # The browser itself reports each refused connection; nothing else may be said.
    assert all("ERR_CONNECTION_REFUSED" in one for one in studio.complaints)
    server = start_server(tmp_path, port=port)
    studio.ready().generate()
    assert studio.result() == made
    assert studio.page.locator("#history-list > li").count() == 2
    stop_server(server)
    studio.context.close()


def test_a_key_is_asked_for(browser: Any, tmp_path: Path) -> None:
    server = start_server(tmp_path, UNISON_AUDIO_API_KEYS="a-long-secret")
    studio = Studio(browser, server.url)
    page = studio.page
    page.wait_for_selector("#server-state[data-state=locked]")
    page.click("#key-open")
    page.fill("#key", "a-long-secret")
    page.keyboard.press("Enter")
    studio.ready()
    studio.choose("t2a", {"caption": "rain"})
    studio.generate()
    assert "$UNISON_AUDIO_KEY" in studio.copied("curl")
    assert "a-long-secret" not in studio.copied("python")
    assert all("401 (Unauthorized)" in one for one in studio.complaints)
    stop_server(server)
    studio.context.close()


@pytest.mark.parametrize(
    ("name", "scheme", "width"),
    [
        ("light", "light", 1280),
        ("dark", "dark", 1280),
        ("narrow", "light", 360),
    ],
)
def test_looks_and_accessibility(
    browser: Any, server: RunningServer, tmp_path: Path, name: str, scheme: str, width: int
) -> None:
    studio = Studio(browser, server.url, color_scheme=scheme).ready()
    page = studio.page
    page.set_viewport_size({"width": width, "height": 900})
    folder = Path(os.environ.get("STUDIO_SCREENSHOTS", tmp_path))
    spoken = tmp_path / "good-morning.wav"
    studio.choose("tts", {"text": "good morning, the red dog is in the house"})
    studio.generate()
    spoken.write_bytes(studio.result())
    studio.source(spoken)
    if name == "dark":
        studio.choose("timed", {})
        studio.drag("#timeline-lane", 0.06, 0.5, 70)
        page.keyboard.type("rain")
        studio.drag("#timeline-lane", 0.3, 0.7, 70)
        page.keyboard.type("thunder")
        studio.drag("#timeline-lane", 0.72, 0.96, 70)
        page.keyboard.type("a dog barking")
    else:
        studio.drag("#source-track", 0.4, 0.8, 40)
        studio.choose("edit_add", {"event": "rain and a violin" if name == "light" else "rain"})
    page.wait_for_selector("#check[data-checked=true]")
    studio.generate()
    page.wait_for_selector("#result-track canvas")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    shot = folder / f"studio-{name}.png"
    page.screenshot(path=shot, full_page=name != "narrow")
    Image.open(shot).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        shot, optimize=True
    )
    assert shot.stat().st_size < 150_000
    assert studio.complaints == []
    for part in ("#voice-new", "#settings"):
        page.locator(part).evaluate("one => one.open = true")
    axe = Path(os.environ["AXE_JS"]).read_text()
    found = page.evaluate(f"{axe}; axe.run()")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20
    studio.context.close()
