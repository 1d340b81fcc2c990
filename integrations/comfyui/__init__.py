"""Nodes of ComfyUI that generate and edit speech and sound with UNISON.

ComfyUI loads this folder as a package from `custom_nodes` and reads the two tables.
"""

from .nodes import UnisonEdit, UnisonGenerate, UnisonLoad, UnisonSpeech

NODE_CLASS_MAPPINGS = {
    "UnisonLoad": UnisonLoad,
    "UnisonGenerate": UnisonGenerate,
    "UnisonSpeech": UnisonSpeech,
    "UnisonEdit": UnisonEdit,
}
"""Name of a node in saved workflows -> its class; a name must never change."""

NODE_DISPLAY_NAME_MAPPINGS = {
    "UnisonLoad": "Load UNISON",
    "UnisonGenerate": "Generate Audio (UNISON)",
    "UnisonSpeech": "Speak (UNISON)",
    "UnisonEdit": "Edit Audio (UNISON)",
}
"""Name of a node -> its title."""

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
