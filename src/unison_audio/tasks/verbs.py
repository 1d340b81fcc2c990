"""Reads what the words of an edit wish for, in English: verbs with the things that they concern."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from unison_audio.errors import UnplacedError
from unison_audio.tasks.objects import is_said
from unison_audio.tasks.quotes import shorten

Action = Literal["add", "remove", "replace", "change", "clean", "reduce", "other"]
"""What a verb does; "other" is one that no task was trained on."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One verb of an edit with what it concerns."""

    action: Action
    """What is to be done."""
    words: str
    """The wish as it is written, with a bare pair of quotes for each text."""
    old: str = ""
    """What is there and is to go or to change."""
    new: str = ""
    """What is to come."""

    @property
    def texts(self) -> int:
        """Number of quoted texts."""
        return self.words.count('""')


# Other words than these take any object; these are nouns and adjectives too ("a drop of water"),
# and are verbs only before an article or the like.
_DOUBTFUL = (
    r"(?:drop|cut|strip|silence|mute|lay|put|change|turn|trade|clean|restore|edit|play|pan|loop|fade|"
    r"move|slow|speed|pitch|boost|lower|raise|leave|let|have|trim|separate|reverse|double|repeat|"
    r"reduce|make|say|speak|balance|filter|cover|transform|stretch|shorten|time|level|shift|mix)"
)

_DETERMINER = (
    r"(?:the|a|an|it|its|this|that|these|those|all|any|some|my|his|her|their|everything|him|them|out|"
    r"down|up|off|away|in|what|only|\"\")"
)

_VERBS: tuple[tuple[Action, str], ...] = (
    (
        "add",
        r"(?:add(?:ing)?|mix in|insert(?:ing)?|overlay|put in|put|include|including|bring in|"
        r"blend in|lay|introduce)",
    ),
    (
        "remove",
        r"(?:remove|removing|eliminate|eliminating|get rid of|getting rid of|take out|take away|"
        r"delete|deleting|erase|erasing|cut out|cut|drop|strip out|strip|mute|filter out|silence|"
        r"clear|exclude)",
    ),
    ("replace", r"(?:replace|replacing|swap|exchange|substitute|trade)"),
    (
        "change",
        r"(?:change|changing|turn|convert|transform|alter|rewrite|edit|revise|modify|make|let|have|"
        r"rephrase)",
    ),
    ("clean", r"(?:denoise|denoising|de-noise|clean up|clean|cleaning|enhance|restore|improve)"),
    ("reduce", r"(?:suppress|reduce|reducing|lessen|lower)"),
    (
        "other",
        r"(?:keep|leave|isolate|extract|separate|boost|raise|amplify|normalize|normalise|louder|"
        r"quieter|slow|speed|play|pan|fade|trim|shorten|lengthen|extend|stretch|pitch|loop|repeat|"
        r"move|reverse|adjust|increase|decrease|equalize|equalise|compress|split|transcribe|"
        r"translate|double|shift|crossfade|undo|do not|don't|don’t|never|say|speak|sing|read|tell|"
        r"generate|create|record|save|export|stop|start|preserve|retain)",
    ),
)

_ANY_VERB = "|".join(pattern for _, pattern in _VERBS)

# A verb needs something after it, and "drop of water" is none.
_VERB_HERE = (
    rf"(?:(?!{_DOUBTFUL}\b)(?:{_ANY_VERB})(?=\s+(?!of\b)\S|\W*$)"
    rf"|(?:{_ANY_VERB})(?=\s+{_DETERMINER}(?!\w)))"
)

_SEPARATOR = re.compile(
    r"(?:[,;.!&]|\b(?:and|then|but|while|plus|also|before|by|after that|as well as)\b)\s?"
    r"(?:(?:[,;]|and|then|but|also|please|now|just|can you|could you|you can|you should|"
    r"instead)(?:\b|(?<=\W))\s?)"
    rf"{{0,3}}(?={_VERB_HERE})",
    re.IGNORECASE,
)

_PLEASE = re.compile(
    r"(?:please|now|then|and|also|just|first|can you|could you|would you|will you|"
    r"i(?: want|['’]d like| would like)(?: you)? to|let['’]?s|\W)*\s*",
    re.IGNORECASE,
)

_ONE_VERB = tuple(
    (action, re.compile(rf"(?:{pattern})(?![\w-])", re.IGNORECASE)) for action, pattern in _VERBS
)

