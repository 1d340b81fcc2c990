"""The studio without a browser: its files, the policy for browsers, and the listing routes."""

import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from server_process import error_of, wait_until

from unison_audio.server.studio_routes import studio_files
from unison_audio.tasks.table import TASKS

ROOT = Path(__file__).parents[2]

STATIC = ROOT / "src" / "unison_audio" / "server" / "static"

SCRIPTS = {name: text.decode() for name, text in studio_files().items() if name.endswith(".js")}

OWN = {name: text for name, text in SCRIPTS.items() if not name.startswith("vendor/")}

PAGE = studio_files()["index.html"].decode()

IDS = re.findall(r'\bid="([^"]+)"', PAGE)


def policy(answer: httpx2.Response) -> dict[str, list[str]]:
    parts = answer.headers["content-security-policy"].split(";")
    return {name: values for name, *values in (part.split() for part in parts)}


def test_the_page_has_a_strict_policy(client: httpx2.Client) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    rules = policy(answer)
    assert rules["default-src"] == ["'none'"]
    assert rules["script-src"] == ["'self'"]
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & {v for r in rules.values() for v in r}
    (nonce,) = re.findall(r"'nonce-([\w-]{20,})'", " ".join(rules["style-src"]))
    assert f'name="csp-nonce" content="{nonce}"' in answer.text
    assert nonce not in client.get("/").text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", answer.text)


@pytest.mark.parametrize("name", sorted(studio_files()))
def test_every_file_is_served(client: httpx2.Client, name: str) -> None:
    answer = client.get(f"/studio/{name}")
    if name == "index.html":
        error_of(answer, 404)
        return
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    kind = kinds.get(Path(name).suffix, "text/plain")
    assert answer.headers["content-type"].split(";")[0] == kind
    assert answer.content == (STATIC / name).read_bytes()
    assert policy(answer)["default-src"] == ["'none'"]


def test_no_other_path_is_served(client: httpx2.Client) -> None:
    for path in ("../app.py", "%2e%2e/app.py", "vendor", "", "/etc/passwd"):
        assert client.get(f"/studio/{path}").status_code == 404


def test_nothing_comes_from_another_host() -> None:
    for name, content in studio_files().items():
        if Path(name).suffix not in (".js", ".css", ".html", ".svg"):
            continue
        hosts = set(re.findall(r"(?:https?:)?//([\w-]+(?:\.[\w-]+)+)", content.decode()))
        # The names of XML's dialects are addresses, which nobody opens.
        assert hosts <= {"www.w3.org"}, name


def test_every_import_and_address_is_a_file() -> None:
    for name, text in SCRIPTS.items():
        for path in re.findall(r'^import .*?"([^"]+)";$', text, re.MULTILINE):
            assert path.startswith("./")
            assert str(Path(name).parent / path) in studio_files(), (name, path)
    for path in re.findall(r'(?:src|href)="/studio/([^"]+)"', PAGE):
        assert path in studio_files()


def test_every_id_that_is_used_exists_once() -> None:
    assert len(IDS) == len(set(IDS))
    used = {one for text in OWN.values() for one in re.findall(r'byId\("([^"]+)"\)', text)}
    assert len(used) > 60
    named = re.findall(r'(?:for|aria-labelledby|aria-describedby|list)="([^"]+)"', PAGE)
    assert (used | set(named)) <= set(IDS)
    for text in OWN.values():
        for start in re.findall(r"byId\(`([\w-]+)\$\{", text):
            assert [one for one in IDS if one.startswith(start)], start
    settings = re.search(r"const SETTINGS = \{(.*?)\}", OWN["compose_panel.js"])
    assert settings
    assert set(re.findall(r'"(\w+)"', settings[1])) <= set(IDS)


