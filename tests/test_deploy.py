"""Dockerfile, compose.yaml and the systemd unit: what can be checked without running them."""

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from unison_audio.cli.main import app
from unison_audio.cli.serve import DRAIN_SECONDS, serve

ROOT = Path(__file__).parents[1]
INSTRUCTIONS = {
    *("FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME"),
    *("EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


def dockerfile() -> list[tuple[str, str]]:
    """Each instruction with its arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    pairs = [line.split(maxsplit=1) for line in lines]
    return [(name, rest.strip()) for name, rest in pairs]


def values(name: str) -> list[str]:
    return [rest for instruction, rest in dockerfile() if instruction == name]


def as_list(arguments: str) -> list[str]:
    """An exec form, which is JSON and so also YAML."""
    found = yaml.safe_load(arguments)
    assert isinstance(found, list)
    return [str(one) for one in found]


def bound(words: list[str]) -> dict[str, Any]:
    """The arguments of a command line that `unison-audio` takes."""
    command, arguments, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command is serve
    return dict(arguments.arguments)


def test_the_image_is_pinned_and_runs_as_nobody_in_particular() -> None:
    assert {name for name, _ in dockerfile()} == INSTRUCTIONS
    images = [rest.split()[0] for rest in values("FROM")]
    assert len(images) == 2
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", image) for image in images)
    assert len(set(images)) == 1, "the venv of one Python does not run in another"
    (user,) = values("USER")
    assert int(user) > 0
    names = [name for name, _ in dockerfile()]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    for rest in values("RUN"):
        assert not re.search(r"\bsudo\b|curl|wget|apt-get (?!update|install)|chmod 777", rest)
    text = (ROOT / "Dockerfile").read_text() + (ROOT / "compose.yaml").read_text()
    assert not re.search(r"(?i)(password|secret|token)\s*[:=]|sk-\w{8}", text)


def test_the_image_has_all_that_the_package_is_built_from() -> None:
    copied = {
        source
        for rest in values("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in ("src", "pyproject.toml", project["readme"], *project["license-files"]):
        assert any(Path(needed).is_relative_to(source) for source in copied), needed
    let_in = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert let_in == copied
    extras = re.search(r"'\.\[([\w,]+)\]'", " ".join(values("RUN")))
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    version = values("FROM")[0].split(":")[1].split("-")[0]
    assert tuple(map(int, version.split("."))) >= (3, 11)


def test_the_image_serves_and_says_whether_it_can() -> None:
    (entry,), (command,), (health,) = values("ENTRYPOINT"), values("CMD"), values("HEALTHCHECK")
    assert as_list(entry) == ["unison-audio"]
    access = bound(as_list(command))["access"]
    assert (access.host, access.port) == ("0.0.0.0", 8000)
    ports = {int(port) for port in values("EXPOSE")[0].split()}
    assert ports == {access.port, access.wyoming}
    (volume,) = values("VOLUME")
    assert access.voices.is_relative_to(volume)
    probe = as_list(health[health.index("[") :])
    assert probe[0] == "python"
    compile(probe[2], "HEALTHCHECK", "exec")
    assert f":{access.port}/readyz" in probe[2]


def test_compose_serves_this_machine_alone_without_rights() -> None:
    parsed = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert set(parsed["services"]) == {"unison-audio", "unison-audio-cuda"}
    for service in parsed["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert not service.get("privileged")
        assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_SECONDS
        assert [volume.split(":")[0] for volume in service["volumes"]] == list(parsed["volumes"])
    assert "profiles" not in parsed["services"]["unison-audio"]
    cuda = parsed["services"]["unison-audio-cuda"]
    arguments = bound(cuda["command"])
    assert arguments["machine"].device == "cuda"
    assert arguments["access"] == bound(as_list(values("CMD")[0]))["access"]
    args = {rest.split("=")[0] for rest in values("ARG")}
    assert set(cuda["build"]["args"]) <= args
    variables = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text()))
    assert variables == {"UNISON_AUDIO_API_KEYS"}


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(ROOT / "deploy" / "unison-audio.service")
    return parser


def test_the_unit_starts_a_server_without_rights() -> None:
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "unison-audio"
    access = bound(words)["access"]
    assert access.host == "127.0.0.1"
    assert access.voices.is_relative_to(Path("/var/lib", service["StateDirectory"]))
    assert int(service["TimeoutStopSec"]) > DRAIN_SECONDS
    for name in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp"):
        assert service[name] == "yes"
    assert service["EnvironmentFile"].startswith("-")
    # PyTorch makes code at run time.
    assert "MemoryDenyWriteExecute" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "unison-audio.service").read_text()
    copy = tmp_path / "unison-audio.service"
    copy.write_text(text.replace("/opt/unison-audio/bin/unison-audio", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if copy.name in line]
    assert not complaints
