"""The demo: 15 examples, their pictures, and a page that needs nothing but its folder."""

import math
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from tiny_unison import RATE

from unison_audio import audio, audio_files
from unison_audio.cli import main as cli
from unison_audio.demo.demo import mel_picture
from unison_audio.demo.examples import packaged_inputs, read_examples
from unison_audio.demo.page import TITLES, Entry, Track, render_page
from unison_audio.nano.corpus_speech import LICENSES
from unison_audio.tasks.instructions import parse_instruction
from unison_audio.tasks.table import TASKS


class Links(HTMLParser):
    """What a page refers to, and the text in its boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.boxes: list[str] = []
        self.ids: set[str] = set()
        self.in_box = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                self.links.append((tag, value or ""))
            if name == "id":
                self.ids.add(value or "")
        self.in_box = tag == "pre"
        if self.in_box:
            self.boxes.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_box = False

    def handle_data(self, data: str) -> None:
        if self.in_box:
            self.boxes[-1] += data


def test_the_packaged_inputs_are_one_a_task_and_free_to_share() -> None:
    folder = packaged_inputs()
    examples = read_examples(folder)
    assert [example.task for example in examples] == list(TASKS)
    named = {e.source for e in examples} | {e.reference for e in examples} | {"jobs.json", None}
    assert {file.name for file in folder.iterdir()} == named - {None}
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_500_000
    allowed = ("CC0-1.0", "CC-BY-3.0", "CC-BY-SA-3.0", *LICENSES.values())
    for example in examples:
        given = (example.source is not None, example.reference is not None)
        # A caption such as "crickets chirping and hissing" may stand for one task or the other.
        assert parse_instruction(example.instruction, *given) == example.task
        assert bool(example.credits) == any(given)
        assert all(credit.endswith(allowed) for credit in example.credits)
        for name in filter(None, (example.source, example.reference)):
            sound = audio.load(folder / name, sample_rate=RATE)
            audio.require_sound(sound, name)
            assert len(sound) <= 3.84 * RATE
    texts = [example.instruction for example in examples]
    assert len(set(texts)) == 15


def test_the_demo_makes_all_examples_and_a_page_of_them(
    tiny_checkpoint: Path, stub_text: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert cli.main(["demo", "-o", str(out), "--variant", str(tiny_checkpoint)]) == 0
    captured = capsys.readouterr()
    assert str(out / "index.html") in captured.out
    total = re.findall(r"Sampling: (\d+) of (\d+)", captured.err)[-1]
    assert total[0] == total[1]
    assert "Pictures: 15 of 15" in captured.err

    examples = read_examples(packaged_inputs())
    expected = {"index.html"}
    for example in examples:
        names = [(f"{example.task}-output", ".wav")]
        names += [(f"{example.task}-source", ".flac")] if example.source else []
        names += [(f"{example.task}-reference", ".flac")] if example.reference else []
        expected |= {stem + end for stem, suffix in names for end in (suffix, ".png")}
        length = audio_files.seconds(out / f"{example.task}-output.wav")
        assert length == (3.84 if example.task == "timed" else 2.56)
    assert {file.name for file in out.iterdir()} == expected

    page = Links()
    page.feed((out / "index.html").read_text("utf-8"))
    assert page.boxes == [example.instruction for example in examples]
    files = {link for _, link in page.links if not link.startswith("#")}
    assert files == expected - {"index.html"}
    assert {link[1:] for _, link in page.links if link.startswith("#")} == set(TASKS) == page.ids
    assert [tag for tag, _ in page.links].count("audio") == len(files) / 2


def test_every_task_has_a_title_and_something_to_listen_for() -> None:
    assert list(TITLES) == list(TASKS)
    assert all(title and listen.endswith(".") for title, listen in TITLES.values())


def test_the_page_escapes_what_it_is_given() -> None:
    track = Track(what="Output", file='a"b.wav', picture="a.png", note="<i>")
    entry = Entry(
        task="tts", instruction='"<b>" & so', tracks=(track,), settings={"seed": "0"}, credits="<"
    )
    text = render_page([entry], {"variant": "<x>"})
    assert "<b>" not in text
    assert "<i>" not in text
    assert "<x>" not in text
    page = Links()
    page.feed(text)
    assert page.boxes == ['"<b>" & so']
    assert ("audio", 'a"b.wav') in page.links


def test_pictures() -> None:
    time = torch.arange(RATE) / RATE
    picture = mel_picture(torch.sin(2 * math.pi * 1000 * time), RATE)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    assert 600 <= width <= 1000
    assert 200 <= height <= 500
