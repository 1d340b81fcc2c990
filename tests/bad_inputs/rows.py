"""The table: words of a command line that must be refused, and a part of what is said."""

from dataclasses import dataclass

from odd_files import configs, weights

TTS = '[Speech] A male voice saying "red dog"'
RAIN = "[Audio] rain"
DELETE = "[Edit][Speech] Remove the speech"
CLONE = "[Speech with voice] red dog"
DIGITS = "9" * 400
LONG = "n" * 260


@dataclass(frozen=True, kw_only=True)
class Row:
    """One refused command line."""

    words: tuple[str, ...]
    says: str
    """A part of the sentence on stderr, in any case; several joined by |."""

    def __str__(self) -> str:
        return " ".join(word[:24] for word in self.words)[:90].encode("ascii", "replace").decode()


def row(*words: str, says: str) -> Row:
    return Row(words=words, says=says)


WHOLE = ("1.5", "1e3", "nan", "many", "", DIGITS, "0x10", "1_0")
FINITE = ("nan", "inf", "-inf", "1e999", "x", "", "1,5")

OUT = ("-o", "out.wav")


def numbers() -> list[Row]:
    """Numbers that are none, at every option that takes one."""
    rows = []
    train = ("--corpus", "c", "--run", "r")
    whole = [
        (("generate", RAIN, *OUT), ("--steps", "--seed", "--num-candidates", "--bit-rate")),
        (("finetune", "x.jsonl", "--run", "r"), ("--rank", "--steps", "--items")),
        (("train", "nano-codec", *train), ("--steps",)),
        (("train", "nano", *train, "--codec", "k"), ("--steps", "--workers")),
        (("train", "distill", *train), ("--updates",)),
        (("data", "folder", "--root", "r", "--out", "o"), ("--limit", "--workers")),
        (("evaluate", "nano", "--corpus", "c", "--out", "o"), ("--seed", "--items")),
        (("plan", "--variant", "nano"), ("--gpus", "--batch")),
    ]
    for words, options in whole:
        values = WHOLE if words[0] == "generate" else WHOLE[:2]
        rows += [row(*words, f"{name}={value}", says=name) for name in options for value in values]
    finite = [
        (
            ("generate", RAIN, *OUT),
            ("--duration", "--guidance-scale", "--temperature", "--loudness"),
        ),
        (("finetune", "x.jsonl", "--run", "r"), ("--learning-rate", "--own-share")),
        (("train", "distill", *train), ("--learning-rate",)),
        (("data", "nano", "--out", "o"), ("--scale",)),
        (("plan", "--variant", "nano"), ("--seconds", "--throughput")),
    ]
    for words, options in finite:
        values = FINITE if words[0] == "generate" else FINITE[:2]
        rows += [row(*words, f"{name}={value}", says=name) for name in options for value in values]
    return rows


