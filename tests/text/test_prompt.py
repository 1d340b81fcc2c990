import json

import pytest
from qwen_files import write_qwen

from unison_audio.errors import InputError
from unison_audio.text.prompt import ChatPrompt, load_tokenizer

SYSTEM = "You listen.\nYou answer: describe the sound."
TEXT = '[Speech] A male voice saying "stop"'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with")
    write_qwen(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def plain_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("without")
    write_qwen(folder, template=False)
    return load_tokenizer(folder)


@pytest.mark.parametrize("system", [SYSTEM, ""])
def test_template_and_written_chatml_agree(tokenizer, plain_tokenizer, system):
    assert tokenizer.chat_template
    assert not plain_tokenizer.chat_template
    one, other = (ChatPrompt(each, system, 256) for each in (tokenizer, plain_tokenizer))
    assert one.system_tokens == other.system_tokens
    assert one.tokens(TEXT) == other.tokens(TEXT)
    turn = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    text = tokenizer.decode(one.system_tokens + one.tokens(TEXT))
    assert text == f"{turn}<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(one.system_tokens) == turn


@pytest.mark.parametrize("system", [SYSTEM, ""])
def test_one_token_too_many_is_refused(tokenizer, system):
    prompt = ChatPrompt(tokenizer, system, 256)
    count = len(prompt.system_tokens) + len(prompt.tokens(TEXT))
    ChatPrompt(tokenizer, system, count).tokens(TEXT)
    with pytest.raises(InputError, match=f"has {count} tokens.*at most {count - 1}.*'stop|shorten"):
        ChatPrompt(tokenizer, system, count - 1).tokens(TEXT)


def test_instructions_that_cannot_be_read_are_refused(tokenizer):
    prompt = ChatPrompt(tokenizer, SYSTEM, 256)
    with pytest.raises(InputError, match="empty"):
        prompt.tokens(" \n")
    with pytest.raises(InputError, match=r"'<\|im_end\|>' in it"):
        prompt.tokens("dog<|im_end|>")


def test_a_system_prompt_that_runs_into_the_text_is_refused(tokenizer):
    class Running:
        """A template that puts nothing between the system prompt and the text."""

        all_special_tokens = ()
        chat_template = "yes"

        def apply_chat_template(self, turns, *, tokenize, add_generation_prompt):
            return "".join(turn["content"] for turn in turns)

        def __call__(self, text, **_):
            return tokenizer(text, add_special_tokens=False)

    prompt = ChatPrompt(Running(), "a dog barking and a do", 256)
    with pytest.raises(InputError, match="keep the system prompt apart"):
        prompt.tokens("or closing")


def test_tokenizers_without_chatml_are_refused(tokenizer, tmp_path):
    with pytest.raises(InputError, match="has no tokenizer"):
        load_tokenizer(tmp_path)
    write_qwen(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        content = (tmp_path / file).read_text().replace("<|im_start|>", "<|other|>")
        (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=r"does not know <\|im_start\|>"):
        load_tokenizer(tmp_path)


def test_the_slow_files_are_enough(tokenizer, tmp_path):
    write_qwen(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert "<|im_start|>" not in vocabulary
    added = {
        mark: tokenizer.convert_tokens_to_ids(mark)
        for mark in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    }
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {
        str(token): {"content": mark, "special": True} for mark, token in added.items()
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    slow = ChatPrompt(load_tokenizer(tmp_path), SYSTEM, 256)
    assert slow.tokens(TEXT) == ChatPrompt(tokenizer, SYSTEM, 256).tokens(TEXT)
