import json
from collections import Counter

import pytest
import torch
from stream_files import RATE, keys, sample, write_corpus

from unison_audio.data.stream import ClipStream, StreamConfig
from unison_audio.data.stream_pools import StreamPools, Window
from unison_audio.errors import InputError
from unison_audio.tasks.clips import ClipLimits
from unison_audio.tasks.draw import BuilderConfig
from unison_audio.tasks.table import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
LABELS = ("a beep", "a buzz", "wind blowing", "thunder, rain", "a horn")
UTTERANCES = 40


def write_speech(folder):
    """Every third utterance without words; four speakers and one unknown; 0.3 to 1.08 s."""
    clips = [
        sample(
            f"utterance-{i:02d}",
            kind="speech",
            seconds=0.3 + 0.02 * i,
            text="" if i % 3 == 2 else f"words number {i}",
            speaker=f"speaker-{i % 5}" if i % 5 else "",
            gender=("male", "female")[i % 2],
        )
        for i in range(UTTERANCES)
    ]
    return write_corpus(folder, [clips[:20], clips[20:]], "spoken", kinds=["speech"])


def write_sounds(folder):
    """Six of each label, the last two labels without caption, and six with a caption alone."""
    clips = [
        sample(
            f"sound-{i:02d}",
            seconds=0.4,
            label=LABELS[i % 5],
            caption="" if i % 5 > 2 else f"Something like {LABELS[i % 5]}.",
        )
        for i in range(30)
    ]
    clips += [sample(f"told-{i}", seconds=0.4, label="", caption=f"A car {i}.") for i in range(6)]
    return write_corpus(folder, [clips[:18], clips[18:]], "heard", kinds=["sound"])


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    return write_speech(folder / "speech"), write_sounds(folder / "sound")


def make(corpora, **options):
    pools = {"pair_seconds": 0.5}
    pools |= {name: options.pop(name) for name in ("held_seconds",) if name in options}
    config = StreamConfig(sample_rate=RATE, max_seconds=1.0, **options)
    return StreamPools(corpora, config, **pools)


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("held_seconds", [8.0, 1000.0])
def test_utterances_with_words_come_at_most_once_an_epoch_and_all_of_them(corpora, held_seconds):
    pools, drawn = make(corpora, held_seconds=held_seconds), generator()
    counts = Counter(
        pools.draw("speech", 1, ClipLimits(max_seconds=2.0), drawn)[0].record.text
        for _ in range(200)
    )
    short = [i for i in range(UTTERANCES) if i % 3 != 2 and 0.3 + 0.02 * i <= 1.0]
    assert set(counts) == {f"words number {i}" for i in short}
    begun = 1 + pools.windows["speech"].stream.position[1][0]["passes"][0][0]
    assert max(counts.values()) <= begun
    assert min(counts.values()) >= begun / 4


def test_speech_keeps_to_the_longest_length_and_to_the_most_words(corpora):
    pools = make(corpora)
    drawn = pools.draw("speech", 50, ClipLimits(max_seconds=0.6), generator())
    assert max(len(clip.waveform) for clip in drawn) <= 0.6 * RATE
    assert all(clip.record.text for clip in drawn)
    assert not all(
        clip.record.text
        for clip in pools.draw("speech_any", 50, ClipLimits(max_seconds=0.6), generator())
    )
    assert pools.pools(3).draw("speech", 5, ClipLimits(max_seconds=1.0), generator())
    with pytest.raises(InputError, match="no utterance with its words"):
        pools.pools(2).draw("speech", 5, ClipLimits(max_seconds=1.0), generator())


