"""The table of metrics by name, made of the tuples SOUND and SPEECH of their files."""

from unison_audio.evaluation.metrics.metric import Metric
from unison_audio.evaluation.metrics.sound import SOUND
from unison_audio.evaluation.metrics.speech import SPEECH

METRICS: dict[str, type[Metric]] = {metric.name: metric for metric in (*SOUND, *SPEECH)}
"""Every metric by its short name."""
