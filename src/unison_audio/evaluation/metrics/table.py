"""The table of metrics by name; a new metric is a class and a row here."""

from unison_audio.evaluation.metrics.metric import Metric
from unison_audio.evaluation.metrics.sound import SOUND
from unison_audio.evaluation.metrics.speech import SPEECH

METRICS: dict[str, type[Metric]] = {metric.name: metric for metric in (*SOUND, *SPEECH)}
"""Every metric by its short name."""
