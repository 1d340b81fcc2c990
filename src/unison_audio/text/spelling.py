"""The one place where instructions are spelled for a variant.

Generation, batches, training, fine-tuning, evaluation and baselines all read their instructions
through a text encoder, so that it alone can give every path the same tokens.
"""

from collections.abc import Sequence

from unison_audio.tasks.clauses import respell
from unison_audio.text.states import TextSetup


def spelled(instructions: Sequence[str], setup: TextSetup) -> list[str]:
    """Spells the tags of edits as the variant's weights saw them."""
    if not setup.edit_tag_spelling:
        return list(instructions)
    return [respell(instruction, setup.edit_tag_spelling) for instruction in instructions]