_FOR = re.compile(r"\s(?:for|with|by)\s", re.IGNORECASE)

_WITH = re.compile(r"\s(?:with|by|for|into|to)\s", re.IGNORECASE)

_INTO = re.compile(
    r"\s(?:into|to say|to|with|by|for|as|so that|say|says|saying)(?=\s)", re.IGNORECASE
)

_EXCEPT = re.compile(
    r"\b(?:except(?:ing)?(?: for)?|apart from|aside from|other than|besides|excluding|save for|"
    r"without|but no|(?<=everything )but|(?<=all )but|(?<=sounds )but|(?<=anything )but)\b.*",
    re.IGNORECASE,
)

_PARTLY = re.compile(
    r"\b(?:slightly|partly|partially|a bit|a little|half of|some of|most of|by half|"
    r"by \d{1,6}(?:\.\d{1,6})?\s?(?:db|%|percent)?)(?=\W|$)",
    re.IGNORECASE,
)


def read_english(words: str) -> list[Wish]:
    """Read an edit in English.

    Args:
        words: The clause's words, blanks made single, each quoted text a bare pair of quotes.

    Returns:
        The wishes, in order. One whose verb is unknown has the action "other".

    Raises:
        UnplacedError: A part of them has no place in any edit.
    """
    start = _PLEASE.match(words)
    body = words[start.end() :] if start else words
    wishes: list[Wish] = []
    begin = 0
    for cut in [*_SEPARATOR.finditer(body), None]:
        part = body[begin : cut.start() if cut else len(body)].strip()
        if part:
            wishes.append(_wish(part))
        begin = cut.end() if cut else begin
    return wishes


def check_whole(phrase: str) -> None:
    """Refuse words that leave something out of a removal, or ask for a part of one.

    Raises:
        UnplacedError: There are such words.
    """
    left_out = _EXCEPT.search(phrase) or re.search(r"除了.*", phrase)
    if left_out:
        cure = "name what is to go instead"
        if re.search(r"speech|voice|talking|vocals|人声|说话|语音", left_out[0], re.IGNORECASE):
            cure = "write [Edit][Speech] Denoise the recording to keep only the speech"
        raise UnplacedError(
            f'"{shorten(left_out[0])}" is an exception, which no task knows; {cure}'
        )
    partly = _PARTLY.search(phrase)
    if partly:
        raise UnplacedError(
            f'"{partly[0]}" asks for a part of an edit, and edits are whole; leave it out'
        )


def _wish(part: str) -> Wish:
    for action, pattern in _ONE_VERB:
        verb = pattern.match(part)
        if verb is None:
            continue
        rest = part[verb.end() :].strip()
        if action in ("add", "remove", "clean", "reduce"):
            sides = {"new": rest} if action == "add" else {"old": rest}
            return Wish(action=action, words=part, **sides)
        if action == "replace":
            return _replace(part, verb[0].lower(), rest)
        if action == "change":
            old, new = _cut(rest, _INTO, is_said)
            return Wish(action="change", words=part, old=old, new=new)
        break
    return Wish(action="other", words=part)


def _replace(part: str, verb: str, rest: str) -> Wish:
    swaps = verb != "replace" and verb != "replacing"
    old, new = _cut(rest, _FOR if swaps and " for " in rest else _WITH)
    if not new and rest.endswith('""'):
        old, new = rest[:-2], '""'
    if verb == "substitute" and " for " in rest:  # "substitute the new for the old"
        old, new = new, old
    return Wish(action="replace", words=part, old=old, new=new)


def _cut(
    text: str, pattern: re.Pattern[str], fits: Callable[[str], bool] | None = None
) -> tuple[str, str]:
    """A text before and after a connector: after the first one whose left side fits."""
    cuts = list(pattern.finditer(f"{text} "))
    if pattern is _FOR:  # "swap cutting with a blade for rain"
        cuts.sort(key=lambda cut: cut[0].strip().lower() != "for")
    if not cuts:
        return text.strip(), ""
    # The left sides of later connectors grow, so only a few are tried.
    fitting = (cut for cut in cuts[:4] if fits is None or fits(text[: cut.start()]))
    cut = next(fitting, cuts[0])
    return text[: cut.start()].strip(), text[cut.end() :].strip()
