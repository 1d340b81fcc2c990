"""The prompt of a chat model: system turn, instruction as the user's turn, start of the answer."""

from pathlib import Path
from typing import Any

from unison_audio.errors import InputError, TextError
from unison_audio.hub import quiet_transformers

MARKS = ("<|im_start|>", "<|im_end|>")
"""Special tokens around a ChatML turn."""

VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files that a tokenizer can be loaded from; one of these sets is enough."""


class ChatPrompt:
    """Turns instructions into tokens in the ChatML form.

    The tokenizer's own chat template is used where its files have one; otherwise ChatML is written
    out here. Without a system prompt there is no system turn, even where the template has a default
    one.

    Args:
        tokenizer: A tokenizer of transformers.
        system_prompt: Text of the system turn; empty for no system turn.
        max_tokens: The most tokens of the whole prompt.

    Raises:
        InputError: If the template does not begin with the system turn.
    """

    def __init__(self, tokenizer: Any, system_prompt: str, max_tokens: int) -> None:
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        # Without a system turn the template would add its default one. A known one can be cut off.
        self._system_turn, self._stated = system_prompt or "-", bool(system_prompt)
        self._system_text = self._render(None)
        self.system_tokens = self._tokens(self._system_text) if self._stated else []
        """Tokens of the system turn, in front of every instruction's."""

    def tokens(self, instruction: str) -> list[int]:
        """The tokens that follow the system turn's, up to the point where an answer would begin.

        Raises:
            InputError: If the instruction is empty, holds one of the tokenizer's special tokens,
                is too long together with the system turn, or changes how that is tokenized.
        """
        if not instruction.strip():
            raise TextError("The instruction is empty; say what sound to make")
        for mark in self.tokenizer.all_special_tokens:
            if mark in instruction:
                raise TextError(
                    f"The instruction has {mark!r} in it, a special token of the text encoder; "
                    f"leave it out: {instruction[:60]!r}"
                )
        text = self._render(instruction)
        if not text.startswith(self._system_text):
            raise InputError(
                "The tokenizer's chat template does not begin with the system prompt "
                f"{self._system_turn[:60]!r}; use the files of Qwen2.5-Omni"
            )
        system = len(self.system_tokens)
        tokens = self._tokens(text if self._stated else text.removeprefix(self._system_text))
        if len(tokens) > self.max_tokens:
            raise TextError(
                f"The instruction has {len(tokens)} tokens, {system} of them the system prompt's, "
                f"where at most {self.max_tokens} are understood; "
                f"shorten it: {instruction[:60]!r}..."
            )
        if tokens[:system] != self.system_tokens:
            raise InputError(
                "The tokenizer does not keep the system prompt apart from the instruction "
                f"{instruction[:60]!r}; use the files of Qwen2.5-Omni"
            )
        return tokens[system:]

    def _render(self, instruction: str | None) -> str:
        """The text with the system turn; only that turn where there is no instruction."""
        turns = [{"role": "system", "content": self._system_turn}]
        if instruction is not None:
            turns.append({"role": "user", "content": instruction})
        if self.tokenizer.chat_template:
            return self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=instruction is not None
            )
        text = "".join(
            f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns
        )
        return text if instruction is None else f"{text}<|im_start|>assistant\n"

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds files that a tokenizer can be loaded from."""
    return any(all((folder / name).is_file() for name in files) for files in VOCABULARIES)


def load_tokenizer(folder: Path) -> Any:
    """Loads a folder's tokenizer.

    Raises:
        InputError: If the folder has none, or one that does not know ChatML's marks.
    """
    from transformers import AutoTokenizer

    if not has_vocabulary(folder):  # transformers would make one without a vocabulary
        raise InputError(
            f"{folder} has no tokenizer; put tokenizer.json and tokenizer_config.json of the model "
            "there"
        )
    try:
        with quiet_transformers():  # it warns about the config of the talker, which is not loaded
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"The tokenizer in {folder} cannot be loaded ({error}); download its files again"
        ) from error
    for mark in MARKS:
        if len(tokenizer(mark, add_special_tokens=False)["input_ids"]) != 1:
            raise InputError(
                f"The tokenizer in {folder} does not know {mark}; use the files of Qwen2.5-Omni"
            )
    return tokenizer
