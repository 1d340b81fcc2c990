"""Long text cut into windows that a variant speaks well: sentences, clauses, pauses, lengths."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

from unison_audio.errors import InputError, UnplacedError
from unison_audio.tasks.clauses import TAG
from unison_audio.tasks.instructions import read_instruction
from unison_audio.tasks.quotes import outside_quotes
from unison_audio.tasks.reference_text import new_text_span
from unison_audio.tasks.voice_words import read_voice
from unison_audio.text.cleaning import clean_text
from unison_audio.variants import LENGTH_MARGIN, SpeakingRate, Variant

MAX_CHARACTERS = 2_000_000
"""About 40 hours of speech; more is taken for a file of another kind."""

PARAGRAPH_PAUSE, SENTENCE_PAUSE, CLAUSE_PAUSE, WORD_PAUSE = 0.8, 0.45, 0.2, 0.05
"""Seconds of silence after each."""

_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")

_SPOKEN = re.compile(r"\w")

_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’」』）)\]]*$")

_CLAUSE_END = re.compile(r"(?<=[,;:，；：、—–])\s*(?=\S)")

_DOUBLE_QUOTES = re.compile(r'["“”„«»「」『』]')

_PART = 4000
"""Characters of a paragraph that the sentence splitter is given at once: it takes the square of
their number in time."""


DEFAULT_RATE = SpeakingRate(english=0.067, chinese=0.22)
"""About 15 English and 4.5 Chinese characters a second, as people read aloud."""


@dataclass(frozen=True, kw_only=True)
class SpeechPace:
    """Speaking rate of a variant, and how it keeps one voice."""

    rate: SpeakingRate
    """Seconds of a character."""
    shortest: float
    """Minimum duration of a window in seconds: training had none shorter."""
    clones: bool
    """Whether the first window becomes the reference of the others. Nano's clones lose half of
    their words, so its windows are sampled again where their voice differs instead."""


SPEECH_PACES: dict[str, SpeechPace] = {
    "nano": SpeechPace(rate=DEFAULT_RATE, shortest=1.92, clones=False),
}
"""Variant -> its pace, but for the speaking rate, which its config.json has."""

DEFAULT_PACE = SpeechPace(rate=DEFAULT_RATE, shortest=1.0, clones=True)
"""Of the others."""


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """A sentence, or a part of one that is too long."""

    text: str
    """Without double quotes, so that it can stand between them in an instruction."""
    sentence: int
    """Number of its sentence, from 0."""
    pause: float
    """Seconds of silence after it."""
    seconds: float
    """Estimated length of its speech."""


@dataclass(frozen=True, kw_only=True)
class TextWindow:
    """The words of one call of the model."""

    index: int
    """Which window, from 0."""
    pieces: tuple[TextPiece, ...]
    """Sentences, or parts of them."""

    @property
    def text(self) -> str:
        """The words to be said."""
        return reduce(join_texts, (piece.text for piece in self.pieces))

    @property
    def seconds(self) -> float:
        """Estimated length of the speech with the pauses inside."""
        return _length(self.pieces)

    @property
    def pause(self) -> float:
        """Seconds of silence after it."""
        return self.pieces[-1].pause


def pace_of(variant: Variant) -> SpeechPace:
    """Speaking rate of a variant, as its config.json has it."""
    pace = SPEECH_PACES.get(variant.name, DEFAULT_PACE)
    return pace if variant.speaking_rate is None else replace(pace, rate=variant.speaking_rate)


def estimate_seconds(text: str, pace: SpeechPace) -> float:
    """Estimate how long a text takes to say, in seconds."""
    return pace.rate.seconds(text)


def cut_text(
    text: str,
    pace: SpeechPace,
    longest: float,
    first: float | None = None,
    *,
    clean: bool = False,
) -> Iterator[TextWindow]:
    """Cut a text into windows.

    Sentences are packed together as long as they fit. A sentence that does not fit is cut into
    clauses, and a clause that does not into words.

    Args:
        text: Paragraphs are separated by line breaks.
        pace: Of the variant.
        longest: Estimated seconds that a window may take.
        first: Estimated seconds of the first window, where it is to be shorter.
        clean: Whether numbers and abbreviations become words.

    Returns:
        The windows, in order, as they are found.

    Raises:
        InputError: The text has no words, or more than `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken at once."
        )
    if not _SPOKEN.search(text):
        raise InputError("The text holds no words; give one that does.")
    first = min(longest, first or longest)
    # Line by line, so that a whole book does not delay the first window.
    lines = (clean_text(line) if clean else line for line in text.splitlines())
    return _pack(_pieces(lines, pace, longest, first), longest, first)


def _pack(pieces: Iterator[TextPiece], longest: float, first: float) -> Iterator[TextWindow]:
    """Pack pieces; a paragraph's end ends the window."""
    index = 0
    window: list[TextPiece] = []
    for piece in pieces:
        if window and _length([*window, piece]) > (longest if index else first):
            yield TextWindow(index=index, pieces=tuple(window))
            index, window = index + 1, []
        window.append(piece)
        if piece.pause == PARAGRAPH_PAUSE:
            yield TextWindow(index=index, pieces=tuple(window))
            index, window = index + 1, []
    if window:
        yield TextWindow(index=index, pieces=tuple(window))


def _pieces(
    lines: Iterator[str], pace: SpeechPace, longest: float, first: float
) -> Iterator[TextPiece]:
    sentence = 0
    for paragraph in lines:
        sentences = (found for found in split_sentences(paragraph) if _SPOKEN.search(found))
        words = next(sentences, None)
        while words is not None:  # one ahead, so that a paragraph need not be read to its end
            following = next(sentences, None)
            end = PARAGRAPH_PAUSE if following is None else SENTENCE_PAUSE
            parts = _fit(words, pace, longest if sentence else first)
            for i, part in enumerate(parts):
                closing = i == len(parts) - 1
                inner = CLAUSE_PAUSE if _CLAUSE_END.search(part + " x") else WORD_PAUSE
                yield TextPiece(
                    text=part,
                    sentence=sentence,
                    pause=end if closing else inner,
                    seconds=estimate_seconds(part, pace),
                )
            words, sentence = following, sentence + 1


def split_sentences(paragraph: str) -> Iterator[str]:
    """The sentences of one paragraph, without double quotes, blanks made single."""
    import pysbd

    clean = " ".join(_DOUBLE_QUOTES.sub(" ", paragraph).split())
    while clean:
        part, clean = _head(clean)
        chinese = len(_CHINESE.findall(part)) > 0.2 * len(part)
        language = "zh" if chinese else "en"
        for found in pysbd.Segmenter(language=language, clean=False).segment(part):
            if found.strip():
                yield found.strip()


def _head(text: str) -> tuple[str, str]:
    """Up to `_PART` characters, ending with a sentence where there is one, and the rest."""
    if len(text) <= _PART:
        return text, ""
    ends = [match.end() for match in re.finditer(r"[.!?]\s|[。！？]|\s", text[:_PART])]
    firm = [match.end() for match in re.finditer(r"[.!?]\s|[。！？]", text[:_PART])]
    end = (firm or ends or [_PART])[-1]
    return text[:end], text[end:].lstrip()


def _fit(sentence: str, pace: SpeechPace, longest: float) -> list[str]:
    """A sentence whole, or its clauses or words packed into parts that fit."""
    if estimate_seconds(sentence, pace) <= longest:
        return [sentence]
    clauses = [clause for clause in _CLAUSE_END.split(sentence) if clause.strip()]
    if len(clauses) == 1:
        return _fit_words(sentence, pace, longest)
    parts: list[str] = []
    for clause in clauses:
        joined = join_texts(parts[-1], clause) if parts else clause
        if parts and estimate_seconds(joined, pace) <= longest:
            parts[-1] = joined
        else:
            parts.append(clause)
    return [piece for part in parts for piece in _fit(part, pace, longest)]


def _fit_words(clause: str, pace: SpeechPace, longest: float) -> list[str]:
    """Words (of Chinese, characters) in parts of about equal length."""
    total = estimate_seconds(clause, pace)
    count = int(total // longest) + 1
    while True:
        parts = _even(clause, pace, total / count)
        if count > len(clause) or all(
            estimate_seconds(part, pace) <= longest or len(part) == 1 for part in parts
        ):
            return parts
        count += 1


def _even(clause: str, pace: SpeechPace, share: float) -> list[str]:
    # A word longer than a window (a web address, say) is cut inside.
    limit = max(1, int(share / pace.rate.english))
    words = re.findall(
        rf"[\u3400-\u9fff\uf900-\ufaff]\W*|[^\s\u3400-\u9fff]{{1,{limit}}}\s*", clause
    )
    parts = [""]
    for word in words:
        if parts[-1] and estimate_seconds(parts[-1] + word, pace) > share * 1.0001:
            parts.append("")
        parts[-1] += word
    return [part.strip() for part in parts if part.strip()]


def join_texts(first: str, second: str) -> str:
    """Join two parts of a text: with a blank, but not after Chinese."""
    if not first:
        return second
    chinese = _CHINESE.match(first[-1]) or first[-1] in "。！？，；：、"
    return f"{first}{'' if chinese else ' '}{second}"


def _length(pieces: tuple[TextPiece, ...] | list[TextPiece]) -> float:
    return sum(piece.seconds for piece in pieces) + sum(piece.pause for piece in pieces[:-1])


def split_instruction(instruction: str) -> tuple[str, str]:
    """Take the words to be said out of an instruction that only speaks.

    Args:
        instruction: With `[Speech]` or `[Speech with voice]`.

    Returns:
        The instruction with `{text}` in the place of the words, and the words, which may be none:
        `[Speech] A male voice` and `[Speech with voice]` are for texts from elsewhere.

    Raises:
        InputError: It asks for something else.
    """
    instruction = instruction.strip()
    tag = TAG.match(instruction)
    rest = instruction[tag.end() :].lstrip() if tag else ""
    outside = " ".join(outside_quotes(rest)[0])
    if tag is None or tag[1].lower() in ("edit", "audio") or TAG.search(outside):
        raise InputError(
            f"The instruction {instruction!r} does not only speak; a long text needs "
            '[Speech] A male voice saying "..." or [Speech with voice] ...'
        )
    head = instruction[: tag.end()].strip()
    if "voice" in tag[1].lower():
        start, end = new_text_span(instruction)
        before, after = instruction[tag.end() : start].lstrip(), instruction[end:]
        return f"{head} {before}{{text}}{after}", instruction[start:end]
    for quote in outside_quotes(rest)[1]:
        return f'{head} {rest[: quote.start]}"{{text}}"{rest[quote.end :]}', quote.text
    who = rest.strip().rstrip(",.:") or "A voice"
    who = re.sub(r"\s+(saying|says)$", "", who)
    try:
        read_voice(who)
    except UnplacedError as error:
        raise InputError(f"The instruction {instruction!r} is not understood: {error}.") from error
    return f'{head} {who} saying "{{text}}"', ""


def is_long(
    variant: Variant,
    instruction: str,
    duration: float | None,
    cloned: bool,
    task: str | None = None,
) -> bool:
    """Whether an instruction speaks more than one window holds, and no duration is asked for."""
    if duration is not None:
        return False
    reading = read_instruction(instruction, False, cloned, task)
    if reading.task not in ("tts", "zero_shot_tts") or reading.length is not None:
        return False
    words = split_instruction(instruction)[1]
    return estimate_seconds(words, pace_of(variant)) > longest_window(variant, cloned)


def longest_window(variant: Variant, cloned: bool) -> float:
    """Estimated seconds of speech that a window may take: what the variant is at its best with."""
    seconds = variant.zero_shot_seconds if cloned else variant.longest_speech
    return seconds / LENGTH_MARGIN
