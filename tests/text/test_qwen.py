import json
import shutil

import pytest
import torch
from qwen_files import LAYERS, WIDTH, reference_states, write_qwen
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from unison_audio.errors import InputError
from unison_audio.text import qwen
from unison_audio.text.states import TextSetup
from unison_audio.text.table import TEXT_ENCODERS
from unison_audio.variants import VARIANTS

SYSTEM = "You describe the sound that is to be heard."
TEXTS = [
    '[Speech] A female voice saying "the red dog runs home"',
    "[Audio] rain",
    "[Audio] a dog barking and a door closing while the rain falls",
]
PICKS = VARIANTS["d24-16k"].layer_picks


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("qwen")


@pytest.fixture(scope="module")
def model(files):
    return write_qwen(files)


def make(files, **changes):
    setup = {"picks": PICKS, "system_prompt": SYSTEM, "files": files, "dtype": torch.float32}
    return TEXT_ENCODERS["qwen2.5-omni-7b"](TextSetup(**setup | changes))


def chat_tokens(files, text, system=SYSTEM):
    """Tokens by hand: all of them, and how many are the system turn's."""
    tokenizer = AutoTokenizer.from_pretrained(files)
    turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    rest = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return tokenizer(turn + rest)["input_ids"], len(tokenizer(turn)["input_ids"])


def difference(ours, theirs):
    """Largest error, in parts of the states' usual size."""
    return float((ours - theirs).abs().max() / theirs.std())


@pytest.mark.parametrize("variant", ["d20-44k", "d24-16k"])
@pytest.mark.parametrize("streamed", [False, True])
def test_states_are_those_of_transformers(model, files, variant, streamed):
    picks = VARIANTS[variant].layer_picks
    assert picks[-1] == LAYERS  # so that the final norm is among what is compared
    encoder = make(files, picks=picks, penultimate=True, streamed=streamed)
    for _ in range(2):  # the second time the weights have been used already
        states = encoder.encode(TEXTS)
        assert states.hidden_states.dtype == torch.float32
        for row, text in enumerate(TEXTS):
            tokens, system = chat_tokens(files, text)
            expected = reference_states(model, tokens)
            count = len(tokens) - system
            assert states.mask[row].tolist() == [i < count for i in range(states.mask.shape[1])]
            for k, pick in enumerate(picks):
                ours = states.hidden_states[row, k, :count]
                assert difference(ours, expected[pick][system:]) < 1e-5
            assert difference(states.penultimate[row, :count], expected[-2][system:]) < 1e-5
            assert not states.hidden_states[row, :, count:].any()


def test_the_absent_shard_is_one_without_the_text_model(model, files):
    index = json.loads((files / "model.safetensors.index.json").read_text())["weight_map"]
    absent = {name for name, shard in index.items() if not (files / shard).exists()}
    assert absent == {"thinker.audio_tower.conv1.weight", "talker.model.norm.weight"}


def test_bfloat16_is_computed_with_weights_in_place(model, files):
    encoder = make(files, dtype=torch.bfloat16, streamed=True)
    states = encoder.encode(TEXTS[:1])
    tokens, system = chat_tokens(files, TEXTS[0])
    exact = reference_states(model, tokens)
    low = reference_states(write_qwen(files / "again").bfloat16(), tokens)
    for k, pick in enumerate(PICKS):
        ours, theirs, best = (
            states.hidden_states[0, k],
            low[pick][system:].float(),
            exact[pick][system:],
        )
        assert (ours - best).norm() < 1.2 * (theirs - best).norm()  # as near as transformers is


def test_only_the_layers_needed_are_computed(model, files):
    assert len(make(files, picks=(1, 3)).layers.modules) == 3
    encoder = make(files, picks=(), penultimate=True)
    assert len(encoder.layers.modules) == LAYERS - 1
    states = encoder.encode(TEXTS[:1])
    tokens, system = chat_tokens(files, TEXTS[0])
    assert states.hidden_states.shape == (1, 0, len(tokens) - system, WIDTH)
    expected = reference_states(model, tokens)[-2][system:]
    assert difference(states.penultimate[0], expected) < 1e-5


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("window", [1, 20, 45, 126])
def test_a_window_gives_the_end_of_the_whole_prompt(model, files, window, streamed):
    encoder = make(files, penultimate=True, streamed=streamed, window=window)
    states = encoder.encode(TEXTS)
    longest = 0
    for row, text in enumerate(TEXTS):
        tokens, _ = chat_tokens(files, text)
        count = min(len(tokens), window)
        longest = max(longest, count)
        expected = reference_states(model, tokens)
        assert int(states.mask[row].sum()) == count
        for k, pick in enumerate(PICKS):
            ours = states.hidden_states[row, k, :count]
            assert difference(ours, expected[pick][-count:]) < 1e-5
        assert difference(states.penultimate[row, :count], expected[-2][-count:]) < 1e-5
        assert not states.hidden_states[row, :, count:].any()
    assert states.mask.shape[1] == longest  # nothing is computed or stored beyond the longest


