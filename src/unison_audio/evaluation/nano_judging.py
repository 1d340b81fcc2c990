"""The event classifier that stands for CLAP on nano's sets: found, or trained on the corpus."""

from pathlib import Path

from unison_audio.data.whole_corpus import read_corpus
from unison_audio.evaluation.classifier import CONFIG_FILE, save_classifier
from unison_audio.evaluation.classifier_training import ClassifierRecipe, train_classifier
from unison_audio.evaluation.encoders import JointEncoder, SoundEncoder
from unison_audio.evaluation.judges import FreeRecogniser


def event_classifier(
    corpus: Path, sample_rate: int, out: Path, recipe: ClassifierRecipe | None = None
) -> Path:
    """The folder of the classifier that nano's evaluation wrote, or of one trained now.

    Args:
        corpus: What ``unison-audio data nano`` wrote.
        sample_rate: Of the corpus, in Hz.
        out: Folder of an evaluation; ``classifier`` in it or beside it is taken if it is there.
        recipe: How to train one that is missing, in ``out/classifier``.

    Raises:
        InputError: A package is missing, or there is no such corpus.
    """
    own, beside = out / "classifier", out.parent / "classifier"
    for folder in (own, beside):
        if (folder / CONFIG_FILE).is_file():
            return folder
    encoder = JointEncoder([SoundEncoder(), FreeRecogniser()])
    train = read_corpus(corpus, sample_rate, split="train")
    save_classifier(own, train_classifier(train, sample_rate, encoder, recipe))
    return own
