"""The table of metrics by name."""

from unison_audio.evaluation.metrics.metric import Metric
from unison_audio.evaluation.metrics.sound import SOUND
from unison_audio.evaluation.metrics.speech import SPEECH

METRICS: dict[str, Metric] = {**SOUND, **SPEECH}
"""Every metric by its short name."""
