"""The domain of a variant: what lies inside, what outside, and how each entry says so."""

import csv
import dataclasses
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_unison import RATE, StubEncoder, random_backbone, tiny_variant, tone_file

from unison_audio import checkpoint
from unison_audio.checkpoint_files import CONFIG_FILE, find_checkpoint, read_config
from unison_audio.checks import check_item, domain_message, require_domain
from unison_audio.cli import main as cli
from unison_audio.codecs.table import load_nano_codec
from unison_audio.data.records import ClipRecord
from unison_audio.demo.examples import packaged_inputs, read_examples
from unison_audio.domain import Domain, Outside, extend_domain, read_domain
from unison_audio.errors import InputError
from unison_audio.inputs import DomainWarning
from unison_audio.nano.open_texts import SENTENCE_WORDS
from unison_audio.nano.vocabulary import (
    LETTERS_PER_SECOND,
    MAX_LETTERS_PER_SECOND,
    VOCABULARY,
    random_sentence,
    random_sequence,
)
from unison_audio.pipeline import Unison
from unison_audio.tasks.mentions import mentions
from unison_audio.tasks.table import TASKS
from unison_audio.tasks.templates import WITHOUT_GENDER
from unison_audio.training.finetune import FinetuneConfig, finetune
from unison_audio.training.run import RunOutput


def packaged_domain() -> Domain:
    """The domain in nano's config.json."""
    domain = read_config(find_checkpoint("nano") / CONFIG_FILE).domain
    assert domain is not None
    return domain


PACKAGED = packaged_domain()
NANO = dataclasses.replace(PACKAGED, words=VOCABULARY, max_words=7, spells=False)
"""Nano's domain with a closed list of words, as of weights that read whole words."""
PETER = '[Speech] A male voice saying "hello Peter, how are you my friend?"'
VIOLIN = "[Audio] a violin"
RED_DOG = '[Speech] A male voice saying "red dog"'


def spellings(sound: str) -> list[str]:
    """Articles, case and plurals of a sound."""
    bare = re.sub(r"^an? ", "", sound)
    words = bare.split()
    noun = 0 if len(words) > 1 and words[1].endswith("ing") else len(words) - 1
    plural = words[noun] + ("es" if words[noun].endswith(("h", "s", "x")) else "s")
    plurals = [*words[:noun], plural, *words[noun + 1 :]]
    found = [sound, bare, f"the {bare}", sound.upper(), sound.capitalize(), f"some loud {bare}"]
    return found if words[noun].endswith(("ing", "s", "geese")) else [*found, " ".join(plurals)]


def filled(template: str, text: str, first: str, second: str) -> str:
    """A template with texts and sounds in all of its places."""
    sounds = {"caption": first, "event": first, "old": first, "new": second, "last": second}
    spoken = '"{new}"' in template  # a rewritten text, not a sound
    fields = sounds | {"first": first, "text": text, "gender": "male", "start": "0.5", "end": "2"}
    fields |= {"Event": first.capitalize()} | ({"new": text} if spoken else {})
    return template.format(**fields)


ALL_TEMPLATES = [
    *(template for task in TASKS.values() for template in task.templates),
    *WITHOUT_GENDER.values(),
]


@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_nothing_that_nano_knows_is_outside(template: str) -> None:
    rng = random.Random(template)
    texts = [random_sentence(rng) for _ in range(40)]
    texts += [random_sequence(rng, 1 + k % 6) for k in range(40)]
    texts += [text.upper() for text in texts[:20]] + [f"{t.capitalize()}." for t in texts[:20]]
    known = [*NANO.sounds, *(caption.rstrip(".") for caption in NANO.captions)]
    sounds = [spelling for sound in NANO.sounds for spelling in spellings(sound)] + known
    for text, sound in zip(itertools.cycle(texts), sounds):
        instruction = filled(template, text, sound, rng.choice(sounds))
        assert NANO.outside(instruction) == Outside(), instruction


def test_all_templates_are_covered() -> None:
    assert len(TASKS) == 15
    named = {name for template in ALL_TEMPLATES for name in re.findall(r"{(\w+)}", template)}
    assert named <= {
        *("gender", "text", "caption", "first", "last", "start", "end", "event", "Event"),
        *("old", "new"),
    }


def test_the_demo_lies_inside() -> None:
    for example in read_examples(packaged_inputs()):
        assert not PACKAGED.outside(example.instruction), example.instruction