def test_one_cache_folder_serves_several_windows(model, files, tmp_path):
    plain = make(files, cache=tmp_path).encode(TEXTS[:1])
    for window in (3, 30):
        states = make(files, cache=tmp_path, window=window).encode(TEXTS[:1])
        again = make(files, cache=tmp_path, window=window).encode(TEXTS[:1])
        assert torch.equal(states.hidden_states, again.hidden_states)
        assert states.mask.shape[1] == window
    assert torch.equal(
        plain.hidden_states[:, :, -3:],
        make(files, cache=tmp_path, window=3).encode(TEXTS[:1]).hidden_states,
    )


def test_without_a_system_prompt_there_is_no_system_turn(model, files):
    states = make(files, system_prompt="").encode(TEXTS[:1])
    tokens, system = chat_tokens(files, TEXTS[0], system="")
    assert (system, states.mask.shape[1]) == (0, len(tokens))
    expected = reference_states(model, tokens)
    assert difference(states.hidden_states[0, -1], expected[LAYERS]) < 1e-5


def test_many_texts_go_in_several_packs(model, files, monkeypatch):
    whole = make(files).encode(TEXTS * 2)
    monkeypatch.setattr(qwen, "PACK_TOKENS", 40)
    packed = make(files).encode(TEXTS * 2)
    assert torch.equal(whole.mask, packed.mask)
    assert torch.allclose(whole.hidden_states, packed.hidden_states, atol=1e-4)
    assert torch.equal(packed.hidden_states[:3], packed.hidden_states[3:])


def test_resident_only_where_memory_allows(model, files, monkeypatch):
    needed = sum(weight.numel() for weight in model.layers.parameters()) * 4
    for available, streamed in ((None, True), (needed, True), (2 * needed, False)):
        monkeypatch.setattr(qwen, "available_memory", lambda _, amount=available: amount)
        assert make(files).streamed is streamed


def test_too_long_an_instruction_is_refused(model, files):
    encoder = make(files)
    text = "dog " * 300
    tokens, system = chat_tokens(files, text)
    message = f"{len(tokens)} tokens, {system} of them the system prompt's, where at most 256"
    with pytest.raises(InputError, match=message):
        encoder.encode([text])
    room = "dog" + " dog" * (256 - len(chat_tokens(files, "dog")[0]))
    over, _ = chat_tokens(files, room)
    assert len(over) > 240
    while len(over) > 256:
        room = room[:-1]
        over, _ = chat_tokens(files, room)
    assert encoder.encode([room]).mask.shape[1] == len(over) - system


def keep_tensors(folder, wanted):
    """Takes tensors out of the shards and of their index."""
    for path in folder.glob("*.safetensors"):
        save_file({k: v for k, v in load_file(path).items() if wanted(k)}, path)
    index = folder / "model.safetensors.index.json"
    stored = json.loads(index.read_text())
    stored["weight_map"] = {k: v for k, v in stored["weight_map"].items() if wanted(k)}
    index.write_text(json.dumps(stored))