def test_pairs_are_two_long_utterances_of_one_known_speaker(corpora):
    pools = make(corpora)
    targets = Counter()
    clips = pools.draw("speaker_pair", 120, ClipLimits(max_seconds=0.9), generator())
    for reference, target in zip(clips[::2], clips[1::2], strict=True):
        assert reference.record.speaker == target.record.speaker != ""
        assert reference.record.text != target.record.text
        assert reference.record.text
        for clip in (reference, target):
            assert 0.5 * RATE <= len(clip.waveform) <= 0.9 * RATE
        targets[target.record.text] += 1
    assert max(targets.values()) - min(targets.values()) <= 4
    with pytest.raises(InputError, match=r"at least 0\.50 s cannot be of at most 0\.40 s"):
        pools.draw("speaker_pair", 1, ClipLimits(max_seconds=0.4), generator())
    with pytest.raises(InputError, match="no two utterances of one speaker"):
        pools.draw("speaker_pair", 1, ClipLimits(max_seconds=0.501), generator())


def test_sounds_of_all_labels_come_and_never_an_excluded_one(corpora):
    pools = make(corpora)
    drawn = pools.draw("sound", 72, ClipLimits(max_seconds=1.0), generator())
    counts = Counter(sound.record.label for sound in drawn)
    assert set(counts) == {*LABELS, *(f"a car {i}" for i in range(6))}
    for sound in drawn:
        told = {sound.record.label, f"something like {sound.record.label}"}
        assert sound.record.caption in told
    excluded = [{"a beep", "a buzz"}, set(LABELS)] * 20
    others = pools.draw(
        "sound", 40, ClipLimits(max_seconds=1.0, exclude_labels=excluded), generator()
    )
    assert all(s.record.label not in no for s, no in zip(others, excluded, strict=True))
    everything = [set(counts)]
    with pytest.raises(InputError, match="no sound other than"):
        pools.draw("sound", 1, ClipLimits(max_seconds=1.0, exclude_labels=everything), generator())


def test_noise_is_recorded_or_colored(corpora):
    pools = make(corpora)
    recorded = {
        sound.waveform.numpy().tobytes(): sound.record.label
        for sound in pools.draw("sound", 200, ClipLimits(max_seconds=1.0), generator())
    }
    drawn = pools.draw("noise", 100, ClipLimits(max_seconds=0.7), generator())
    waves = [clip.waveform for clip in drawn]
    found = Counter(recorded.get(wave.numpy().tobytes()) for wave in waves)
    assert set(found) == {None, "wind blowing", "thunder, rain"}
    assert 30 <= found[None] <= 70
    lengths = {len(wave) for wave in waves if wave.numpy().tobytes() not in recorded}
    assert lengths == {round(0.7 * RATE)}


def draws(pools, seed):
    """What several draws give, as comparable values."""
    g = generator(seed)
    pairs = pools.draw("speaker_pair", 3, ClipLimits(max_seconds=0.9), g)
    spoken = [
        *pools.draw("speech", 4, ClipLimits(max_seconds=0.8), g),
        *pools.draw("speech_any", 4, ClipLimits(max_seconds=1.0), g),
        *pairs,
    ]
    heard = pools.draw("sound", 5, ClipLimits(max_seconds=1.0, exclude_labels=[{"a beep"}] * 5), g)
    noise = pools.draw("noise", 3, ClipLimits(max_seconds=0.5), g)
    waves = [clip.waveform for clip in (*spoken, *heard, *noise)]
    return [wave.numpy().tobytes() for wave in waves] + [sound.record.caption for sound in heard]


@pytest.mark.parametrize("held_seconds", [8.0, 1000.0])
@pytest.mark.parametrize("before", [0, 1, 7])
def test_resumed_pools_give_the_same_samples(corpora, held_seconds, before):
    whole = make(corpora, held_seconds=held_seconds)
    for seed in range(before):
        draws(whole, seed)
    state = json.loads(json.dumps(whole.state_dict()))
    rest = [draws(whole, seed) for seed in range(20, 26)]
    resumed = make(corpora, held_seconds=held_seconds)
    resumed.load_state_dict([state])
    if before:
        assert json.loads(json.dumps(resumed.state_dict())) == state
    assert [draws(resumed, seed) for seed in range(20, 26)] == rest
    assert resumed.state_dict() == whole.state_dict()