OUTSIDE: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    (PETER, ("peter", "how", "friend"), ()),
    ('[Speech] A male voice saying "dogs"', ("dogs",), ()),
    ('[Speech] Say "route 66" in a female voice', ("route", "66"), ()),
    ('[Speech] "don\'t stop", spoken by a male voice', ("don't",), ()),
    ("[Speech with voice] Go home", ("home",), ()),
    ('[Speech with voice] Say "bonjour"', ("bonjour",), ()),
    ('[Speech] A voice saying "你好"', ("你好",), ()),
    ('[Speech] A male voice saying "a dog"', ("a",), ()),
    (VIOLIN, (), ("a violin",)),
    ("[Audio] We hear A Violin", (), ("We hear A Violin",)),
    ("[Audio] a cat meowing", (), ("a cat meowing",)),
    ("[Audio] music", (), ("music",)),
    ("[Audio] a police siren", (), ("a police siren",)),
    ("[Audio] a fire truck siren", (), ("a fire truck siren",)),
    ("[Audio] a crowd cheering", (), ("a crowd cheering",)),
    ("[Audio] a baby crying", (), ("a baby crying",)),
    ("[Audio] a phone rings", (), ("a phone rings",)),
    ("[Audio] a train whistle", (), ("a train whistle",)),
    ("[Audio] a french horn", (), ("a french horn",)),
    ("[Audio] a horse riding a bicycle", (), ("a horse riding a bicycle",)),
    ("[Audio] rain on a tin roof", (), ("a tin roof",)),
    ("[Audio] a forest", (), ("a forest",)),
    ("[Audio] a dog barking and a piano", (), ("a piano",)),
    ("[Audio] a flute, mixed with a drum", (), ("a flute", "a drum")),
    ("[Audio] From 0.0s to 0.9s, a piano. From 1.1s to 3.0s, thunder.", (), ("a piano",)),
    ("[Audio] A guitar from 0.5s to 2s.", (), ("A guitar",)),
    ("[Edit][Audio] Add a guitar", (), ("a guitar",)),
    ("[Edit][Audio] Remove the sound of a keyboard", (), ("the sound of a keyboard",)),
    ("[Edit] [Audio] Please get rid of the cello", (), ("the cello",)),
    ("[Edit][Audio] Replace rain with applause", (), ("applause",)),
    ("[Edit][Audio] Swap a tuba for a harp", (), ("a tuba", "a harp")),
    ("[Edit][Audio] Remove rain and add a choir", (), ("a choir",)),
    ('[Edit][Speech] Change speech to "the purple elephant"', ("elephant",), ()),
    ('[Edit][Speech] Add a voice saying "welcome"', ("welcome",), ()),
    (
        '[Edit][Audio] Remove a lute [Edit][Speech] add a voice saying "yes sir"',
        ("sir",),
        ("a lute",),
    ),
    ('[Speech] A male voice saying "yes sir" [Audio] a clarinet', ("sir",), ("a clarinet",)),
]


@pytest.mark.parametrize(("instruction", "words", "sounds"), OUTSIDE)
def test_what_nano_does_not_know_is_found(
    instruction: str, words: tuple[str, ...], sounds: tuple[str, ...]
) -> None:
    assert NANO.outside(instruction) == Outside(words=words, sounds=sounds)


def test_there_are_thirty_examples() -> None:
    assert len(OUTSIDE) >= 30
    assert "a helicopter" in NANO.sounds  # one of nano's 72 sounds, and so no example here


def test_a_known_sound_is_known_in_other_words() -> None:
    for known in ("a dog", "dogs bark", "the wind blows", "two distant gunshots", "women scream"):
        assert not NANO.outside(f"[Audio] {known}"), known
    for known in ("a dog barking in the rain", "coins, thunder and geese", "heavy rain"):
        assert not NANO.outside(f"[Audio] {known}"), known


def test_nano_knows_every_word_of_letters() -> None:
    for instruction in (PETER, '[Speech] "don\'t stop", spoken by a male voice', RED_DOG):
        assert PACKAGED.outside(instruction) == Outside()
    assert PACKAGED.outside('[Speech] A voice saying "你好, zoë"').words == ("你好", "zoë")


def test_a_text_longer_than_any_of_the_training() -> None:
    text = " ".join(["red"] * 8)
    assert NANO.outside(f'[Speech] Say "{text}"') == Outside(text_words=8)
    assert not NANO.outside(f'[Speech] Say "{text[4:]}"')


def test_mentions() -> None:
    found = mentions('[Speech] A voice saying "go" [Audio] rain')
    assert (found.texts, [s.strip() for s in found.sounds]) == (("go",), ["rain"])
    assert mentions("[Edit][Speech] Remove the noise").sounds == ()
    assert mentions("[Speech with voice] red dog").texts == ("red dog",)
    whole = 'He said "red, go" twice'
    assert mentions(f"[Speech with voice] {whole}").texts == (whole,)


