from unison_audio.nano import event_classifier as sound_classes
from unison_audio.nano.corpus import catalog
from unison_audio.nano.event_classifier import is_ranked, sound_class

LABELS = {row["label"] for row in catalog("sounds")}


def test_the_lists_name_nanos_labels():
    assert set(sound_classes.MERGED) <= LABELS
    assert LABELS >= sound_classes.UNRANKED


def test_classes_have_several_labels_and_names_of_their_own():
    names = set(sound_classes.MERGED.values())
    for name in names:
        members = [label for label in LABELS if sound_class(label) == name]
        assert len(members) >= 2
        assert name not in LABELS or sound_class(name) == name
        assert len({is_ranked(label) for label in members}) == 1
    assert sound_class("thunder") == "thunder"
