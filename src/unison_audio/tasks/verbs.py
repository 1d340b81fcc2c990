"""The verbs of edits, in English and Chinese: what an instruction's clause does."""

import re

_PLEASE = r"(?:please|now|then|and|also|can you|could you|i want (?:you )?to|\W)*\s*"

_ADD = r"(?:add|mix in|insert|overlay|put in|put|include|bring in|blend in|lay)"

_REMOVE = (
    r"(?:remove|eliminate|get rid of|take out|take away|delete|erase|cut out|cut|drop|strip|mute|"
    r"filter out|silence)"
)

_SWAP = r"(?:replace|swap|exchange|substitute|change|turn|trade)"

_CHANGE = r"(?:change|alter|replace|rewrite|swap|exchange|substitute|edit|revise|modify|turn|make)"

_CLEAN = r"(?:denoise|de-noise|clean|enhance|suppress|reduce|restore)"

_NOISE = r"\b(?:noise|noises|hiss|hum|static)\b"

# Chinese has no word boundaries and puts the object before the verb after 把 or 将.
_ZH_PLEASE = r"(?:请|帮我|麻烦|现在|然后|再|并|\W)*"

_ZH_OBJECT = r"(?:把|将)\s*[^\"]*?\S\s*(?:都|全部|给)?"

_ZH_ADD = r"(?:添加|加入|加上|加进|增加|插入|混入|叠加|放入|加)"

_ZH_REMOVE = r"(?:去掉|去除|删除|删掉|删去|移除|移走|消除|除去|除掉|拿掉|清除|剔除|过滤掉|静音)"

_ZH_SWAP = r"(?:替换成|替换为|换成|换为|变成|变为|改成|改为)"

_ZH_CHANGE = r"(?:替换|换|改|修改|更改|改写|变)(?:成|为)?"

_ZH_CLEAN = r"(?:降噪|去噪|除噪|消噪|清理|净化|增强)"

_ZH_NOISE = r"(?:噪声|噪音|杂音|杂讯|嘶声)"

_ZH_AFTER = r"[^\"]*(?:并且|并|然后|再|接着|,|，)\s*"

# Tags of a clause -> (pattern of its text, its action). The first match wins, so longer patterns
# stand first: "remove the bell and add rain" replaces. Quoted text is reduced to a bare pair of
# quotes before matching.
_ENGLISH: dict[str, tuple[tuple[str, str], ...]] = {
    "edit audio": (
        (rf"{_REMOVE}\s+\S.*\b(?:and|then)\s+{_ADD}\s+\S", "replace audio"),
        (rf"{_SWAP}\s+\S.*\b(?:with|for|by|to|into)\s+\S", "replace audio"),
        (rf"{_ADD}\s+\S", "add audio"),
        (rf"{_REMOVE}\s+\S", "remove audio"),
    ),
    "edit speech": (
        (rf"{_CLEAN}\b", "denoise"),
        (rf'{_REMOVE}\b[^"]*{_NOISE}[^"]*$', "denoise"),
        (rf'{_CHANGE}\b.*""', "change speech"),
        (rf'{_REMOVE}\b.*\b(?:and|then)\s+{_ADD}\b.*""', "change speech"),
        (rf'{_ADD}\b.*""', "add speech"),
        (rf'{_REMOVE}\b(?!.*\b{_ADD}\b)[^"]*$', "remove speech"),
    ),
}

_CHINESE: dict[str, tuple[tuple[str, str], ...]] = {
    "edit audio": (
        (rf"{_ZH_REMOVE}\s*\S{_ZH_AFTER}{_ZH_ADD}\s*\S", "replace audio"),
        (rf"{_ZH_OBJECT}{_ZH_REMOVE}{_ZH_AFTER}{_ZH_ADD}\s*\S", "replace audio"),
        (rf"{_ZH_OBJECT}{_ZH_SWAP}\s*\S", "replace audio"),
        (r"用\s*\S.*(?:替换|代替|取代|换掉)\s*\S", "replace audio"),
        (rf"{_ZH_ADD}\s*\S", "add audio"),
        (rf"{_ZH_REMOVE}\s*\S", "remove audio"),
        (rf"{_ZH_OBJECT}{_ZH_REMOVE}", "remove audio"),
    ),
    "edit speech": (
        (rf'[^"]*{_ZH_CLEAN}[^"]*$', "denoise"),
        (rf'(?=[^"]*{_ZH_NOISE})[^"]*{_ZH_REMOVE}[^"]*$', "denoise"),
        (rf'{_ZH_REMOVE}[^"]*{_ZH_ADD}[^"]*""', "change speech"),
        (rf'(?:{_ZH_OBJECT}|[^"]*?)?{_ZH_CHANGE}[^"]*""', "change speech"),
        (r'(?:让|使)[^"]*(?:说|讲|念)[^"]*""', "change speech"),
        (rf'{_ZH_ADD}[^"]*""', "add speech"),
        (rf'(?:{_ZH_OBJECT})?{_ZH_REMOVE}[^"]*$', "remove speech"),
    ),
}

EDITS: dict[tuple[str, ...], str] = {
    ("add audio",): "edit_add",
    ("remove audio",): "edit_remove",
    ("replace audio",): "edit_replace",
    ("remove audio", "add audio"): "edit_replace",
    ("add audio", "remove audio"): "edit_replace",
    ("add speech",): "speech_insert",
    ("remove speech",): "speech_delete",
    ("change speech",): "speech_rewrite",
    ("remove speech", "add speech"): "speech_rewrite",
    ("denoise",): "denoise",
    ("remove audio", "add speech"): "audio_to_speech",
    ("add speech", "remove audio"): "audio_to_speech",
    ("remove speech", "add audio"): "speech_to_audio",
    ("add audio", "remove speech"): "speech_to_audio",
}
"""Actions of an edit's clauses, in the order of the instruction -> task."""

EDIT_VERB = re.compile(
    rf"(?:^|\b(?:and|then)\b){_PLEASE}(?:{_ADD}|{_REMOVE}|{_SWAP})\b"
    rf"|(?:^|[，,；;]){_ZH_PLEASE}(?:{_ZH_REMOVE}|{_ZH_ADD}|把|将|用)|{_ZH_SWAP}|{_ZH_REMOVE}$",
    re.IGNORECASE,
)
"""A verb before the sound that it concerns."""


def find_action(tags: str, words: str) -> str:
    """Return the action of an edit's clause, "" if it is not clear.

    Args:
        tags: "edit audio" or "edit speech".
        words: The clause's words, with each quoted text reduced to a bare pair of quotes.
    """
    for please, actions in ((_PLEASE, _ENGLISH), (_ZH_PLEASE, _CHINESE)):
        for pattern, action in actions.get(tags, ()):
            if re.match(please + pattern, words, re.IGNORECASE | re.DOTALL):
                return action
    return ""
