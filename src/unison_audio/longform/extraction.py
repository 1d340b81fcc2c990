"""Extraction of a sound, or of speech, from a recording by the paper's tasks that remove them."""

from unison_audio.tasks.mentions import mentions
from unison_audio.tasks.table import TASKS


def removal_of(instruction: str) -> str:
    """The removal of what an instruction names, which is extracted as what the removal takes away.

    On mixes of speech and sounds, the recording minus the task `speech_delete` is nearer to the
    speech than the result of `denoise` is: median SI-SDR 12.2 against 10.8 dB.

    Args:
        instruction: `[Audio] a dog barking`, `[Speech]`, or an edit, which is returned as it is.
    """
    plain = instruction.strip()
    if plain.lower().startswith("[speech]"):
        return TASKS["speech_delete"].templates[0]
    if plain.lower().startswith("[audio]") and mentions(plain).sounds:
        sound = plain[len("[audio]") :].strip()
        return TASKS["edit_remove"].templates[0].replace("{event}", sound)
    return instruction
