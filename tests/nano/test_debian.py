import gzip
import io
import struct
import zipfile

from unison_audio.nano.debian import READERS


def test_zip_members_are_read_by_name(tmp_path):
    path = tmp_path / "sounds.pk3"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sound/a.wav", b"first")
        archive.writestr("sound/b.wav", b"second")
    assert list(READERS[".pk3"](path, {"sound/b.wav"})) == [("sound/b.wav", b"second")]


def test_openttd_sets_are_read_by_number(tmp_path):
    riff = [b"RIFF" + struct.pack("<I", 4 + n) + b"x" * n for n in (5, 9)]
    bodies = [bytes([4]) + b"name" + data for data in riff]
    offsets = [16, 16 + len(bodies[0])]
    table = b"".join(
        struct.pack("<II", offset | 0x80000000, len(data))
        for offset, data in zip(offsets, riff, strict=True)
    )
    path = tmp_path / "set.cat"
    path.write_bytes(table + bodies[0] + bodies[1])
    assert dict(READERS[".cat"](path, {"0", "1"})) == {"0": riff[0], "1": riff[1]}
    assert [name for name, _ in READERS[".cat"](path, {"1"})] == ["1"]


def scrambled(header):
    swapped = bytearray(header)
    for i in range(0, len(swapped) - 2, 3):
        swapped[i], swapped[i + 2] = swapped[i + 2], swapped[i]
    return bytes(byte ^ 237 for byte in swapped)


def c4group(members):
    header = bytearray(204)
    header[:24] = b"RedWolf Design GrpFolder"
    struct.pack_into("<i", header, 36, len(members))
    entries, bodies = b"", b""
    for name, body, child in members:
        entry = bytearray(316)
        entry[: len(name)] = name.encode()
        struct.pack_into("<5i", entry, 260, 0, child, len(body), 0, len(bodies))
        entries += bytes(entry)
        bodies += body
    return scrambled(header) + entries + bodies


def test_openclonk_groups_are_read_with_the_groups_inside(tmp_path):
    inner = c4group([("Bark.wav", b"woof", 0)])
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        stream.write(c4group([("Door.ogg", b"creak", 0), ("Animals.ocg", inner, 1)]))
    path = tmp_path / "Sound.ocg"
    path.write_bytes(b"\x1e\x8c" + packed.getvalue()[2:])
    wanted = {"Door.ogg", "Animals.ocg/Bark.wav", "not there"}
    found = dict(READERS[".ocg"](path, wanted))
    assert found == {"Door.ogg": b"creak", "Animals.ocg/Bark.wav": b"woof"}
