"""The README and the docs: every command is parsed, the quick ones run, and every link resolves."""

import pydoc
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from authority import make_authority

from unison_audio.cli import main as cli

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
LINKED = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "dev").glob("*.md"))]
"""Pages whose links are checked."""
ELSEWHERE = ("full-size.md", "training.md", "finetune.md", "server.md")
"""Pages whose commands a test of their own runs, with models that the others do not need."""
RUN = [ROOT / "README.md", *(page for page in DOCS if page.name not in ELSEWHERE)]
"""Pages whose quick commands and Python examples are run here."""
LASTING = ("data", "train", "evaluate", "demo", "finetune", "serve", "mcp")
LONG = tuple(f"unison-audio {name}" for name in LASTING)
"""Minutes to hours each, with tests of their own: here only their options are parsed."""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page):
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.split(" # ")[0].strip()
            if command:
                yield command


def listed(page):
    """The commands in a page's tables and sentences."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`(unison-audio [^`]+)`", text)


def run(command, capsys):
    words = shlex.split(command)
    assert cli.main(words[1:]) == 0, (command, capsys.readouterr().err)
    if "-o" in words:
        out = Path(words[words.index("-o") + 1])
        assert out.is_dir() or out.stat().st_size > 1000


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_opens_with_the_two_commands():
    first = blocks(ROOT / "README.md", "console")[0]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]
    for target in ("demo", "test", "docs"):
        plan = ["make", "--dry-run", "--always-make", target]
        made = subprocess.run(plan, cwd=ROOT, capture_output=True, text=True, check=True)
        assert ".venv/bin" in made.stdout


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_relative_link_resolves(page):
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, a heading not there"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_command_of_a_page_parses(page):
    for command in (*commands(page), *listed(page)):
        words = shlex.split(command)
        program = words[0]
        if program == "accelerate":
            words = words[words.index("unison-audio") :]
        if words[0] == "unison-audio" and "..." not in words:
            nested = len(words) == 2 or (len(words) == 3 and command not in set(commands(page)))
            if nested:  # the name of a command in a sentence, with no more said
                assert cli.app.parse_commands(words[1:])[1], command
                continue
            cli.app.parse_args(words[1:], exit_on_error=False, print_error=False)
        elif words[0] == "python":  # minutes each: the script is there and knows the options
            script = (ROOT / words[1]).read_text()
            options = [word.strip("-") for word in words[2:] if word.startswith("--")]
            assert all(re.search(option.replace("-", "[-_]"), script) for option in options)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_quick_command_of_a_page_works(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    jobs = [block for block in blocks(page, "json") if '"instruction"' in block]
    for block in jobs:
        Path("JOBS.jsonl").write_text(block)
    for block in blocks(page, "text"):
        Path("chapter.txt").write_text(block)
    if "--sign-cert" in page.read_text():
        make_authority(tmp_path)
        names = {"ec-chain.pem": "chain.pem", "ec.key": "signer.key", "ca.pem": "root.pem"}
        for made, name in names.items():
            Path(made).rename(name)
    for command in commands(page):
        words = shlex.split(command)
        if words[0] == "make":
            subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        elif words[0] != "unison-audio" or command.startswith(LONG):
            continue
        elif "JOBS.jsonl" not in words or jobs:
            run(command, capsys)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_every_python_example_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), {})


def test_the_sounds_of_the_readme_are_what_its_commands_make(tmp_path, monkeypatch, capsys):
    """Each is made again, in the order in which one needs another."""
    monkeypatch.chdir(tmp_path)
    made = {
        Path(line.split()[-1]).name: line for line in listed(ROOT / "README.md") if "-o" in line
    }
    kept = sorted((ROOT / "docs" / "audio").iterdir())
    assert {path.name for path in kept} == set(made)
    assert sum(path.stat().st_size for path in kept) < 300_000
    for name in sorted(made, key=lambda name: "--" in made[name].replace("--duration", "")):
        run(made[name], capsys)
        new, old = (soundfile.read(folder / name)[0] for folder in (tmp_path, kept[0].parent))
        assert np.corrcoef(new, old)[0, 1] > 0.99, name


def test_the_card_lists_what_nano_knows():
    from unison_audio.nano.corpus import catalog

    labels = sorted({row["label"] for row in catalog("sounds")})
    text = (ROOT / "docs" / "nano.md").read_text()
    (sounds,) = (
        [row.split("|")[2].strip() for row in part.splitlines() if row.startswith("| ")][1:]
        for part in re.findall(r"^### Sounds\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)
    )
    assert sorted(sound for row in sounds for sound in row.split(", ")) == labels


def test_the_site_has_every_page_and_documents_names_that_exist():
    site = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS:
        assert f": {page.name}\n" in site, f"{page.name} is not in the navigation of mkdocs.yml"
        for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE):
            documented = pydoc.locate(name)
            assert getattr(documented, "__doc__", None), f"{page.name}: {name} has no docstring"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"`((?:src|tests|benchmarks|examples|dev|docs)/[^`\s]*)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which does not exist"
