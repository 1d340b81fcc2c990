#!/usr/bin/env bash
# Fine-tunes nano on the recordings in a folder and generates with the result.
#
#   examples/finetune.sh CLIPS RUN [STEPS]
#
# CLIPS holds wav or flac files of one sound; the file's name up to the first dash is its label,
# so `a_theremin-1.wav` and `a_theremin-2.wav` teach "a theremin". RUN receives the checkpoint.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "Usage: $0 CLIPS RUN [STEPS]" >&2
    exit 2
fi
clips=$1 run=$2 steps=${3:-200}

# 1. One JSON object a line: the file and what is heard in it.
#    It lies beside the run, so that a list of your own among the clips stays as it is.
mkdir -p "$run"
clips=$(cd "$clips" && pwd)
list=$run/examples.jsonl
: > "$list"
for file in "$clips"/*.wav "$clips"/*.flac; do
    [ -e "$file" ] || continue
    name=$(basename "${file%.*}")
    label=${name%%-*}
    printf '{"audio": "%s", "label": "%s"}\n' "$file" "${label//_/ }" >> "$list"
done

# 2. Train low-rank matrices and merge them. Rerun the same command to resume.
unison-audio finetune "$list" --run "$run" --steps "$steps" --cpu

# 3. The result is an ordinary checkpoint.
unison-audio generate "[Audio] ${label//_/ }" --variant "$run/weights" -o "$run/sample.wav"
