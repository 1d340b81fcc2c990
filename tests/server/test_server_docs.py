"""The server's page: its examples run, and its tables agree with the code."""

import dataclasses
import re
import subprocess
from pathlib import Path

import httpx2
import pytest
from server_process import RunningServer, read_sound

from unison_audio.server.api_errors import TYPES
from unison_audio.server.limits import Limits

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_examples_run(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("bash"):
        script = block.replace("http://127.0.0.1:8000", server.url)
        subprocess.run(["bash", "-euc", script], check=True, cwd=tmp_path)
    for block in blocks("python"):
        exec(compile(block.replace("http://127.0.0.1:8000", server.url), "server.md", "exec"), {})
    for name in ("hello.mp3", "dog.wav", "rain.wav", "speech.wav"):
        samples, rate = read_sound(Path(name).read_bytes())
        assert len(samples) > 0.5 * rate


def test_every_route_is_listed(client: httpx2.Client) -> None:
    listed = set(re.findall(r"^\| `(GET|POST|DELETE) (\S+)` \|", PAGE, re.MULTILINE))
    paths = client.get("/openapi.json").json()["paths"]
    assert listed == {
        (method.upper(), path) for path, operations in paths.items() for method in operations
    }


def test_every_limit_is_listed_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `--(max-[\w-]+|deadline-seconds)` \|.*\| ([\d,]+) \|", PAGE, re.M))
    defaults = {
        field.name.replace("_", "-"): f"{field.default:,g}"
        if isinstance(field.default, float)
        else f"{field.default}"
        for field in dataclasses.fields(Limits)
    }
    assert {name: value.replace(",", "") for name, value in rows.items()} == defaults


def test_every_status_and_metric_is_listed(client: httpx2.Client) -> None:
    statuses = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert statuses == set(TYPES) - {405, 415}
    text = client.get("/metrics").text
    for metric in re.findall(r"^\| `(unison_audio_\w+)` \|", PAGE, re.MULTILINE):
        assert f"# TYPE {metric}" in text or f"\n{metric}" in text