def test_a_text_must_fit_the_duration() -> None:
    instruction = '[Speech] A male voice saying "we see twelve and twenty"'  # 20 letters
    NANO.check_length(instruction, 20 / 16, 5.12)
    with pytest.raises(InputError, match=r"too long for 1\.20 s .* ask for a duration of 2 s"):
        NANO.check_length(instruction, 1.2, 5.12)
    longer = instruction.replace("twenty", "twenty " * 6)
    with pytest.raises(InputError, match=r"50 letters.* ask for a duration of 5 s"):
        NANO.check_length(longer, 2.56, 5.12)
    with pytest.raises(InputError, match=r"shorten it to about 51 letters, which fit into 5\.12 s"):
        NANO.check_length(instruction.replace("twenty", "twenty " * 12), 5.12, 5.12)
    NANO.check_length("[Audio] rain", 0.1, 5.12)


def test_ordinary_texts_fit_the_default_duration() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        NANO.check_length(f'[Speech] Say "{random_sentence(rng)}"', 2.56, 5.12)


def test_nanos_domain_is_what_its_corpus_holds() -> None:
    table = resources.files("unison_audio.nano").joinpath("nano_sounds.tsv").read_text("utf-8")
    rows = list(csv.DictReader(table.splitlines(), delimiter="\t"))
    assert (
        Domain(
            words=(),
            sounds=tuple(sorted({row["label"] for row in rows})),
            captions=tuple(sorted({row["caption"] for row in rows})),
            max_words=max(SENTENCE_WORDS),
            letters_per_second=LETTERS_PER_SECOND,
            max_letters_per_second=MAX_LETTERS_PER_SECOND,
            spells=True,
        )
        == PACKAGED
    )


def test_a_config_holds_the_domain(tmp_path: Path) -> None:
    assert (len(NANO.words), len(NANO.sounds), NANO.max_words) == (114, 72, 7)
    variant = dataclasses.replace(tiny_variant(), domain=NANO)
    checkpoint.save(tmp_path / "with", variant, random_backbone(variant))
    assert checkpoint.load(tmp_path / "with")[0] == variant
    checkpoint.save(tmp_path / "without", tiny_variant(), random_backbone(tiny_variant()))
    assert "domain" not in json.loads((tmp_path / "without" / CONFIG_FILE).read_text())
    assert read_config(tmp_path / "without" / CONFIG_FILE).domain is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": "red dog"}, "domain's words"),
        ({"sounds": [1]}, "domain's sounds"),
        ({"max_words": 0}, "max_words is 0; it must be above 0"),
        ({"letters_per_second": "ten"}, "letters_per_second is 'ten'"),
        ({"speed": 1}, "keys speed are missing or unknown"),
        (None, "not an object"),
    ],
)
def test_a_damaged_domain_is_refused(
    change: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    variant = dataclasses.replace(tiny_variant(), domain=NANO)
    checkpoint.save(tmp_path, variant, random_backbone(variant))
    path = tmp_path / CONFIG_FILE
    values = json.loads(path.read_text())
    values["domain"] = 3 if change is None else {**values["domain"], **change}
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"{CONFIG_FILE}.*{message}"):
        read_config(path)
    with pytest.raises(InputError, match="missing or unknown"):
        read_domain({"words": []})


def record(kind: str, **about: str) -> ClipRecord:
    values: dict[str, Any] = {"key": "x", "split": "train", "seconds": 1.0, "source": "own"}
    return ClipRecord(kind=kind, licence="", **values, **about)  # type: ignore[arg-type]


def test_further_training_extends_a_domain() -> None:
    records = [
        record("speech", text="Hello Peter, how are you, my dear old friend from home?"),
        record("sound", label="a kazoo", caption="A kazoo plays loudly."),
        record("sound", caption="A violin."),
    ]
    found = extend_domain(NANO, records, ["[Edit][Audio] Remove the buzzer", "[Audio] rain"])
    assert found is not None
    assert found.sounds == (*NANO.sounds, "a kazoo", "A violin", "the buzzer")
    assert found.words[:114] == NANO.words
    assert "peter" in found.words
    assert found.max_words == 11
    for instruction in (PETER, VIOLIN, "[Audio] kazoos", "[Audio] a buzzer and a kazoo playing"):
        assert not found.outside(instruction)
    assert found.outside("[Audio] a cello").sounds == ("a cello",)
    assert extend_domain(None, records) is None
    assert extend_domain(NANO, []) == NANO


