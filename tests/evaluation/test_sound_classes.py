from unison_audio.data.nano_corpus import sound_labels
from unison_audio.evaluation import sound_classes
from unison_audio.evaluation.sound_classes import is_judged, sound_class


def test_the_lists_name_nanos_labels():
    labels = set(sound_labels())
    assert set(sound_classes.MERGED) <= labels
    assert labels >= sound_classes.NOT_JUDGED


def test_classes_have_several_labels_and_names_of_their_own():
    names = set(sound_classes.MERGED.values())
    for name in names:
        members = [label for label in sound_labels() if sound_class(label) == name]
        assert len(members) >= 2
        assert name not in sound_labels() or sound_class(name) == name
        assert len({is_judged(label) for label in members}) == 1
    assert sound_class("thunder") == "thunder"