def test_what_cannot_be_a_model_is_refused(model, files, tmp_path):
    def broken(change):
        folder = tmp_path / change.__name__
        shutil.copytree(files, folder)
        change(folder)
        return folder

    def lacks_shard(folder):
        (folder / "model-00002-of-00003.safetensors").unlink()

    def lacks_index(folder):
        (folder / "model.safetensors.index.json").unlink()

    def other_model(folder):
        (folder / "config.json").write_text('{"model_type": "qwen2"}')

    def other_size(folder):
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace('te_size": 96', 'te_size": 128'))

    def lacks_layer(folder):
        keep_tensors(folder, lambda name: ".layers.5." not in name)

    def lacks_embedding(folder):
        keep_tensors(folder, lambda name: "embed_tokens" not in name)

    def fewer_layers(folder):
        config = (folder / "config.json").read_text()
        text = config.replace('"num_hidden_layers": 28', '"num_hidden_layers": 26')
        (folder / "config.json").write_text(text)

    def pickle_alone(folder):
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        torch.save({"unrelated": torch.zeros(3)}, folder / "pytorch_model.bin")

    def lacks_tokenizer(folder):
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            (folder / name).unlink()

    for change, message in (
        (lacks_shard, "lacks model-00002-of-00003.safetensors"),
        (lacks_index, "index.json cannot be read"),
        (other_model, "'qwen2' instead of 'qwen2_5_omni'"),
        (other_size, "config.json asks for"),
        (lacks_layer, r"has no tensor for layers\.5\."),
        (lacks_embedding, "has no tensor for embed_tokens"),
        (pickle_alone, "index.json cannot be read"),
        (lacks_tokenizer, "no tokenizer"),
    ):
        with pytest.raises(InputError, match=message):
            make(broken(change))
    with pytest.raises(InputError, match=r"does not ask for, layers\.26\."):
        make(broken(fewer_layers), picks=(1, 2))
    with pytest.raises(InputError, match=r"Layers \[29\].*1 to 28"):
        make(files, picks=(1, 29))


def test_kept_states_are_those_computed(model, files, tmp_path, monkeypatch):
    cache = tmp_path / "states"
    encoder = make(files, penultimate=True, cache=cache)
    first = encoder.encode(TEXTS)
    again = make(files, penultimate=True, cache=cache)
    again.layers = None  # so that computing would fail
    second = again.encode([TEXTS[2], TEXTS[0], TEXTS[2]])
    for ours, theirs in (
        (second.hidden_states[1], first.hidden_states[0]),
        (second.hidden_states[2], first.hidden_states[2]),
        (second.penultimate[1], first.penultimate[0]),
    ):
        assert torch.equal(ours[: theirs.shape[0]], theirs[..., : ours.shape[-2], :])
    for change in ({"system_prompt": "You listen."}, {"picks": (1, 2)}, {"penultimate": False}):
        other = make(files, **{"penultimate": True, "cache": cache} | change)
        other.layers = None
        with pytest.raises(TypeError):
            other.encode(TEXTS[:1])


def test_a_damaged_file_is_computed_again(model, files, tmp_path):
    encoder = make(files, cache=tmp_path)
    first = encoder.encode(TEXTS[:1])
    file = tmp_path / f"{encoder._key(encoder.prompt.tokens(TEXTS[0]))}.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        second = encoder.encode(TEXTS[:1])
    assert torch.equal(first.hidden_states, second.hidden_states)
    assert torch.equal(encoder.encode(TEXTS[:1]).hidden_states, first.hidden_states)


def test_only_what_is_needed_is_downloaded(model, files, hub):
    content = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    unneeded = {"model-00003-of-00003.safetensors": b"the talker", "README.md": b"a card"}
    hub.repos["Qwen/Qwen2.5-Omni-3B"] = content | unneeded
    states = TEXT_ENCODERS["qwen2.5-omni-3b"](TextSetup(picks=(1,))).encode(TEXTS[:1])
    assert states.hidden_states.shape[1] == 1
    fetched = {path.rpartition("/")[2] for method, path in hub.asked if method == "GET"}
    assert "model-00002-of-00003.safetensors" in fetched
    assert not fetched & set(unneeded)
    hub.asked.clear()
    again = TEXT_ENCODERS["qwen2.5-omni-3b"](TextSetup(picks=(1,))).encode(TEXTS[:1])
    assert torch.equal(again.hidden_states, states.hidden_states)
    assert not hub.asked  # a complete cache needs no network


def test_a_model_that_cannot_be_downloaded_is_refused(hub):
    with pytest.raises(InputError, match=r"cannot be had.*no repository.*--text-files"):
        TEXT_ENCODERS["qwen2.5-omni-7b"](TextSetup(picks=(1,)))
    hub.repos["Qwen/Qwen2.5-Omni-7B"] = {"config.json": b"{}"}
    with pytest.raises(InputError, match=r"has no model\.safetensors\.index\.json"):
        TEXT_ENCODERS["qwen2.5-omni-7b"](TextSetup(picks=(1,)))
