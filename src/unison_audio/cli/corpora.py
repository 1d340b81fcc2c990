"""The commands that prepare corpora for training: nano's own, public ones, and any folder."""

from collections.abc import Callable
from pathlib import Path

from cyclopts import App

from unison_audio.cluster import Cluster, require_ray
from unison_audio.errors import InputError
from unison_audio.json_files import read_json

data = App(name="data", help="Prepare a training corpus: shards and an index.")

MOST_SCALE = 100
"""Largest factor of nano's corpus, which has some 10,000 utterances at 1."""

CORPUS_HELP = {
    "wavcaps": "Prepare WavCaps: sounds with captions.",
    "audioset": "Prepare AudioSet: sounds with labels.",
    "vggsound": "Prepare VGGSound: sounds with labels.",
    "audiocaps": "Prepare AudioCaps: sounds with captions.",
    "libritts": "Prepare LibriTTS: English speech.",
    "wenetspeech": "Prepare WenetSpeech: Chinese speech.",
    "emilia-en": "Prepare the English part of Emilia: speech.",
    "emilia-zh": "Prepare the Chinese part of Emilia: speech.",
    "folder": "Prepare your own folder: recordings with a JSONL, CSV or TSV of what they hold.",
}
"""Help of each command but nano's; the names are those of `data.corpora.CORPORA`, which is not
imported here because it is slow to load."""


@data.command(name="nano")
def data_nano(
    *,
    out: Path,
    packages: Path | None = None,
    workers: int = 2,
    ray_address: str | None = None,
    scale: float = 1.0,
) -> None:
    """Prepare nano's corpus from free recordings and synthetic voices.

    Run the same command again to resume an interrupted build.

    Args:
        out: The folder to write to.
        packages: A folder with Debian packages already fetched.
        workers: Number of processes.
        ray_address: Address of a Ray cluster that runs them, which sees the same folders; auto uses
            this machine's, local starts one.
        scale: Factor on the number of utterances, for a small corpus.
    """
    from unison_audio.files import check_folder, make_folder, require_folders
    from unison_audio.nano.corpus_name import require_own_folder

    if not 0 < scale <= MOST_SCALE:
        raise InputError(f"scale is {scale}; it must be above 0 and at most {MOST_SCALE}.")
    if workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1.")
    check_folder(out)
    require_own_folder(out)
    require_folders(packages)
    from unison_audio.nano.corpus import build

    where = workers if ray_address is None else _cluster(ray_address, workers)
    index = build(make_folder(out), packages=packages, workers=where, scale=scale)
    print(f"The corpus is listed in {index}.")


def _cluster(address: str, workers: int | None) -> Cluster:
    require_ray()  # before a folder is made
    return Cluster(address=address, workers=workers)


def _print_left_out(index: Path) -> None:
    """Print what a corpus lacks, so that nothing is lost in silence."""
    found = read_json(index, "prepare the corpus again")
    removed, broken = found.get("removed", {}), found.get("broken_files", 0)
    for reason, count in removed.items():
        print(f"Left out: {count:,} ({reason}).")
    if broken:
        first = (found.get("broken") or [{"file": "", "reason": ""}])[0]
        print(
            f"Left out: {broken:,} that cannot be used, such as {first['file']} "
            f"({first['reason']}); {index.with_name('broken.jsonl')} lists all."
        )


def _command(name: str) -> Callable[..., None]:
    """The command that prepares one public corpus."""

    def prepare(
        *,
        root: Path,
        out: Path,
        workers: int | None = None,
        ray_address: str | None = None,
        limit: int | None = None,
    ) -> None:
        """Prepare a corpus.

        Args:
            root: The folder of the corpus as it was published.
            out: The folder to write to; it must lie outside of the root.
            workers: Number of processes; by default one per core.
            ray_address: Address of a Ray cluster that runs them, which sees the same folders; auto
                uses this machine's, local starts one.
            limit: Stop after this number of clips.
        """
        from unison_audio.cli.progress import progress
        from unison_audio.data.prepare.prepare import ingest

        where = workers if ray_address is None else _cluster(ray_address, workers)
        with progress() as show:
            index = ingest(
                name,
                root,
                out,
                workers=where,
                limit=limit,
                on_progress=lambda n, share: show(f"{name}, {n} clips", round(1000 * share), 1000),
            )
        _print_left_out(index)
        print(f"The corpus is listed in {index}.")

    return prepare


for _name, _help in CORPUS_HELP.items():
    data.command(_command(_name), name=_name, help=_help)
