"""The system prompt is computed once, kept, and changes no state."""

from pathlib import Path

import pytest
import torch
from qwen_files import reference_states, write_qwen
from transformers import Qwen2_5OmniThinkerTextModel

from unison_audio.errors import InputError
from unison_audio.loading import KEEP_PROMPT, LoadOptions, open_frozen
from unison_audio.text.qwen import QwenEncoder
from unison_audio.text.states import TextSetup, TextStates
from unison_audio.variants import VARIANTS

SYSTEM = "You describe the sound that is to be heard."
TEXTS = [
    '[Speech] A female voice saying "the red dog runs home"',
    "[Audio] rain",
    "[Audio] a dog barking and a door closing while the rain falls",
]
PICKS = VARIANTS["d24-16k"].layer_picks


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qwen")


@pytest.fixture(scope="module")
def model(files: Path) -> Qwen2_5OmniThinkerTextModel:
    return write_qwen(files)


def make(files: Path, **changes: object) -> QwenEncoder:
    setup = {
        "picks": PICKS,
        "penultimate": True,
        "system_prompt": SYSTEM,
        "files": files,
        "dtype": torch.float32,
        "streamed": True,
    }
    return QwenEncoder(TextSetup(**setup | changes), "none")


def count_tokens(encoder: QwenEncoder) -> list[int]:
    """Lengths of what is embedded from now on."""
    counts: list[int] = []
    embed = encoder._embed
    encoder._embed = lambda tokens: counts.append(len(tokens)) or embed(tokens)
    return counts


def assert_same(ours: TextStates, theirs: TextStates) -> None:
    assert torch.equal(ours.mask, theirs.mask)
    assert torch.equal(ours.hidden_states, theirs.hidden_states)
    assert torch.equal(ours.penultimate, theirs.penultimate)


def prompt_file(encoder: QwenEncoder) -> Path:
    return encoder.setup.cache / f"{encoder._prompt_key}.safetensors"


@pytest.mark.parametrize(
    ("window", "dtype", "streamed"),
    [(126, torch.float32, True), (0, torch.float32, False), (60, torch.bfloat16, True)],
)
def test_a_kept_prompt_gives_the_same_bits(
    model, files: Path, tmp_path: Path, window: int, dtype: torch.dtype, streamed: bool
) -> None:
    given = {"window": window, "dtype": dtype, "streamed": streamed}
    without = make(files, keep_prompt=False, **given)
    whole, alone = without.encode(TEXTS), without.encode(TEXTS[1:2])
    make(files, cache=tmp_path, **given).encode(TEXTS[:1])
    again = make(files, cache=tmp_path, **given)
    counts = count_tokens(again)
    assert_same(again.encode(TEXTS[1:2]), alone)
    own = len(again.prompt.tokens(TEXTS[1]))
    assert counts == [own]  # an instruction costs only its own tokens
    for path in tmp_path.iterdir():
        if path != prompt_file(again):
            path.unlink()
    assert_same(again.encode(TEXTS), whole)


def test_a_kept_prompt_agrees_with_the_whole_sequence(model, files: Path, tmp_path: Path) -> None:
    make(files, cache=tmp_path, window=126).encode(TEXTS[:1])
    encoder = make(files, cache=tmp_path, window=126)
    states = encoder.encode(TEXTS[1:2])
    tokens = [*encoder.prompt.system_tokens, *encoder.prompt.tokens(TEXTS[1])]
    expected = reference_states(model.double(), tokens)
    model.float()
    for k, pick in enumerate(PICKS):
        error = (states.hidden_states[0, k].double() - expected[pick]).norm()
        assert error < 1e-6 * expected[pick].norm()


def test_a_resident_model_keeps_the_prompt_without_a_cache(model, files: Path) -> None:
    encoder = make(files, streamed=False)
    first = encoder.encode(TEXTS)
    counts = count_tokens(encoder)
    assert_same(encoder.encode(TEXTS), first)
    assert counts == [sum(len(encoder.prompt.tokens(text)) for text in TEXTS)]


def test_several_packs_share_one_prompt(model, files: Path, monkeypatch) -> None:
    monkeypatch.setattr("unison_audio.text.qwen.PACK_TOKENS", 40)
    encoder = make(files)
    counts = count_tokens(encoder)
    encoder.encode(TEXTS * 2)
    own = [len(encoder.prompt.tokens(text)) for text in TEXTS]
    assert sum(counts) == sum(own) + len(encoder.prompt.system_tokens)
    assert len(counts) > 2


