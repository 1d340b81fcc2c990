import hashlib
import io
from dataclasses import replace

import pytest
import torch
from file_server import serve
from safetensors import safe_open
from tiny_mmaudio import (
    TINY,
    diffusers_modules,
    random_originals,
    vae_layout,
    vocoder_layout,
)

from unison_audio.codecs.mmaudio import CONFIGS
from unison_audio.codecs.mmaudio_weights import (
    ORIGINALS,
    empty_codec,
    import_originals,
    load_mmaudio,
)
from unison_audio.codecs.table import CODECS
from unison_audio.errors import InputError

OLD = ("weight_g", "weight_v")
NEW = ("parametrizations.weight.original0", "parametrizations.weight.original1")


def pickled(value, zipped=True):
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, tiny codecs, and no cache of the hub's."""
    monkeypatch.setenv("UNISON_AUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, config in TINY.items():
        monkeypatch.setitem(CONFIGS, name, config)
    return tmp_path / "cache"


@pytest.fixture
def publish(monkeypatch):
    """Takes originals for the published ones: their checksums, and where they are."""

    def publish(name, vae, vocoder, url="http://127.0.0.1:9"):
        contents = dict(zip((one.name for one in ORIGINALS[name]), (vae, vocoder), strict=True))
        entries = tuple(
            replace(
                one,
                url=f"{url}/{one.name}",
                md5=one.md5 and hashlib.md5(contents[one.name]).hexdigest(),
                sha256=one.sha256 and hashlib.sha256(contents[one.name]).hexdigest(),
            )
            for one in ORIGINALS[name]
        )
        monkeypatch.setitem(ORIGINALS, name, entries)
        return contents

    return publish


def put(folder, contents):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mmaudio-16k", (171_657_218, 112_199_472)),
        ("mmaudio-44k", (305_479_682, 122_152_752)),
    ],
)
@pytest.mark.parametrize("norm", [OLD, NEW], ids=["old", "new"])
def test_the_full_size_originals_fill_every_tensor_once(name, parameters, norm):
    layouts = vae_layout(CONFIGS[name]), vocoder_layout(CONFIGS[name], norm)
    vae, vocoder = (
        {key: torch.empty(shape, device="meta") for key, shape in layout.items()}
        for layout in layouts
    )
    codec = empty_codec(name)
    state = import_originals(codec, vae, vocoder)  # refuses what is missing or left over
    wanted = {key: value.shape for key, value in codec.state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == wanted
    counted = tuple(
        sum(p.numel() for p in part.parameters()) for part in (codec.vae, codec.vocoder)
    )
    bias = int(name == "mmaudio-16k")  # diffusers' last convolution has none
    assert counted == (parameters[0], parameters[1] + bias)


@pytest.mark.parametrize(
    ("name", "norm", "zipped"),
    [("mmaudio-16k", OLD, False), ("mmaudio-16k", NEW, True), ("mmaudio-44k", OLD, True)],
)
def test_originals_are_converted_once(name, norm, zipped, cache, publish, tmp_path, monkeypatch):
    vae, vocoder = random_originals(TINY[name], norm)
    contents = publish(name, pickled(vae, zipped), pickled({"generator": vocoder}, zipped))
    folder = put(tmp_path / "files", contents)
    codec = CODECS[name](tmp_path / "checkpoint", folder)

    theirs_vae, theirs = diffusers_modules(TINY[name], *random_originals(TINY[name], NEW))
    for ours, wanted in ((codec.vae, theirs_vae.vae), (codec.vocoder, theirs)):
        wanted = wanted.state_dict()
        assert set(wanted) == set(ours.state_dict())
        for key, value in ours.state_dict().items():
            torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-6)

    stored = cache / name / f"{name}.safetensors"
    with safe_open(stored, "pt") as file:
        assert set(file.keys()) == set(codec.state_dict())
    assert sorted(path.name for path in folder.iterdir()) == sorted(contents)  # a user's: kept

    monkeypatch.setattr(torch, "load", None)  # no pickle is opened again
    again = load_mmaudio(name)
    latent = torch.randn(1, codec.channels, 9)
    assert torch.equal(again.decode(latent), codec.decode(latent))
    stored.rename(tmp_path / stored.name)
    apart = load_mmaudio(name, tmp_path)  # a folder with the converted file
    assert torch.equal(apart.decode(latent), codec.decode(latent))


