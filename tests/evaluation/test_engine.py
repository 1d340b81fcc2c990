"""Systems over test sets: what they answer, resuming, failures and figures."""

import dataclasses
import hashlib
import json
import math
import multiprocessing
import shutil
import time

import pytest
import soundfile
import torch
from benchmark_files import put_data
from toy_metrics import toy_metrics

from unison_audio.audio import load, save
from unison_audio.errors import InputError
from unison_audio.evaluation.baselines import SDEdit
from unison_audio.evaluation.engine import (
    TIMES,
    System,
    batches,
    fingerprint,
    generate_set,
    look_up,
    real_time_factor,
    score_set,
)
from unison_audio.evaluation.metrics.metric import MetricContext
from unison_audio.evaluation.systems import (
    CopySource,
    GroundTruth,
    Outputs,
    ThroughCodec,
    UnisonSystem,
)
from unison_audio.evaluation.test_sets.build import build_test_set
from unison_audio.evaluation.test_sets.manifest import derived_seed
from unison_audio.evaluation.test_sets.recordings import published
from unison_audio.evaluation.test_sets.scenes import TestSetSpec
from unison_audio.output_format import MARKS_VARIABLE
from unison_audio.pipeline import Unison
from unison_audio.provenance.file_tags import read_tags
from unison_audio.provenance.origin import stated_source_type

