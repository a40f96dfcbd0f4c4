"""Before any map: a good network on right labels goes on; wrong labels, wrong normalization and BGR are named."""

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.trust.setup import examine_setup, label_indices


class Brightest(nn.Module):
    """Says which color channel is the brightest: right only where channels come in order and in its own range."""

    def forward(self, x):
        return 10 * x.mean((2, 3)) + torch.tensor([0.0, -0.5, -1.0])


def colored(n=12):
    """Images whose class is their brightest channel."""
    labels = torch.arange(n) % 3
    x = torch.full((n, 3, 8, 8), 0.4)
    x[torch.arange(n), labels] = 0.7
    return x, labels.tolist()


def model(**given):
    return sw.wrap(Brightest(), **{"size": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3, "labels": list("rgb"), **given})


def test_a_network_that_is_right_goes_on_with_its_accuracy_and_interval():
    x, labels = colored()
    found = examine_setup(model(), x, labels)
    assert (found.accuracy.value, found.accuracy.n) == (1, 12)
    assert 0.7 < found.accuracy.low < 0.8  # Wilson: twelve of twelve is no proof of 100 %
    assert found.chance == pytest.approx(1 / 3)
    assert not found.warning
    assert found.forward_rows == 12 * 4


def test_labels_by_name_are_the_same_as_by_index():
    x, labels = colored()
    assert examine_setup(model(), x, ["rgb"[k] for k in labels]).accuracy.value == 1


def test_channels_in_another_order_are_named():
    x, labels = colored(24)
    found = examine_setup(model(), x.flip(1), labels)
    assert found.better == "channels reversed (BGR)"
    assert "BGR) 1" in found.warning
    assert ("r", "b", 8) in found.confusions


def test_shuffled_labels_stop_before_any_map_unless_one_goes_on():
    x, labels = colored()
    wrong = labels[1:] + labels[:1]
    network = model()
    with pytest.raises(sw.RefusalError, match=r"Labels or normalization look wrong.*ImageNet.*--anyway"):
        sw.check(network, x, "occlusion", wrong, only=["completeness"], patch=4)
    card = sw.check(network, x, "occlusion", wrong, only=["completeness"], patch=4, anyway=True)
    assert "wrong" in card.about["setup"]["warning"]


def test_images_of_one_class_that_are_all_right_are_no_chance_level():
    x, labels = colored()
    same = [i for i, k in enumerate(labels) if k == 1]
    assert not examine_setup(model(), x[same], [1] * len(same)).warning


def test_a_network_that_always_says_the_same_is_at_chance():
    x, labels = colored()
    found = examine_setup(model(mean=(0.9, 0.0, 0.9)), x, labels)
    assert found.accuracy.value == pytest.approx(1 / 3)
    assert "chance" in found.warning or found.better


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1], "2 labels for 3 images"),
        ("rgb", "one per image"),
        ([0, 1, 3], "0 to 2"),
        ([0, 1, 0.5], "no class index"),
        (["r", "g", "blue"], "unknown class 'blue'"),
    ],
)
def test_labels_that_do_not_fit_are_told_before_any_work(labels, said):
    with pytest.raises(sw.UsageError, match=said):
        label_indices(labels, 3, list("rgb"), 3)


def test_a_network_that_is_no_classifier_has_no_set_up_check():
    with pytest.raises(sw.RefusalError, match="regression"):
        examine_setup(sw.wrap(tiny_cnn(classes=1), task="regression", size=32), images(3), [0, 0, 0])