def test_originals_are_downloaded_into_the_cache(cache, publish):
    name = "mmaudio-44k"
    vae, vocoder = random_originals(TINY[name])
    progress = []
    with serve({}) as served:
        served.files |= publish(name, pickled(vae), pickled({"generator": vocoder}), served.url)
        load_mmaudio(name, on_progress=lambda done, total: progress.append((done, total)))
        assert len(served.asked) == 2
        assert [done for done, total in progress if done == total] == [
            len(content) for content in served.files.values()
        ]
        load_mmaudio(name)
        assert len(served.asked) == 2
    left = [path.name for path in (cache / name).iterdir() if path.suffix != ".lock"]
    assert left == [f"{name}.safetensors"]


def test_the_hubs_cache_is_used(cache, publish, tmp_path):
    name = "mmaudio-44k"
    vae, vocoder = random_originals(TINY[name])
    contents = publish(name, pickled(vae), pickled({"generator": vocoder}))
    put(cache / name, {"v1-44.pth": contents["v1-44.pth"]})
    repository, commit = ORIGINALS[name][1].hub
    snapshot = tmp_path / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
    put(snapshot, {"bigvgan_generator.pt": contents["bigvgan_generator.pt"]})
    load_mmaudio(name)
    assert (snapshot / "bigvgan_generator.pt").is_file()


def test_offline_the_message_names_files_and_folder(cache, publish):
    publish("mmaudio-16k", b"", b"")
    with pytest.raises(InputError) as raised:
        load_mmaudio("mmaudio-16k")
    message = str(raised.value)
    assert "needs v1-16.pth and best_netG.pt" in message
    assert "http://127.0.0.1:9/v1-16.pth and http://127.0.0.1:9/best_netG.pt" in message
    assert f"put both into {cache / 'mmaudio-16k'}." in message


def test_a_folder_without_the_files(cache, tmp_path):
    put(tmp_path / "files", {"v1-16.pth": b""})
    with pytest.raises(InputError, match=r"files lacks best_netG\.pt; .* or mmaudio-16k\.safet"):
        load_mmaudio("mmaudio-16k", tmp_path / "files")


def test_a_damaged_original_is_refused(cache, publish, tmp_path):
    contents = publish("mmaudio-16k", b"right", b"right too")
    folder = put(tmp_path / "files", {**contents, "v1-16.pth": b"wrong"})
    with pytest.raises(InputError, match=r"v1-16\.pth is damaged or another file: its md5 is"):
        load_mmaudio("mmaudio-16k", folder)


class NotWeights:
    """What a pickle of weights must not hold."""


@pytest.mark.parametrize(
    ("vocoder", "message"),
    [
        (
            pickled({"generator": NotWeights()}),
            r"best_netG.pt cannot be .* more than tensors(?!.*weights_only)",
        ),
        (b"no pickle at all", "best_netG.pt cannot be read"),
        (pickled({"discriminator": {}}), "no weights under 'generator'"),
        (pickled([1, 2]), "best_netG.pt holds a list"),
    ],
    ids=["code", "garbage", "another key", "a list"],
)
def test_a_file_of_something_else(vocoder, message, cache, publish, tmp_path):
    vae, _ = random_originals(TINY["mmaudio-16k"])
    folder = put(tmp_path / "files", publish("mmaudio-16k", pickled(vae), vocoder))
    with pytest.raises(InputError, match=message):
        load_mmaudio("mmaudio-16k", folder)
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize("part", [0, 1], ids=["VAE", "vocoder"])
def test_each_wrong_key_is_named(part, cache):
    codec = empty_codec("mmaudio-16k")
    originals = random_originals(TINY["mmaudio-16k"])
    wrong = originals[part]
    first, second = [key for key, value in wrong.items() if value.ndim == 3][:2]
    del wrong[first]
    wrong["extra"] = torch.zeros(1)
    wrong[second] = wrong[second][..., None]
    with pytest.raises(InputError) as raised:
        import_originals(codec, *originals)
    message = str(raised.value)
    assert f"missing: {first}" in message
    assert "unknown: extra" in message
    assert f"misshapen: {second} {tuple(wrong[second].shape)} (should be" in message


def test_a_damaged_converted_file(cache):
    put(cache / "mmaudio-16k", {"mmaudio-16k.safetensors": b"no weights"})
    with pytest.raises(InputError, match=r"safetensors is damaged .*; delete it, and the next run"):
        load_mmaudio("mmaudio-16k")