RATE = 16_000
FORM = TestSetSpec(
    sample_rate=RATE, hop=1024, seconds=1.0, timed_seconds=2.0, zero_shot_seconds=1.0, longest=5.12
)
COUNTS = {
    "seed-tts-en": 2,
    "seed-tts-zh": 1,
    "audio-editing": 2,
    "speech-editing": 1,
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("running")
    material = published(put_data(folder / "data"), RATE)
    return {
        name: build_test_set(name, material, folder / "sets" / name, FORM, counts=COUNTS)
        for name in ("seed-tts", "audio-editing", "speech-editing")
    }


def hashes(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != TIMES
    }


class Noise(System):
    """Answers with noise that depends on the item; refuses some, and can take its time."""

    sample_rate = RATE

    def __init__(self, name="noise", refused=(), pause=0.0):
        self.name, self.refused, self.pause, self.asked = name, refused, pause, []

    def generate(self, test_set, items):
        self.asked.append([item.id for item in items])
        time.sleep(self.pause)
        if bad := [item.id for item in items if item.id in self.refused]:
            raise RuntimeError(f"cannot do {', '.join(bad)}")
        return [self.answer(item) for item in items]

    def answer(self, item):
        generator = torch.Generator().manual_seed(derived_seed(7, item.id))
        return 0.05 * torch.randn(round(item.seconds * RATE), generator=generator)


def test_batches_have_one_task_and_length(sets) -> None:
    items = sets["audio-editing"].items
    longer = dataclasses.replace(items[0], id="longer", seconds=1.5)
    found = [[item.id for item in group] for group in batches([*items, longer], 2)]
    assert found == [
        ["edit_add-0000", "edit_add-0001"],
        ["edit_remove-0000", "edit_remove-0001"],
        ["edit_replace-0000", "edit_replace-0001"],
        ["longer"],
    ]


def test_the_model_is_asked_as_a_user_asks(sets, tiny, tmp_path) -> None:
    """Each output is what a single call with the item's own seed gives."""
    system = UnisonSystem(tiny, seed=5, steps=2)
    for name, test_set in sets.items():
        made = generate_set(system, test_set, tmp_path, batch=4)
        assert not made.failed
        for item in (test_set.items[0], test_set.items[-1]):
            expected = tiny.generate(
                item.instruction,
                source=test_set.path(item, "source"),
                reference=test_set.path(item, "reference"),
                reference_text=item.reference_text or None,
                duration=None if item.source else item.seconds,
                seed=derived_seed(5, item.id),
                steps=2,
            )
            output = load(made.folder / f"{item.id}.flac", sample_rate=RATE)
            assert len(output) == round(item.seconds * RATE), name
            assert (output - expected.waveform).abs().max() < 1e-4


def test_a_fingerprint_tells_types_apart_and_ignores_the_object(tiny_checkpoint) -> None:
    """The same weights have the same one; numpy, which knows no bfloat16, must not be asked."""
    exact, again, half = (
        Unison.from_pretrained(tiny_checkpoint, dtype=dtype)
        for dtype in (torch.float32, torch.float32, torch.bfloat16)
    )
    assert fingerprint(exact) == fingerprint(again)
    assert fingerprint(half) != fingerprint(exact)


def test_outputs_state_their_origin(sets, tiny, tmp_path, monkeypatch) -> None:
    """Tags by what made an output; never a watermark, which would be measured with the model."""
    monkeypatch.setenv(MARKS_VARIABLE, "metadata,watermark")
    unison = UnisonSystem(tiny, steps=1)
    for system, name, expected in (
        (unison, "seed-tts", {"trainedAlgorithmicMedia"}),
        (unison, "audio-editing", {"compositeWithTrainedAlgorithmicMedia"}),
        (SDEdit(tiny, steps=8), "audio-editing", {"compositeWithTrainedAlgorithmicMedia"}),
        (CopySource(), "audio-editing", {""}),
    ):
        made = generate_set(system, sets[name], tmp_path)
        files = [made.folder / f"{item.id}.flac" for item in made.items]
        assert files
        stated = {" ".join(read_tags(file).values()) for file in files}
        assert {stated_source_type(text) for text in stated} == expected
    item = sets["audio-editing"].items[0]
    copied = load(tmp_path / "copy-source" / "audio-editing" / f"{item.id}.flac", sample_rate=RATE)
    source = load(sets["audio-editing"].path(item, "source"), sample_rate=RATE)
    assert torch.equal(copied, source)
    monkeypatch.setenv(MARKS_VARIABLE, "none")
    bare = generate_set(unison, sets["seed-tts"], tmp_path / "bare").folder
    for plain in bare.glob("*.flac"):
        assert stated_source_type(" ".join(read_tags(plain).values())) == ""
        tagged = tmp_path / "unison" / "seed-tts" / plain.name
        assert torch.equal(*(load(file, sample_rate=RATE) for file in (plain, tagged)))


def test_order_and_shards_change_nothing(sets, tiny, tmp_path) -> None:
    system = UnisonSystem(tiny, steps=2)
    test_set = sets["audio-editing"]
    whole = generate_set(system, test_set, tmp_path / "whole", batch=2)
    for shard in (2, 0, 1):
        parts = generate_set(system, test_set, tmp_path / "parts", batch=2, shard=(shard, 3))
    assert parts.missing == 0
    assert hashes(whole.folder) == hashes(parts.folder)


def test_a_killed_run_goes_on(sets, tmp_path) -> None:
    """SIGKILL in the middle; what was there is left alone, the rest comes, and all is the same."""
    test_set = sets["audio-editing"]
    whole = generate_set(Noise(), test_set, tmp_path / "whole", batch=2)
    slow = Noise(pause=0.3)
    options = {"batch": 2}
    process = multiprocessing.get_context("fork").Process(
        target=generate_set, args=(slow, test_set, tmp_path / "killed"), kwargs=options
    )
    process.start()
    folder = tmp_path / "killed" / "noise" / "audio-editing"
    for _ in range(600):
        if len(list(folder.glob("*.flac"))) >= 2:
            break
        time.sleep(0.02)
    process.kill()
    process.join()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.flac")}
    assert process.exitcode == -9
    assert 2 <= len(before) < 6
    assert look_up(folder, test_set).missing == 6 - len(before)
    with pytest.raises(InputError, match="outputs are still to be made"):
        score_set(test_set, look_up(folder, test_set), toy_metrics("lsd")["lsd"], MetricContext())
    again = Noise()
    made = generate_set(again, test_set, tmp_path / "killed", batch=2)
    assert hashes(made.folder) == hashes(whole.folder)
    done = {name.removesuffix(".flac") for name in before}
    assert all(set(group) - done for group in again.asked)
    scores = [
        [
            score_set(test_set, one, metric, MetricContext(), bootstrap=50)
            for metric in toy_metrics("lsd", "fd").values()
        ]
        for one in (whole, made)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_an_output_that_was_cut_is_made_again(share, sets, tmp_path) -> None:
    test_set = sets["audio-editing"]
    whole = hashes(generate_set(Noise(), test_set, tmp_path, batch=2).folder)
    file = tmp_path / "noise" / "audio-editing" / "edit_remove-0001.flac"
    content = file.read_bytes()
    file.write_bytes(content[: round(share * len(content))])
    assert look_up(file.parent, test_set).missing == 1
    again = Noise()
    assert hashes(generate_set(again, test_set, tmp_path, batch=2).folder) == whole
    assert again.asked == [["edit_remove-0000", "edit_remove-0001"]]


def test_a_failed_item_is_counted_and_named(sets, tmp_path) -> None:
    test_set = sets["audio-editing"]
    refused = ("edit_add-0001", "edit_replace-0000")
    system = Noise(refused=refused)
    made = generate_set(system, test_set, tmp_path, batch=2)
    assert made.failed == {name: f"cannot do {name}" for name in refused}
    assert (made.folder / "edit_add-0000.flac").is_file()  # its neighbour is answered alone
    lines = (made.folder / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(refused)
    metric = toy_metrics("lsd")["lsd"]
    score = score_set(test_set, made, metric, MetricContext(), bootstrap=0)
    assert (score.count, score.failed) == (4, refused)
    assert score.reasons["edit_add-0001"] == "cannot do edit_add-0001"
    only = score_set(
        test_set,
        made,
        metric,
        MetricContext(),
        bootstrap=0,
        keep=lambda item: item.task == "edit_remove",
    )
    assert (only.count, only.failed) == (2, ())
    mended = generate_set(Noise(), test_set, tmp_path, batch=2)
    assert not mended.failed
    assert (mended.folder / "failures.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (torch.full((100,), math.nan), "not finite"),
        (torch.zeros(0), r"shape \(0,\)"),
        (torch.zeros(2, 100), r"shape \(2, 100\)"),
    ],
)
def test_answers_that_are_no_sound_fail(sets, tmp_path, answer, reason) -> None:
    system = Noise()
    system.answer = lambda item: answer
    made = generate_set(system, sets["speech-editing"], tmp_path)
    assert len(made.failed) == 3
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(made.failed["speech_insert-0000"])


def test_loud_answers_are_scaled(sets, tmp_path) -> None:
    system = Noise()
    system.answer = lambda item: 4 * torch.sin(torch.arange(1000) / 5)
    made = generate_set(system, sets["speech-editing"], tmp_path)
    output = load(made.folder / "speech_insert-0000.flac", sample_rate=RATE)
    assert float(output.abs().max()) == pytest.approx(0.99, abs=1e-3)


def test_outputs_of_something_else_are_not_taken_over(sets, tiny, tmp_path) -> None:
    test_set = sets["speech-editing"]
    generate_set(UnisonSystem(tiny, steps=1), test_set, tmp_path)
    with pytest.raises(InputError, match="holds outputs of another identity"):
        generate_set(UnisonSystem(tiny, steps=2), test_set, tmp_path)
    with pytest.raises(InputError, match="holds outputs of another batch"):
        generate_set(UnisonSystem(tiny, steps=1), test_set, tmp_path, batch=1)
    with pytest.raises(InputError, match="no outputs"):
        look_up(tmp_path / "nobody", test_set)
    with pytest.raises(InputError, match="outputs of another test set"):
        look_up(tmp_path / "unison" / "speech-editing", sets["audio-editing"])


def test_references(sets, tiny, tmp_path) -> None:
    """The truth and the source as they are; the codec as it decodes what it encodes."""
    test_set = sets["audio-editing"]
    item = test_set.items[0]
    for system, role in ((GroundTruth(), "target"), (CopySource(), "source")):
        made = generate_set(system, test_set, tmp_path)
        output = load(made.folder / f"{item.id}.flac", sample_rate=RATE)
        assert torch.equal(output, load(test_set.path(item, role), sample_rate=RATE))
    assert not generate_set(CopySource(), sets["seed-tts"], tmp_path).items
    target = load(test_set.path(item, "target"), sample_rate=RATE)  # 15.6 frames
    padded = torch.nn.functional.pad(target, (0, 16 * 1024 - len(target)))
    with torch.no_grad():
        expected = tiny.codec.decode(tiny.codec.encode(padded[None]))[0, : len(target)]
    (output,) = ThroughCodec(tiny.codec).generate(test_set, [item])
    assert torch.allclose(output, expected)


def test_any_folder_of_sounds(sets, tmp_path) -> None:
    """wav, ogg and mp3 at any rate; a set's own folder counts first; what is missing is named."""
    test_set = sets["speech-editing"]
    folder = tmp_path / "theirs"
    names = [item.id for item in test_set.items]
    (folder / "speech-editing").mkdir(parents=True)
    (folder / "other").mkdir()
    tone = 0.1 * torch.sin(torch.arange(24_000) / 9)
    save(folder / "speech-editing" / f"{names[0]}.wav", tone, 24_000)
    save(folder / "other" / f"{names[0]}.wav", 0.5 * tone, 24_000)
    save(folder / f"{names[1]}.ogg", tone, 48_000)
    system = Outputs(folder)
    made = generate_set(system, test_set, tmp_path / "out", batch=3)
    assert made.folder == tmp_path / "out" / "theirs" / "speech-editing"
    assert list(made.failed) == [names[2]]
    assert f"no file named {names[2]}" in made.failed[names[2]]
    info = soundfile.info(made.folder / f"{names[0]}.flac")
    assert (info.samplerate, info.frames) == (48_000, 48_000)  # the highest: nothing is lost
    peak = load(made.folder / f"{names[0]}.flac", sample_rate=24_000).abs().max()
    assert float(peak) == pytest.approx(0.1, rel=0.05)
    shutil.copy(folder / f"{names[1]}.ogg", folder / "other")
    with pytest.raises(InputError, match=f"2 files named {names[1]}"):
        Outputs(folder).generate(test_set, [test_set.items[1]])
    with pytest.raises(InputError, match="no folder"):
        Outputs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no sound"):
        Outputs(tmp_path / "empty")


def test_computing_is_timed(sets, tmp_path) -> None:
    test_set = sets["speech-editing"]
    made = generate_set(Noise(pause=0.2), test_set, tmp_path, batch=8)
    seconds = sum(item.seconds for item in test_set.items)
    assert 0.6 / seconds <= real_time_factor(made) < 6.0 / seconds  # one batch a task
    lines = (made.folder / TIMES).read_text()
    (made.folder / TIMES).write_text(lines + lines)  # a batch that was made again counts once
    assert real_time_factor(made) < 6.0 / seconds
    (made.folder / TIMES).unlink()
    assert math.isnan(real_time_factor(made))