def ranges() -> list[Row]:
    """Numbers and names out of their ranges."""
    generate = [
        ("steps", "0"), ("steps", "1001"), ("steps", "-3"), ("steps", "1" + "0" * 30),
        ("seed", "-1"), ("seed", str(1 << 63)),
        ("num-candidates", "0"), ("num-candidates", "65"),
        ("duration", "0"), ("duration", "-1"), ("duration", "1e-9"), ("duration", "1e9"),
        ("guidance-scale", "-1"), ("guidance-scale", "101"), ("guidance-rescale", "2"),
        ("temperature", "2.5"), ("temperature", "-0.1"),
        ("solver", "none"), ("solver", ""), ("preset", "slow"), ("dtype", "float8"),
        ("device", "meta"), ("device", "gpu"), ("device", "cuda:99"), ("device", ""),
        ("device", "ipu"), ("device", "hpu"),
        ("task", "none"), ("task", "edit_add"), ("variant", "nothing"), ("variant", "a_file"),
        ("variant", ""), ("variant", LONG), ("variant", "/"), ("variant", "x\0y"),
        ("text-file", "nothing.txt"), ("subtitles", "x.doc"), ("format", "doc"),
        ("bit-rate", "-1"), ("bit-depth", "12"), ("loudness", "0"), ("loudness", "-4.99"),
        ("loudness", "-80"), ("loudness", "16"), ("payload", "-1"), ("payload", "65536"),
        ("payload", "1.5"), ("payload", "x"),
    ]  # fmt: skip
    says = {
        "guidance-scale": "guidance scale",
        "guidance-rescale": "guidance rescale",
        "num-candidates": "num_candidates",
        "task": "task|instruction",
        "variant": "folder|checkpoint|repository|variant|hub",
        "text-file": "empty",
        "subtitles": "srt",
        "bit-rate": "bit_rate|bit rate",
        "bit-depth": "bit_depth|bit-depth|bit depth",
    }
    rows = [
        row("generate", RAIN, *OUT, f"--{name}={value}", says=says.get(name, name))
        for name, value in generate
    ]
    rows += [
        row("generate", RAIN, *OUT, "--guidance-interval", low, high, says="guidance")
        for low, high in (("0.5", "0.2"), ("nan", "1"), ("0", "2"), ("-1", "1"), ("x", "y"))
    ]
    rows += [
        row("generate", RAIN, *OUT, "--payload=1", "--watermark", says="leave one of them out"),
        row("generate", RAIN, "-o", "-", "--payload=1", says="stream cannot carry a payload"),
        row("generate", RAIN, *OUT, "--steps=1000", "--num-candidates=64", says="64,000"),
        row("finetune", "x.jsonl", "--run=r", "--rank=100000", says="rank"),
        row("finetune", "x.jsonl", "--run=r", "--rank=0", says="rank"),
        row("finetune", "x.jsonl", "--run=r", "--steps=0", says="steps"),
        row("finetune", "x.jsonl", "--run=r", "--steps=1" + "0" * 20, says="steps"),
        row("finetune", "x.jsonl", "--run=r", "--items=0", says="items"),
        row("finetune", "x.jsonl", "--run=r", "--items=1000000", says="items"),
        row("finetune", "x.jsonl", "--run=r", "--learning-rate=-1", says="learning_rate"),
        row("finetune", "x.jsonl", "--run=r", "--learning-rate=5", says="learning_rate"),
        row("finetune", "x.jsonl", "--run=r", "--own-share=7", says="share"),
        row("finetune", "x.jsonl", "--run=r", "--method=none", says="method"),
        row("finetune", "x.jsonl", "--run=r", "--strategy=none", says="strategy"),
        row("finetune", "x.jsonl", "--run=r", "--dtype=int8", says="int8"),
        row("train", "nano", "--corpus=c", "--run=r", "--codec=k", "--workers=-1", says="workers"),
        row("train", "nano", "--corpus=c", "--run=r", "--codec=k", "--steps=0", says="steps"),
        row("train", "nano", "--corpus=c", "--run=r", "--codec=k", "--dtype=int8", says="int8"),
        row("train", "nano-codec", "--corpus=c", "--run=r", "--steps=0", says="steps"),
        row("train", "distill", "--corpus=c", "--run=r", "--steps=0", says="steps"),
        row("train", "distill", "--corpus=c", "--run=r", "--updates=0", says="updates"),
        row("train", "distill", "--corpus=c", "--run=r", "--substeps=0", says="substeps"),
        row("train", "distill", "--corpus=c", "--run=r", "--workers=-1", says="workers"),
        row("train", "distill", "--corpus=c", "--run=r", "--steps=100000", says="steps"),
        row("train", "backbone", "--variant=none", "--corpora=c", "--run=r", says="none"),
        row("train", "backbone", "--variant=d24-16k", "--corpora=c", "--run=r", "--items=0",
            says="items"),
        row("train", "backbone", "--variant=d24-16k", "--corpora=c", "--run=r", "--recipe=none",
            says="recipe"),
        row("train", "backbone", "--variant=d24-16k", "--corpora=c", "--run=r", "--workers=-1",
            says="workers"),
        row("train", "ablations", "--out=o", says="corpus"),
        row("train", "ablations", "--out=o", "--steps=0", says="steps"),
        row("train", "ablations", "--out=o", "--recipe=none", says="recipe"),
        row("train", "ablations", "--out=o", "--recipe=base", says="corpora"),
        row("train", "ablations", "--out=o", "--corpus=c", "--codec=k", "--batches=1",
            says="batches|c/index"),
        row("data", "nano", "--out=o", "--scale=0", says="scale"),
        row("data", "nano", "--out=o", "--scale=1000000", says="scale"),
        row("data", "nano", "--out=o", "--workers=0", says="workers"),
        row("data", "folder", "--root=.", "--out=../o", "--limit=0", says="limit"),
        row("data", "folder", "--root=.", "--out=../o", "--workers=-2", says="workers"),
        row("data", "folder", "--root=nothing", "--out=../o", says="nothing"),
        row("data", "folder", "--root=a_file", "--out=../o", says="a_file"),
        row("data", "folder", "--root=.", "--out=o", says="lies in"),
        row("data", "wavcaps", "--root=corpus-list", "--out=a_file", says="a_file|folder"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--items=0", says="items"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--sets=none", says="none"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--systems=none", says="none"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--tasks=none", says="none"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--batch=0", says="batch"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--workers=0", says="workers"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--tables=none", says="tables"),
        row("evaluate", "nano", "--corpus=c", "--out=o", "--seed=-1", says="seed|c/index"),
        row("evaluate", "nano", "--corpus=nothing", "--out=o", says="nothing"),
        row("evaluate", "nano", "--corpus=corpus-list", "--out=o", says="corpus-list"),
        row("evaluate", "paper", "--data=nothing", "--out=o", "--variant=nano", says="nothing"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--counts=x",
            says="counts"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--counts=x=3",
            says="x"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--counts=timed=1.5",
            says="timed"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--stages=none",
            says="none"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--metrics=none",
            says="none"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--sets=none",
            says="none"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nano", "--bootstrap=0",
            says="bootstrap"),
        row("evaluate", "paper", "--data=.", "--out=o", "--variant=nothing", says="nothing"),
        row("quantize", "nothing", "--output=q", says="nothing"),
        row("quantize", says="CHECKPOINT"),
        row("quantize", "nano", "--output=a_file", says="a_file"),
        row("mcp", says="output"),
        row("mcp", "--output=m", "--variant=nothing", says="nothing"),
        row("mcp", "--output=m", "--attach-mb=-1", says="attach-mb"),
        row("mcp", "--output=m", "--recordings=nothing", says="nothing"),
        row("plan", "--variant=none", says="none"),
        row("plan", "--variant=nano", "--gpus=0", says="gpus"),
        row("plan", "--variant=nano", "--batch=-1", says="batch"),
        row("plan", "--variant=nano", "--seconds=0", says="seconds"),
        row("plan", "--variant=nano", "--throughput=-1", says="throughput"),
        row("plan", "--variant=nano", "--steps=0", says="steps"),
        row("plan", "--variant=nano", "--gpus=1" + "0" * 30, says="gpus"),
        *(row("plan", "--variant=nano", f"--{number}", says="1,000,000,000")
          for number in ("gpus=nan", "batch=1e3", "steps=1.5", "accumulate=x", "seconds=inf",
                         "throughput=nan", "throughput=")),
    ]  # fmt: skip
    return rows


def words() -> list[Row]:
    """Commands, options and texts that are none."""
    return [
        row("generatee", says="generate"),
        row("--nothing", says="nothing"),
        row("generate", says="requires|required|argument"),
        row("generate", RAIN, says="add -o FILE, such as -o rain.wav"),
        row("generate", RAIN, "more", *OUT, says="more"),
        row("generate", RAIN, *OUT, "--colour=red", says="colour"),
        row("generate", RAIN, *OUT, "--steps", says="steps"),
        row("generate", RAIN, *OUT, "--seed=1e30", says="whole number"),
        row("generate", "", *OUT, says="instruction"),
        row("generate", "rain", *OUT, says="write [Audio] rain for a sound"),
        row("generate", "[Adio] rain", *OUT, says='"[Adio]" is no tag; did you mean [Audio]?'),
        row("generate", "[Audio] \udc80rain", *OUT, says="half of a character"),
        row("generate", "[Audio] rain\0", *OUT, says="NUL"),
        row("generate", DELETE, *OUT, says="source"),
        row("generate", RAIN, *OUT, "--source=good.wav", says="source|takes"),
        row("generate", CLONE, *OUT, "--reference=good.wav", says="words of the reference"),
        row("generate", CLONE, *OUT, "--reference=good.wav", "--reference-text=", says="words"),
        row("generate", CLONE, *OUT, "--reference=good.wav", "--reference-text=\udc80",
            says="half of a character|words of the reference"),
        row("generate", RAIN, *OUT, "--reference-text=x", says="reference"),
        row("generate", RAIN, *OUT, "--extract", says="source"),
        row("generate", RAIN, *OUT, "--raw", says="raw"),
        row("generate", RAIN, "-o", "-", "--loudness=-16", says="known only at its end"),
        row("generate", RAIN, *OUT, "--region=1-2", says="source"),
        row("generate", RAIN, *OUT, "--subtitles=is_a_folder.txt", says="srt|folder"),
        row("tasks", "extra", says="extra"),
        row("tasks", "--variant=nothing", says="nothing"),
        row("variants", "nothing", says="nothing"),
        row("variants", "nano", "more", says="more"),
        row("train", "nothing", says="nothing"),
        row("train", "nano-codec", says="corpus"),
        row("data", "nothing", says="nothing"),
        row("serve", "--nothing", says="nothing"),
        row("serve", "--port=1.5", says="port"),
        row("inspect", "gone.wav", says="gone.wav"),
        row("inspect", "text.wav", says="text.wav"),
        row("data", "folder", says="root|out"),
        row("evaluate", "nothing", says="nothing"),
        row("download", "--variant=nothing", says="nothing"),
        row("export", "nothing", "-o", "e", says="nothing"),
        row("export", "nano", "-o", "e", "--format=none", says="none"),
        row("demo", "--variant=nothing", "-o", "d", says="nothing"),
        row("demo", "--variant=config-list", "-o", "d", says="config-list"),
        row("import-release", "nothing", "--variant=none", "-o", "i", says="none"),
        row("import-release", "nothing", "--variant=d24-16k", "-o", "i", says="nothing"),
        row("import-release", "a_file", "--variant=d24-16k", "-o", "i", says="a_file"),
        row("import-release", "x", "--variant=d24-16k", "-o", "i", "--dtype=int8", says="int8"),
        row("import-release", "x", "--variant=d24-16k", "-o", "i", "--seconds=-1", says="length"),
        row("import-release", "x", "--variant=d24-16k", "-o", "i", "--seconds=inf",
            says="seconds"),
        row("import-release", "x", "--variant=d24-16k", "-o", "i",
            "--system-prompt-file=nothing.txt", says="empty"),
        row("import-release", "x", "--variant=d24-16k", "-o", "i",
            "--system-prompt-file=latin.txt", says="latin.txt"),
        row("import-release", "x", "--variant=d24-16k", "-o", "i",
            "--system-prompt-file=is_a_folder.txt", says="is_a_folder"),
    ]  # fmt: skip


def files() -> list[Row]:
    """Files that are missing, damaged, of another kind, or under impossible names."""
    sounds = (
        "missing.wav", "empty.wav", "text.wav", "page.wav", "folder.wav", "none.wav", "silent.wav",
        "nan.wav", "huge.wav", "antiphase.wav", "cut.wav", "header.wav", "loop.wav", "claims.flac",
        "short.flac", f"{LONG}.wav", "x\0.wav", "a_file/x.wav", ".", "",
    )  # fmt: skip
    rows = []
    for name in sounds:
        says = {"": "source|reference", ".": "file", "x\0.wav": "NUL"}.get(name, name[:100])
        rows += [
            row("generate", DELETE, *OUT, f"--source={name}", says=says),
            row("generate", CLONE, *OUT, "--reference-text=go", f"--reference={name}", says=says),
        ]
    outputs = {
        "x.txt": "suffix",
        "x": "suffix",
        ".": "folder",
        "folder.wav": "folder",
        f"{LONG}.wav": "bytes",
        f"{'n' * 245}.wav": "bytes",
        "a_file/x.wav": "folder a_file",
        "x\0.wav": "NUL",
        "": "output|path",
        "good.wav/x.wav": "folder",
    }
    rows += [row("generate", RAIN, "-o", name, says=says) for name, says in outputs.items()]
    # A refusal makes no folder either.
    rows += [
        row("generate", "rain", "-o", "new/x.wav", says="tag"),
        row("generate", RAIN, "-o", "new/er/x.wav", "--steps=0", says="steps"),
        row("generate", RAIN, "-o", "new/x.wav", "--variant=nothing", says="nothing"),
        row("generate", RAIN, "-o", "new/x.wav", "--subtitles=new/x.srt", says="subtitles"),
        row("generate", TTS, "-o", "new/x.wav", "--subtitles=a_file/x.srt", says="folder a_file"),
        row("generate", DELETE, "-o", "new/x.wav", "--source=missing.wav", says="missing.wav"),
        row("generate", DELETE, "-o", "new/x.wav", "--source=silent.wav", says="silent.wav"),
        row("generate", DELETE, "-o", "new/x.wav", "--source=nan.wav", says="nan.wav"),
        row("generate", DELETE, "-o", "new/../good.wav", "--source=good.wav", says="lost"),
        row("generate", DELETE, "-o", "new/../../x.wav", "--source=text.wav", says="text.wav"),
        row("generate", "[Speech] A male voice", *OUT, "--text-file=book.json",
            "--subtitles=new/../book.json", says="lost"),
        row("batch", "a_file", "-o", "new/out", says="not JSON"),
        row("data", "folder", "--root=table-columns", "--out=new/shards", says="columns"),
        row("train", "distill", "nothing", "--corpus=c", "--run=new/r", says="nothing"),
        row("demo", "-o", "a_file/demo", says="folder a_file"),
        row("quantize", "nano", "--output=a_file/q", says="folder a_file"),
        row("batch", "good.jsonl", "-o", "a_file/b", says="folder a_file"),
        row("finetune", "x.jsonl", "--run=a_file/r", says="folder a_file"),
        row("train", "nano", "--corpus=c", "--run=a_file/r", "--codec=k", says="folder a_file"),
        row("train", "nano-codec", "--corpus=c", "--run=a_file/r", says="folder a_file"),
        row("train", "distill", "--corpus=c", "--run=a_file/r", says="folder a_file"),
        row("train", "backbone", "--variant=d24-16k", "--corpora=c", "--run=a_file/r",
            says="folder a_file"),
        row("evaluate", "nano", "--corpus=c", "--out=a_file/e", says="folder a_file"),
        row("evaluate", "paper", "--data=.", "--out=a_file/e", says="folder a_file"),
        row("data", "nano", "--out=a_file/d", says="folder a_file"),
        row("data", "folder", "--root=table-columns", "--out=a_file/d", says="a_file/d"),
        row("import-release", "x", "--variant=d24-16k", "-o", "a_file/i", says="folder a_file"),
        row("mcp", "--output=a_file/m", says="a_file/m"),
    ]  # fmt: skip
    rows += [
        row("generate", "[Speech] A male voice", *OUT, f"--text-file={name}", says=says)
        for name, says in {
            "nothing.txt": "empty",
            "blank.txt": "empty",
            "latin.txt": "UTF-8",
            "binary.txt": "UTF-8",
            "is_a_folder.txt": "is_a_folder",
            "gone.txt": "gone.txt",
            f"{LONG}.txt": "bytes",
        }.items()
    ]
    rows += [
        row("generate", DELETE, *OUT, "--source=good.wav", f"--region={text}", says="region|time")
        for text in (
            "0.9-0.1",
            "-1-0.5",
            "0.5-0.5",
            "a-b",
            "0.1-99",
            "",
            "0.1",
            "nan-1",
            "0.1-0.12",
        )
    ]
    rows += [
        row("generate", DELETE, *OUT, "--source=long.wav", "--duration=7", says="duration"),
        row("generate", DELETE, *OUT, "--source=good.wav", "--duration=0.2", says="duration"),
        row("generate", DELETE, "-o", "good.wav", "--source=good.wav", says="another name"),
    ]
    rows += [
        row("generate", RAIN, *OUT, f"--variant=config-{name}", says=f"config-{name}|is not known")
        for name in (*configs(), "folder", "none")
    ]
    rows += [
        row("generate", RAIN, *OUT, f"--variant=weights-{name}", says=f"weights-{name}")
        for name in weights()
    ]
    corpora = (
        "list", "empty", "format", "claims", "digits", "half", "negative", "seconds", "outside",
        "number", "missing", "deep", "latin", "noshard", "folder",
    )  # fmt: skip
    counts = dict.fromkeys(("claims", "half", "negative", "seconds"), "where whole clips and at")
    rows += [
        row("train", "nano-codec", f"--corpus=corpus-{name}", "--run=r",
            says=counts.get(name, f"corpus-{name}"))
        for name in corpora
    ]  # fmt: skip
    rows += [
        row("finetune", name, "--run=r", says=says)
        for name, says in {
            "gone.jsonl": "no file gone.jsonl",
            "nothing.txt": "no clips",
            "blank.txt": "no clips",
            "latin.txt": "UTF-8",
            "is_a_folder.txt": "is_a_folder",
            f"{LONG}.jsonl": "bytes",
            "a_file": "not JSON",
        }.items()
    ]
    rows += [
        row("batch", name, "-o", "out", says=says)
        for name, says in {
            "gone.jsonl": "no file gone.jsonl",
            "nothing.txt": "no jobs",
            "latin.txt": "UTF-8",
            "is_a_folder.txt": "is_a_folder",
            f"{LONG}.jsonl": "bytes",
            "a_file": "not JSON",
        }.items()
    ]
    return rows


ROWS = [*numbers(), *ranges(), *words(), *files()]
