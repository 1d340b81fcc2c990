"""Reads what the words of an edit wish for, in Chinese, which puts objects before verbs too."""

import re

from unison_audio.tasks.verbs import Action, Wish

_PLEASE = re.compile(
    r"(?:请|麻烦你?|帮我|帮忙|你?能不能|可以|可不可以|我想要?|我要|现在|首先|先|然后|接着|再|并且|并|同时|也|还|又|"
    r"\W)*"
)

_ADD = r"(?:添加上?|加入|加上|加进去?|增加|插入|混入|叠加上?|放入|补上|加)"

_REMOVE = (
    r"(?:过滤掉|去除掉?|删除掉?|移除掉?|消除掉?|清除掉?|剔除|去掉|删掉|删去|移走|除去|除掉|拿掉|"
    r"抹掉|静音|去)"
)

_SWAP = r"(?:替换成|替换为|更换成|更换为|换成|换为|变成|变为|改成|改为|修改成|修改为|改写成|改写为)"

_SWAP_VERB = r"(?:替换掉?|代替|取代|换掉|替代)"

_CHANGE = r"(?:替换|更换|修改|更改|改写|改变|换|改|变)"

_CLEAN = r"(?:降噪|去噪|除噪|消噪|清理|净化|增强|修复)"

_REDUCE_VERBS = "降低|减少|减弱|抑制"

_OTHER_VERBS = (
    "不要|别|不用|无需|勿|不|保留|只留|留下|只要|提取|分离|放大|缩小|调高|调低|加快|减慢|加速|减速|重复|循环|"
    "移动|反转|剪切|剪掉|裁剪|翻译|提高|增大"
)

_STRONG = (
    r"(?:添加|加入|加上|加进|增加|插入|混入|叠加|过滤掉|去除|删除|移除|消除|清除|剔除|去掉|删掉|删去|移走|"
    rf"除去|除掉|拿掉|抹掉|静音|降噪|去噪|除噪|消噪|{_OTHER_VERBS}|{_REDUCE_VERBS})"
)

_NEXT = re.compile(
    r"(?:[,，;；。.、\s]|并且|并|然后|接着|再|同时|而且|也|还|又|但是?|以及|和){1,6}"
    rf"(?=(?:请|把|将|用(?!\")|给|对|让|使|叫)|{_STRONG}|{_CLEAN})"
)

_OBJECT = r"(?:把|将)(?P<old>.*?)(?:都|全部|全都|给|全)?"

# The first pattern that fits the whole wish decides.
_PATTERNS: tuple[tuple[Action, str], ...] = (
    ("other", rf"(?:{_OTHER_VERBS}).*"),
    ("replace", rf"{_OBJECT}{_SWAP}(?P<new>.+)"),
    ("replace", rf"用(?P<new>.+?){_SWAP_VERB}(?P<old>.+)"),
    ("replace", rf"(?:{_CHANGE})(?P<old>.+?)(?:成|为)(?P<new>.+)"),
    ("change", r"(?:让|使|叫)(?P<old>.*?)(?:改?说|讲|念)(?:成|出|：|:)?\s*(?P<new>.+)"),
    ("change", rf'(?P<old>[^"]*?)(?:{_SWAP}|{_CHANGE})(?:成|为)?\s*(?P<new>"".*)'),
    ("remove", rf"{_OBJECT}{_REMOVE}(?:了|吧)?"),
    ("add", rf"(?:把|将)(?P<new>.+?){_ADD}(?:到|进|在|去|录音|音频|里|中|吧|这段|声音|\s)*"),
    (
        "add",
        r"(?:给|在|往|为|向|对)(?:这段|这个)?(?:录音|音频|声音|背景|里面|里|中|\s)*"
        rf"{_ADD}(?P<new>.+)",
    ),
    ("add", rf"{_ADD}(?P<new>.+)"),
    ("clean", rf"(?:给|对|为|把|将)?(?P<old>[^\"]*?){_CLEAN}(?P<more>[^\"]*)"),
    ("reduce", rf"(?:把|将)?(?P<old>.*?)(?:{_REDUCE_VERBS})(?P<more>.*)"),
    ("remove", rf"{_REMOVE}(?P<old>.+)"),
)

_FORMS = tuple((action, re.compile(pattern, re.DOTALL)) for action, pattern in _PATTERNS)

_END = " \t\r\n,.，。；;、！!吧了"


def read_chinese(words: str) -> list[Wish]:
    """Read an edit in Chinese.

    Args:
        words: The clause's words, blanks made single, each quoted text a bare pair of quotes.

    Returns:
        The wishes, in order; one whose verb is unknown has the action "other".
    """
    wishes: list[Wish] = []
    begin = 0
    for cut in [*_NEXT.finditer(words), None]:
        part = words[begin : cut.start() if cut else len(words)]
        wishes += [_wish(piece) for piece in _run_on(part)]
        begin = cut.end() if cut else begin
    return wishes


def _run_on(part: str) -> list[str]:
    """Two wishes without anything between them: "去掉雨声加上鸟叫"."""
    please = _PLEASE.match(part)
    body = part[please.end() if please else 0 :].strip(_END)
    if not body:
        return []
    if body[0] in "把将用让使叫给对":
        verb = re.match(rf"(?:把|将)[^\"]*?{_REMOVE}(?={_ADD})", body)
        cut = verb.end() if verb else len(body)
    else:
        later = re.compile(_STRONG).search(body, 3)
        cut = (
            later.start()
            if later and re.match(rf"{_ADD}|{_REMOVE}|{_OTHER_VERBS}", body)
            else len(body)
        )
    return [piece.strip(_END) for piece in (body[:cut], body[cut:]) if piece.strip(_END)]


def _wish(part: str) -> Wish:
    for action, pattern in _FORMS:
        found = pattern.fullmatch(part)
        if found:
            sides = {k: v.strip(_END) for k, v in found.groupdict().items()}
            more = sides.pop("more", "")
            if "old" in sides and more:
                sides["old"] = f"{sides['old']}{more}"
            return Wish(action=action, words=part, **sides)
    return Wish(action="other", words=part)
