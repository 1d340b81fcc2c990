"""The tools of `mcp`, by the mcp package's own client over standard input and output."""

import asyncio
import base64
import io
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from mcp import Client, StdioServerParameters

from unison_audio.cli import main as cli


@asynccontextmanager
async def connected(folder: Path, *flags: str) -> AsyncIterator[Client]:
    arguments = ["-m", "unison_audio.cli.main", "mcp", "-o", str(folder), "--steps", "4"]
    server = StdioServerParameters(
        command=sys.executable,
        args=[*arguments, "--num-candidates", "1", *flags],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        },
    )
    async with Client(server) as client:
        yield client


def talk(folder: Path, run: Callable[[Client], Awaitable[Any]], *flags: str) -> Any:
    async def main() -> Any:
        async with connected(folder, *flags) as client:
            return await run(client)

    return asyncio.run(asyncio.wait_for(main(), 120))


def text_of(result: Any) -> str:
    return str(result.content[0].text)


def tone(path: Path, seconds: float = 2.0, rate: int = 16_000) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    samples = np.round(3000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return samples


def test_the_tools_of_one_session(tmp_path: Path) -> None:
    folder, outside = tmp_path / "sounds", tmp_path / "secret.wav"
    tone(outside)
    steps: list[tuple[float, float | None]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        steps.append((done, total))

    async def run(client: Client) -> dict[str, Any]:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        found: dict[str, Any] = {"tools": listed}

        async def call(name: str, tool: str, **arguments: Any) -> None:
            found[name] = await client.call_tool(tool, arguments, progress_callback=on_progress)

        await call("tasks", "list_tasks")
        await call("model", "describe_model")
        await call("bark", "generate", instruction="[Audio] a dog barking", duration=1.5, seed=3)
        await call("again", "generate", instruction="[Audio] a dog barking", duration=1.5, seed=3)
        await call("flac", "generate", instruction="[Audio] rain", duration=1, file_name="r.flac")
        tone(folder / "tone.wav")
        edit = {"instruction": "[Edit][Audio] Add rain", "regions": ["0.5-1.5"]}
        await call("edit", "edit", recording="tone.wav", file_name="wet.wav", **edit)
        await call("taken", "edit", recording="tone.wav", file_name="wet.wav", **edit)
        await call("itself", "edit", recording="tone.wav", file_name="tone.wav", **edit)
        await call("escape", "generate", instruction="[Audio] rain", file_name="../a.wav")
        await call("absolute", "generate", instruction="[Audio] rain", file_name="/tmp/a.wav")
        (folder / "link.wav").symlink_to(outside)
        for name in ("../secret.wav", str(outside), "link.wav", "missing.wav"):
            await call(f"read {name}", "edit", recording=name, **edit)
        await call("wrong", "generate", instruction="[Nonsense] rain")
        await call("unknown", "generate", instruction="[Audio] a purple trombone", duration=1)
        text = 'A male voice saying "' + "Good morning. We see the sun. " * 6 + '"'
        await call("long", "generate", instruction=f"[Speech] {text}")
        return found

    found = talk(folder, run, "--attach-mb", "0.1")
    assert set(found["tools"]) == {"generate", "edit", "list_tasks", "describe_model"}
    schema = found["tools"]["generate"].input_schema
    assert schema["required"] == ["instruction"]
    assert "context" not in schema["properties"]
    assert "zero_shot_tts" in text_of(found["tasks"])
    assert "barking" in text_of(found["model"])

    first = found["bark"]
    assert not first.is_error
    assert text_of(first) == f"{folder / 'sound-0001.wav'}: t2a, 1.50 s, seed 3"
    assert first.content[1].mime_type == "audio/wav"
    data = base64.b64decode(first.content[1].data)
    assert data == (folder / "sound-0001.wav").read_bytes()
    assert len(soundfile.read(io.BytesIO(data))[0]) == 24_000
    assert data == base64.b64decode(found["again"].content[1].data)
    assert (folder / "sound-0002.wav").is_file()
    assert found["flac"].content[1].mime_type == "audio/flac"
    assert steps
    assert all(total is not None and done <= total for done, total in steps)

    before, rate = soundfile.read(folder / "tone.wav", dtype="int16")
    after, _ = soundfile.read(folder / "wet.wav", dtype="int16")
    assert np.array_equal(before[: rate // 4], after[: rate // 4])
    assert np.array_equal(before[-rate // 4 :], after[-rate // 4 :])
    assert not np.array_equal(before, after)

    refusals = {
        "taken": "already",
        "itself": "already",
        "escape": "leads out",
        "absolute": "leads out",
        "read ../secret.wav": "no recording",
        f"read {outside}": "no recording",
        "read link.wav": "no recording",
        "read missing.wav": "no recording",
        "wrong": "Nonsense",
    }
    for name, said in refusals.items():
        assert found[name].is_error, name
        assert said in text_of(found[name]), text_of(found[name])
    assert not Path("/tmp/a.wav").exists()
    assert "Note: " in text_of(found["unknown"])
    assert "trombone" in text_of(found["unknown"])
    assert not found["long"].is_error, text_of(found["long"])
    assert "not attached" in text_of(found["long"])
    assert len(found["long"].content) == 1


def test_other_folders_are_read_where_they_are_named(tmp_path: Path) -> None:
    other = tmp_path / "recordings"
    other.mkdir()
    tone(other / "tone.wav")

    async def run(client: Client) -> Any:
        arguments = {"recording": "tone.wav", "instruction": "[Edit][Audio] Add rain"}
        return await client.call_tool("edit", arguments)

    result = talk(tmp_path / "new", run, "--recordings", str(other), "--attach-mb", "0")
    assert not result.is_error, text_of(result)
    assert len(result.content) == 1
    assert (tmp_path / "new" / "sound-0001.wav").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--attach-mb", "-1"), "0 or more"),
        (("--recordings", "/no/folder"), "no folder /no/folder"),
        (("--variant", "nothing"), "nothing"),
    ],
)
def test_bad_flags_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    assert cli.main(["mcp", "-o", str(tmp_path / "out"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
