"""The demo's page: one HTML file that plays and shows every example from its folder."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TITLES: dict[str, tuple[str, str]] = {
    "tts": (
        "Speech",
        "A voice of the given gender says the quoted words.",
    ),
    "zero_shot_tts": (
        "Speech in a given voice",
        "The voice of the reference, which is not in the training data, says the new words.",
    ),
    "t2a": (
        "Sound",
        "One sound event of the named kind.",
    ),
    "t2a_mix": (
        "Several sounds",
        "Both sounds can be heard at once.",
    ),
    "t2as": (
        "Speech with sound",
        "The words stay clear over the sound.",
    ),
    "timed": (
        "Timed events",
        "Each sound begins and ends at the times of the instruction, with silence between.",
    ),
    "edit_add": (
        "Add a sound",
        "The new sound joins the recording, which does not change.",
    ),
    "edit_remove": (
        "Remove a sound",
        "The named sound is gone, and the background stays.",
    ),
    "edit_replace": (
        "Replace a sound",
        "Another sound takes the place of the named one, and the background stays.",
    ),
    "speech_insert": (
        "Insert speech",
        "A voice says the quoted words over the unchanged background.",
    ),
    "speech_delete": (
        "Delete speech",
        "The speech is gone, and the background continues without a gap.",
    ),
    "speech_rewrite": (
        "Rewrite speech",
        "The same voice says the new words at the same place.",
    ),
    "denoise": (
        "Denoise",
        "The noise is gone, and the voice does not change.",
    ),
    "audio_to_speech": (
        "A sound becomes speech",
        "The named sound is gone, a voice says the quoted words, and the background stays.",
    ),
    "speech_to_audio": (
        "Speech becomes a sound",
        "The voice is gone, the named sound is there, and the background stays.",
    ),
}
"""Task -> its title and the expected result."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """A sound on the page, with its picture."""

    what: str
    """"Source", "Reference" or "Output"."""
    file: str
    """Its file, relative to the page."""
    picture: str
    """Its picture, relative to the page."""
    note: str = ""
    """Contents of the sound."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An example on the page."""

    task: str
    """A key of `TITLES`."""
    instruction: str
    """The instruction."""
    tracks: tuple[Track, ...]
    """The inputs, then the output."""
    settings: Mapping[str, str]
    """Name -> value of each setting of this example."""
    credits: Sequence[str] = ()
    """Origin and licence of each input."""


_STYLE = """
:root { color-scheme: light dark; --page: #f6f5f2; --card: #fff; --ink: #1d2126; --soft: #5d6570;
  --line: #e2e0da; --code: #f1efe9; --accent: #a33b20; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1c1f25; --ink: #e8eaed;
  --soft: #a2a9b4; --line: #2e333b; --code: #262a32; --accent: #ff9b7a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 74rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; } h1 { margin: 0; font-size: 2rem; letter-spacing: -0.01em; }
header p { margin: 0.5rem 0 0; color: var(--soft); max-width: 46rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.4rem; margin: 1.25rem 0 0.5rem; }
nav a { color: var(--ink); text-decoration: none; font-size: 0.85rem; padding: 0.15rem 0.65rem;
  border: 1px solid var(--line); border-radius: 1rem; background: var(--card); }
nav a:hover, nav a:focus-visible { border-color: var(--accent); color: var(--accent); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 0.75rem;
  padding: 1.25rem; margin: 1.25rem 0; scroll-margin-top: 1rem; }
h2 { margin: 0; font-size: 1.2rem; }
h2 small { font: 0.8rem ui-monospace, monospace; color: var(--soft); margin-left: 0.5rem; }
section > p { margin: 0.15rem 0 0.8rem; color: var(--soft); }
pre { margin: 0; padding: 0.7rem 0.9rem; background: var(--code); border-radius: 0.5rem;
  border-left: 3px solid var(--accent); white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.92rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.tracks { display: grid; gap: 1.25rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.tracks.single { grid-template-columns: minmax(0, 36rem); }
figure { margin: 0; min-width: 0; display: flex; flex-direction: column; }
figcaption { font-weight: 600; margin-bottom: 0.4rem; min-height: 1.5em; }
figcaption span { font-weight: 400; color: var(--soft); }
audio { width: 100%; height: 2.5rem; margin-top: auto; }
figure img { width: 100%; height: auto; display: block; margin-top: 0.6rem; }
.made { margin: 0.9rem 0 0; font-size: 0.8rem; color: var(--soft); overflow-wrap: anywhere; }
footer { padding-bottom: 3rem; font-size: 0.85rem; color: var(--soft); }
"""


def render_page(entries: Sequence[Entry], settings: Mapping[str, str]) -> str:
    """Write the page.

    Args:
        entries: The examples in their order.
        settings: Name -> value of each setting that all examples share.

    Returns:
        HTML with no reference outside its folder.
    """
    links = "\n".join(
        f'<a href="#{entry.task}">{html.escape(TITLES[entry.task][0])}</a>' for entry in entries
    )
    # Everything is inline or beside the page: browsers open it from the disk, without a server or a
    # network. Texts are escaped, since instructions may come from a user's folder of inputs.
    sections = "\n".join(_section(entry) for entry in entries)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>UNISON: every task, one model</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>Every task, one model</h1>
<p>One flow-matching model speaks, clones voices, generates sounds and edits recordings from plain
instructions. No input below is in the training data. Of several random draws of each task, the page
shows the first that meets nano's targets, or the first of all where none does, and says how many
of them do.</p>
<p>{_settings(settings)}</p>
<nav>
{links}
</nav>
</header>
<main>
{sections}
</main>
<footer>
<p>The pictures are mel spectrograms, all with the same color range.</p>
</footer>
</body>
</html>
"""


def _section(entry: Entry) -> str:
    title, listen = TITLES[entry.task]
    tracks = "\n".join(_track(track) for track in entry.tracks)
    single = " single" if len(entry.tracks) == 1 else ""
    credits = "; ".join(html.escape(credit) for credit in entry.credits)
    made_of = f"<br>Recordings: {credits}" if credits else ""
    return f"""<section id="{entry.task}">
<h2>{html.escape(title)} <small>{entry.task}</small></h2>
<p>{html.escape(listen)}</p>
<pre>{html.escape(entry.instruction)}</pre>
<div class="tracks{single}">
{tracks}
</div>
<p class="made">{_settings(entry.settings)}{made_of}</p>
</section>"""


def _track(track: Track) -> str:
    what = html.escape(track.what)
    note = f" <span>{html.escape(track.note)}</span>" if track.note else ""
    return f"""<figure>
<figcaption>{what}{note}</figcaption>
<audio controls preload="metadata" src="{html.escape(track.file)}"></audio>
<img src="{html.escape(track.picture)}" alt="Mel spectrogram: {what.lower()}" loading="lazy">
</figure>"""


def _settings(settings: Mapping[str, str]) -> str:
    return " · ".join(f"{html.escape(key)} {html.escape(value)}" for key, value in settings.items())