def test_a_broken_or_foreign_file_is_made_again(model, files: Path, tmp_path: Path) -> None:
    first = make(files, cache=tmp_path, window=60)
    states = first.encode(TEXTS[:1])
    kept = prompt_file(first)
    whole = kept.read_bytes()
    other = make(files, cache=tmp_path / "other", system_prompt="You listen.", window=60)
    other.encode(TEXTS[:1])
    for content in (whole[:-9], prompt_file(other).read_bytes()):
        kept.write_bytes(content)
        for path in set(tmp_path.glob("*.safetensors")) - {kept}:
            path.unlink()  # so that the states are computed
        with pytest.warns(UserWarning, match="is damaged; it is removed and made anew"):
            again = make(files, cache=tmp_path, window=60).encode(TEXTS[:1])
        assert_same(again, states)
        assert kept.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_failure(model, files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot keep"):
        states = make(files, cache=tmp_path / "file", window=60).encode(TEXTS)
    assert_same(states, make(files, window=60).encode(TEXTS))


def test_the_prompt_depends_on_weights_prompt_and_type(model, files: Path, tmp_path: Path) -> None:
    keys = {make(files, cache=tmp_path)._prompt_key}
    write_qwen(tmp_path / "qwen")
    assert make(tmp_path / "qwen", cache=tmp_path)._prompt_key in keys  # the same weights
    shard = tmp_path / "qwen" / "model-00002-of-00003.safetensors"
    content = bytearray(shard.read_bytes())
    content[-4096:] = bytes(4096)
    shard.write_bytes(content)
    keys.add(make(tmp_path / "qwen", cache=tmp_path)._prompt_key)
    for change in (
        {"system_prompt": "You listen."},
        {"dtype": torch.bfloat16},
        {"picks": (1, 2)},
        {"penultimate": False},
        {"window": 20},
    ):
        keys.add(make(files, cache=tmp_path, **change)._prompt_key)
    assert len(keys) == 7


def test_cached_states_of_an_instruction_serve_every_window(
    model, files: Path, tmp_path: Path
) -> None:
    expected = {window: make(files, window=window).encode(TEXTS) for window in (0, 60, 126)}
    make(files, cache=tmp_path).encode(TEXTS)
    for window in (60, 126):  # the first call computes the prompt alone
        encoder = make(files, cache=tmp_path, window=window)
        counts = count_tokens(encoder)
        assert_same(encoder.encode(TEXTS), expected[window])
        assert counts == [len(encoder.prompt.system_tokens)]
        again = make(files, cache=tmp_path, window=window)
        again.layers = None  # so that computing would fail
        assert_same(again.encode(TEXTS), expected[window])
    assert len(list(tmp_path.glob("*.safetensors"))) == len(TEXTS) + 3  # a prompt a window


def test_a_window_shorter_than_the_text_has_its_own_states(
    model, files: Path, tmp_path: Path
) -> None:
    whole = make(files).encode(TEXTS[:1])
    make(files, cache=tmp_path).encode(TEXTS[:1])
    for _ in range(2):
        short = make(files, cache=tmp_path, window=5).encode(TEXTS[:1])
        assert torch.equal(short.hidden_states, whole.hidden_states[:, :, -5:])
    make(files, cache=tmp_path / "two", window=5).encode(TEXTS[:1])
    assert_same(make(files, cache=tmp_path / "two").encode(TEXTS[:1]), whole)


def test_packed_texts_see_the_prompt_but_not_each_other(model, files: Path) -> None:
    encoder = make(files)
    before = encoder.encode(TEXTS)
    for changed in range(2):
        other = "[Audio] a cat meowing while a bell rings"
        texts = [other if row == changed else text for row, text in enumerate(TEXTS)]
        after = encoder.encode(texts)
        for row in set(range(len(TEXTS))) - {changed}:
            count = int(before.mask[row].sum())
            ours, theirs = (s.hidden_states[row, :, :count] for s in (before, after))
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    elsewhere = make(files, system_prompt="You listen.").encode(TEXTS)
    count = int(before.mask[1].sum())
    assert not torch.allclose(
        elsewhere.hidden_states[1, :, :count], before.hidden_states[1, :, :count], atol=1e-2
    )


def test_the_switch(model, files: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path))
    monkeypatch.setattr("unison_audio.loading._load_codec", lambda *_: None)
    for value, kept in (("0", False), ("1", True), (None, True)):
        monkeypatch.delenv(KEEP_PROMPT, raising=False)
        if value is not None:
            monkeypatch.setenv(KEEP_PROMPT, value)
        _, encoder = open_frozen(VARIANTS["d24-16k"], LoadOptions(text_files=files))
        assert encoder.setup.keep_prompt is kept
    off = make(files, cache=tmp_path, keep_prompt=False)
    for _ in range(2):
        counts = count_tokens(off)
        off.encode([f"[Audio] {len(list(tmp_path.iterdir()))} dogs"])
        assert len(off.prompt.system_tokens) in counts
    assert not prompt_file(off).exists()
    monkeypatch.setenv(KEEP_PROMPT, "no")
    with pytest.raises(InputError, match="UNISON_AUDIO_KEEP_PROMPT is 'no'; use 1 or 0"):
        open_frozen(VARIANTS["d24-16k"], LoadOptions(text_files=files))