@pytest.fixture(scope="session")
def checkpoint_with_domain(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with nano's domain."""
    folder = tmp_path_factory.mktemp("domain") / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    path = folder / CONFIG_FILE
    values = json.loads(path.read_text()) | {"domain": NANO.as_json()}
    path.write_text(json.dumps(values))
    return folder


@pytest.fixture
def limited(checkpoint_with_domain: Path) -> Unison:
    variant, backbone = checkpoint.load(checkpoint_with_domain)
    codec = load_nano_codec(checkpoint_with_domain)
    return Unison(variant, backbone, codec, StubEncoder())


def test_python_warns_once_and_carries_the_warning(limited: Unison) -> None:
    given = {"duration": 0.5, "seed": 3}
    instruction = '[Speech] A male voice saying "yes sir" [Audio] a clarinet'
    with pytest.warns(DomainWarning) as caught:
        sound = limited.generate(instruction, **given)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert sound.warnings == (str(caught[0].message),)
    pattern = r"nano was not trained on the word sir and the sound 'a clarinet' \(nearest: (.*)\); "
    near = re.match(pattern, sound.warnings[0])
    assert near is not None
    assert len(near[1].split(", ")) == 3
    assert set(near[1].split(", ")) <= set(NANO.sounds)
    with pytest.warns(DomainWarning):
        sounds = limited.generate([RED_DOG, VIOLIN, VIOLIN], **given)
    assert [len(one.warnings) for one in sounds] == [0, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert limited.generate(RED_DOG, **given).warnings == ()


LONG_TEXT = "The red dog is at the door. Peter has a sloop. " * 3 + "Peter has a zither."


def test_a_long_text_gives_one_warning_for_all_windows(limited: Unison) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pieces = list(limited.stream("[Speech] A male voice", text=LONG_TEXT, steps=1))
    assert len(pieces) > 3
    assert [str(one.message) for one in caught if one.category is DomainWarning] == [
        "nano was not trained on the words peter, a, sloop, zither; expect a poor result "
        "('unison-audio variants nano' lists what it knows)."
    ]


def test_a_long_text_is_refused_before_its_first_window(limited: Unison) -> None:
    with pytest.raises(InputError, match="not trained on the words peter, a, sloop, zither; "):
        limited.stream("[Speech] A male voice", text=LONG_TEXT, strict=True)


def test_a_message_names_a_dozen_words_of_a_book(limited: Unison) -> None:
    words = tuple(f"word{number}" for number in range(40))
    found = domain_message(limited.variant, Outside(words=words))
    assert found.endswith("word10, word11 and 28 others")
    found = domain_message(limited.variant, Outside(words=words[:13]))
    assert found.endswith("word10, word11 and 1 other")


def test_a_warning_does_not_change_the_sound(limited: Unison, tiny: Unison) -> None:
    with pytest.warns(DomainWarning):
        sound = limited.generate(VIOLIN, duration=0.5, seed=3)
    plain = tiny.generate(VIOLIN, duration=0.5, seed=3)
    assert torch.equal(sound.waveform, plain.waveform)
    assert plain.warnings == ()  # a variant without a domain claims no limit


def test_python_refuses_where_asked(limited: Unison, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the words peter, how, friend; 'unison-audio variants"):
        limited.generate(PETER, strict=True)
    limited.generate(RED_DOG, strict=True, duration=0.5)
    text = "the purple tiger is under the water"
    source = tone_file(tmp_path / "short.wav", 1.0, RATE)
    with pytest.raises(InputError, match=r"too long for 1\.00 s .* ask for a duration of 2\.9 s"):
        limited.generate(f'[Edit][Speech] Add a voice saying "{text}"', source=source)
    with pytest.raises(InputError, match=r"too long for 0\.50 s"):
        limited.generate(
            f"[Speech with voice] {text}", reference=source, reference_text="go", duration=0.5
        )


def test_the_nearest_sounds_are_near(tmp_path: Path) -> None:
    """With the real text encoder, in a process of its own."""
    out = tmp_path / "x.wav"
    command = [sys.executable, "-m", "unison_audio.cli.main", "generate", "-o", str(out)]
    done = subprocess.run(
        [*command, "[Audio] a cat meowing", "--steps", "1"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{out}: t2a, 2.56 s, seed 0\n")
    assert done.stderr.startswith("unison-audio: note: nano was not trained on the sound 'a cat me")
    assert done.stderr.endswith("('unison-audio variants nano' lists what it knows).\n")
    assert done.stderr.count("\n") == 1
    assert "(nearest: a sheep bleating, a wolf howling, a lion roaring)" in done.stderr
    assert out.is_file()


def run(*arguments: Any) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_the_command_line_notes_or_refuses(
    checkpoint_with_domain: Path,
    stub_text: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "x.wav"
    weights = ("-o", out, "--variant", checkpoint_with_domain, "--duration", 2)
    assert run("generate", PETER, *weights, "--strict") == 2
    line = capsys.readouterr().err
    assert line.startswith("unison-audio: nano was not trained on the words peter, how, friend; ")
    assert not out.exists()
    assert run("generate", PETER, *weights) == 0
    note = capsys.readouterr().err
    assert note == (
        "unison-audio: note: nano was not trained on the words peter, how, friend; expect a poor "
        "result ('unison-audio variants nano' lists what it knows).\n"
    )
    assert run("generate", RED_DOG, *weights, "--strict") == 0
    assert capsys.readouterr().err == ""
    assert run("generate", PETER, *weights[:-1], 1) == 2
    assert "too long for 1.00 s" in capsys.readouterr().err


def test_jobs_note_or_refuse(
    checkpoint_with_domain: Path,
    stub_text: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    jobs = [{"instruction": text, "duration": 2.0} for text in (RED_DOG, VIOLIN, VIOLIN)]
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    command = ("batch", path, "-o", out, "--variant", checkpoint_with_domain)
    assert run(*command) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" was not")[0] for line in said] == [
        f"Line {number} (000{number}.wav): note: nano" for number in (2, 3)
    ]
    entries = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert "warnings" not in entries[0]
    assert len(entries[1]["warnings"]) == 1
    assert entries[1]["warnings"][0].startswith("nano was not trained on the sound 'a violin'")
    path.write_text(json.dumps(jobs[1] | {"strict": True}) + "\n")
    assert run("batch", path, "-o", tmp_path / "new", "--variant", checkpoint_with_domain) == 2
    assert "line 1: nano was not trained on the sound 'a violin'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_domain_is_listed(
    checkpoint_with_domain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("variants", checkpoint_with_domain) == 0
    page = capsys.readouterr().out
    assert page.startswith("114 words\n")
    assert set(NANO.words) <= set(page.split())
    assert set(NANO.sounds) <= set(page.splitlines())
    assert run("variants", "nano") == 0
    page = capsys.readouterr().out
    assert page.startswith("Any word in the letters a to z\n")
    assert set(NANO.sounds) <= set(page.splitlines())
    assert run("variants", "d20-44k") == 0
    assert "declares no limits" in capsys.readouterr().out
    assert run("variants", "nothing") == 2
    assert "no folder 'nothing'" in capsys.readouterr().err


def test_a_fine_tuned_checkpoint_knows_more(
    checkpoint_with_domain: Path, stub_text: None, tmp_path: Path
) -> None:
    tone_file(tmp_path / "kazoo.wav", 0.5, RATE)
    rows = [
        {"audio": "kazoo.wav", "label": "a kazoo"},
        {"audio": "kazoo.wav", "text": "hello peter", "gender": "male"},
    ]
    examples = tmp_path / "own.jsonl"
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FinetuneConfig(method="full", steps=1, items=1)
    output = RunOutput(folder=tmp_path / "run")
    weights = finetune(str(checkpoint_with_domain), examples, output, config=config)
    domain = read_config(weights / CONFIG_FILE).domain
    assert domain == dataclasses.replace(
        NANO, words=(*NANO.words, "peter"), sounds=(*NANO.sounds, "a kazoo")
    )


def test_a_domain_checks_itself() -> None:
    rates: dict[str, Any] = {"letters_per_second": 1, "max_letters_per_second": 2}
    with pytest.raises(InputError, match="domain's words"):
        Domain(words=["red"], sounds=(), max_words=1, **rates)  # type: ignore[arg-type]


def test_nanos_labels_with_and_are_one_sound() -> None:
    variant = dataclasses.replace(tiny_variant(), domain=NANO)
    labels = [label for label in NANO.sounds if " and " in label]
    assert "ducks and geese" in labels
    given: Any = {"has_source": True, "has_reference": False, "reference_text": None}
    for label, verb in itertools.product(labels, ("Remove", "Add")):
        instruction = f"[Edit][Audio] {verb} {label}"
        reading = check_item(variant, instruction, **given, duration=None, seed=0)
        require_domain(variant, instruction, reading.notes)  # as --strict does