def test_resumed_pools_with_worker_processes_give_the_same_samples(corpora):
    whole = make(corpora, held_seconds=8.0, workers=2)
    draws(whole, 0)
    state = whole.state_dict()
    rest = draws(whole, 1)
    whole.close()
    resumed = make(corpora, held_seconds=8.0, workers=2)
    resumed.load_state_dict([state])
    assert draws(resumed, 1) == rest
    resumed.close()


@pytest.mark.parametrize(
    ("workers", "shares"), [(0, (0, 0)), (1, (1, 0)), (2, (1, 1)), (5, (3, 2))]
)
def test_workers_are_those_of_both_kinds_together(corpora, workers, shares):
    windows = make(corpora, workers=workers).windows
    assert tuple(windows[kind].stream.config.workers for kind in ("speech", "sound")) == shares
    assert make(corpora[1:], workers=workers).windows["sound"].stream.config.workers == workers


def test_pools_resume_with_another_number_of_ranks(corpora):
    states = []
    for rank in range(2):
        pools = make(corpora, held_seconds=6.0, rank=rank, world=2)
        draws(pools, 0)
        states.append(pools.state_dict())
    alone = make(corpora, held_seconds=6.0)
    alone.load_state_dict(states)
    assert draws(alone, 1)
    assert not alone.windows["speech"].stream.exact


def test_a_window_holds_no_more_than_it_may(corpora):
    pools = make(corpora, held_seconds=5.0)
    for seed in range(10):
        draws(pools, seed)
        for window in pools.windows.values():
            samples = sum(len(one.clip.waveform) for one in window)
            assert samples == window.samples <= 5.0 * RATE
            assert len(window.state_dict()["held"]) < 60


def test_a_resumed_window_that_is_exactly_full_keeps_the_same_clips(tmp_path):
    # In floating point, the sum of such lengths depends on what was added and taken away before.
    lengths = [0.1, 0.3, 0.7]
    clips = [sample(f"sound-{i:02d}", seconds=lengths[i % 3]) for i in range(30)]
    folder = write_corpus(tmp_path, [clips])
    config = StreamConfig(sample_rate=RATE, kind="sound")
    whole = Window(ClipStream([folder], config), 1.8)
    for _ in range(40):
        list(whole)
        whole.advance(1)
        state = whole.state_dict()
        resumed = Window(ClipStream([folder], config), 1.8)
        resumed.load_state_dict([state])
        list(resumed)
        resumed.advance(1)
        whole.advance(1)
        assert keys(entry.clip for entry in resumed) == keys(entry.clip for entry in whole)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_built_from_them(corpora, task):
    config = BuilderConfig(hop=64, onset_seconds=(0.0, 0.05))
    batch = TASKS[task].build(make(corpora), 4, 2.0, RATE, generator(), config=config)
    assert batch.target.shape == (4, 2 * RATE)
    assert batch.target.isfinite().all()
    assert all(batch.instructions)


def test_what_is_not_there_is_named(corpora, tmp_path):
    speech, sound = corpora
    with pytest.raises(InputError, match="hold no sound, which the task needs"):
        make([speech]).draw("sound", 1, ClipLimits(max_seconds=1.0), generator())
    assert len(make([speech]).draw("noise", 4, ClipLimits(max_seconds=0.1), generator())) == 4
    with pytest.raises(InputError, match="hold no speech"):
        make([sound]).draw("speech", 1, ClipLimits(max_seconds=1.0), generator())
    with pytest.raises(InputError, match="neither speech nor sound of the split 'heldout'"):
        make([write_corpus(tmp_path, [[sample("a")]], splits=["train"])], split="heldout")
    with pytest.raises(InputError, match="none of the stream of speech"):
        make(corpora).load_state_dict([{"sound": {}}])