def test_every_task_has_a_title() -> None:
    titles = re.search(r"const TITLES = \{(.*?)^\};", OWN["task_form.js"], re.DOTALL | re.MULTILINE)
    assert titles
    assert set(re.findall(r"^  (\w+): \[", titles[1], re.MULTILINE)) == set(TASKS)


def test_the_license_of_the_vendored_library_is_there() -> None:
    vendored = STATIC / "vendor" / "wavesurfer"
    license_text = (vendored / "LICENSE").read_text()
    assert license_text.startswith("BSD 3-Clause License")
    assert "katspaugh" in license_text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert str((vendored / "LICENSE").relative_to(ROOT)) in project["project"]["license-files"]
    packed = project["tool"]["setuptools"]["package-data"]["unison_audio"]
    package = ROOT / "src" / "unison_audio"
    found = {path for pattern in packed for path in package.glob(f"{pattern}/*")} | {
        path for pattern in packed for path in package.glob(pattern)
    }
    assert {STATIC / name for name in studio_files()} <= found


def test_tasks_are_listed_with_the_domain(client: httpx2.Client) -> None:
    listed = client.get("/v1/audio/tasks").json()
    assert [task["id"] for task in listed["data"]] == list(TASKS)
    for task in listed["data"]:
        assert task["needs"] == list(TASKS[task["id"]].needs)
        assert len(task["templates"]) == len(TASKS[task["id"]].templates)
    assert listed["variant"]["id"] == "nano"
    assert (listed["domain"]["any_word"], listed["domain"]["words"]) == (True, [])
    assert (listed["variant"]["default_seconds"], listed["variant"]["speech_seconds"]) == (
        2.56,
        3.84,
    )
    assert "a dog barking" in listed["domain"]["sounds"]


@pytest.mark.parametrize(
    ("body", "task", "words", "sounds"),
    [
        ({"instruction": '[Speech] A male voice saying "good morning"'}, "tts", [], []),
        ({"instruction": '[Speech] A male voice saying "good zoë"'}, "tts", ["zoë"], []),
        ({"instruction": "[Audio] a violin"}, "t2a", [], ["a violin"]),
        (
            {"instruction": "[Edit][Audio] Add a violin", "source": True},
            "edit_add",
            [],
            ["a violin"],
        ),
        ({"instruction": "rain", "task": "t2a"}, "t2a", [], []),
        ({"instruction": "[Speech with voice] hello", "reference": True}, "zero_shot_tts", [], []),
    ],
)
def test_an_instruction_is_checked(
    client: httpx2.Client, body: dict, task: str, words: list[str], sounds: list[str]
) -> None:
    found = client.post("/v1/audio/check", json=body).json()
    assert (found["task"], found["error"]) == (task, None)
    assert found["words"] == words
    assert found["sounds"] == sounds
    assert bool(found["message"]) == bool(words or sounds)


def test_an_instruction_that_cannot_be_used_is_explained(client: httpx2.Client) -> None:
    found = client.post("/v1/audio/check", json={"instruction": "[Edit][Audio] Add rain"}).json()
    assert found["task"] is None
    assert "[Edit][Audio] Add rain" in found["error"]


def test_the_queue_tells_where_a_request_stands(client: httpx2.Client) -> None:
    def queue(name: str = "") -> dict:
        return dict(client.get("/v1/audio/queue", params={"request_id": name}).json())

    wait_until(lambda: queue()["active_requests"] == 0)
    assert (queue("nobody")["ready"], queue("nobody")["ahead"]) == (True, None)
    assert queue()["max_requests"] == 6
    slow = {"input": "rain", "audio_length": 4, "steps": 200}
    with ThreadPoolExecutor(1) as pool:
        sent = {"json": slow, "headers": {"X-Request-Id": "long"}}
        answer = pool.submit(client.post, "/v1/audio/generate", **sent)
        wait_until(lambda: queue("long")["ahead"] == 0)
        assert answer.result().headers["x-request-id"] == "long"
    wait_until(lambda: queue("long")["ahead"] is None)
