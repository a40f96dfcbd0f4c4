"""Shape bias: decisions that are known give the share that is known; the mapping is that of the paper."""

import math

import pytest
import torch
from torch import nn

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.checks.shape_bias import SIXTEEN_CLASSES, _columns, decisions_of, shape_bias_from_decisions
from seewhy.loading.labels import imagenet_labels
from seewhy.target import PREDICTED

THREE = {"cat": [0, 4], "dog": [1, 2], "bird": [3]}
WORDS = {  # what a label of each class holds, one of these
    "airplane": "airliner",
    "bear": "bear",
    "bicycle": "bicycle mountain",
    "boat": "canoe boat yawl",
    "bottle": "bottle jug",
    "car": "wagon convertible car",
    "cat": "cat cougar tabby",
    "chair": "chair throne",
    "clock": "clock",
    "elephant": "elephant",
    "keyboard": "keyboard",
    "knife": "cleaver",
    "oven": "rotisserie",
    "truck": "truck engine minivan van pickup",
}


class Says(nn.Module):
    """The logits of image i are what its first pixels say."""

    def forward(self, x):
        return 40 * x[:, 0, 0, :5]


def says(*classes):
    x = torch.zeros(len(classes), 3, 8, 8)
    x[torch.arange(len(classes)), 0, 0, list(classes)] = 1
    return x


MODEL = sw.wrap(Says(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=8)


def check(x, shapes, textures, model=MODEL, mapping=THREE, exemplars=None):
    given = {"shapes": shapes, "textures": textures, "mapping": mapping, "exemplars": exemplars}
    return sw.checks.shape_bias(model, x, PREDICTED, sw.bind("gradient"), **given)


def test_decisions_by_shape_texture_and_neither_are_counted():
    found = check(says(0, 1, 3, 4, 2), ["cat", "cat", "cat", "bird", "dog"], ["dog", "dog", "dog", "cat", "dog"])
    assert found.details["decisions"] == ["cat", "dog", "bird", "cat", "dog"]
    assert found["shape_bias"].per_image[:2] == (1.0, 0.0)
    assert math.isnan(found["shape_bias"].per_image[2])  # neither
    assert found["shape_bias"].interval.value == pytest.approx(1 / 3)
    assert found.excluded == {4: "shape and texture are the same class"}
    assert found["either_cue"].interval.value == pytest.approx(3 / 4)
    assert (found.details["shape_decisions"], found.details["texture_decisions"]) == (1, 2)
    assert found.verdict == "no verdict"
    assert (found.forward_rows, found.gradient_rows) == (5, 0)


@pytest.mark.parametrize(("by", "bias"), [(0, 1.0), (1, 0.0)])
def test_a_network_that_sees_only_one_cue_has_all_or_nothing(by, bias):
    pairs = [("cat", "dog"), ("dog", "bird"), ("bird", "cat"), ("cat", "bird")]
    column = {"cat": 0, "dog": 1, "bird": 3}
    found = check(says(*(column[p[by]] for p in pairs)), *zip(*pairs, strict=True))
    assert found["shape_bias"].interval.value == bias
    assert found["either_cue"].interval.value == 1


def test_a_network_that_guesses_has_one_half_and_its_interval_holds_it():
    generator = torch.Generator().manual_seed(0)
    names = sorted(SIXTEEN_CLASSES)
    drawn = torch.randint(16, (3, 5_000), generator=generator).tolist()
    decisions, shapes, textures = ([names[k] for k in row] for row in drawn)
    found = shape_bias_from_decisions(decisions, shapes, textures, list(range(5_000)))
    assert found.interval.low < 0.5 < found.interval.high
    assert found.interval.n == pytest.approx(5_000 * 15 / 16 * 2 / 16, rel=0.15)


def test_the_interval_resamples_textures_and_not_images():
    shapes, textures = ["cat", "dog"] * 40, [f"t{k // 8}" for k in range(80)]
    decisions = [s if k // 8 < 5 else t for k, (s, t) in enumerate(zip(shapes, textures, strict=True))]
    by_texture = shape_bias_from_decisions(decisions, shapes, textures).interval
    alone = shape_bias_from_decisions(decisions, shapes, textures, range(80)).interval
    assert by_texture.value == alone.value == 0.5
    assert (by_texture.clusters, alone.clusters) == (10, 80)
    assert by_texture.high - by_texture.low > 2 * (alone.high - alone.low)


def test_a_decision_is_the_largest_mean_over_fine_classes_and_not_their_sum():
    p = torch.tensor([[0.30, 0.10, 0.10, 0.35, 0.15], [0.25] * 5])
    assert decisions_of(p, THREE) == ["bird", "bird"]  # sums say cat; of three equal means the first by name


def test_the_mapping_is_the_one_that_was_published():
    counts = {name: len(columns) for name, columns in published().items()}
    assert counts == {
        "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6, "chair": 4,
        "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8,
    }  # fmt: skip


def test_every_index_of_the_mapping_belongs_to_its_class():
    labels = imagenet_labels()  # lite0's
    for name, words in WORDS.items():
        for k in published()[name]:
            assert any(word in labels[k].lower() for word in words.split()), f"{name}: {k} is {labels[k]}"
    assert [labels[k] for k in (min(published()["dog"]), max(published()["dog"]))] == [
        "Japanese spaniel",
        "Mexican hairless",
    ]
    assert [labels[k] for k in (min(published()["bird"]), max(published()["bird"]))] == ["hen", "king penguin"]


def published():
    return _columns(None, 1000, None)


class Thousand(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3))[:, None] * torch.linspace(-1, 1, 1000)


def thousand(labels=None):
    return sw.wrap(Thousand(), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=8, labels=labels)


def test_a_network_of_imagenets_classes_needs_no_mapping():
    found = check(images(3, size=(8, 8)), ["cat", "dog", "car"], ["dog", "oven", "bottle"], thousand(), None)
    assert found.details["decisions"] == ["bottle"] * 3  # higher columns score higher: its seven have the largest mean
    assert found["shape_bias"].per_image[2] == 0


def test_another_order_of_the_thousand_classes_is_refused():
    labels = [f"class {k}" for k in range(1000)]
    with pytest.raises(sw.UsageError, match="usual order"):
        check(images(1, size=(8, 8)), ["cat"], ["dog"], thousand(labels), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shapes": ["cat"]}, "1 shapes for 2 images"),
        ({"exemplars": ["a"]}, "1 exemplars"),
        ({"shapes": "ab"}, "2 shapes"),
        ({"shapes": ["cat", "lion"]}, "'lion' is no class"),
        ({"mapping": None}, "this network has 5 classes"),
        ({"mapping": {"cat": [0], "dog": [5]}}, "0 to 4"),
        ({"mapping": {"cat": [0], "dog": []}}, "dog"),
        ({"model": sw.wrap(Says(), size=8, task="regression")}, "classifier"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, said):
    usual = {"shapes": ["cat", "dog"], "textures": ["dog", "cat"]}
    with pytest.raises(sw.UsageError, match=said):
        check(says(0, 1), **{**usual, **given})


def test_an_output_that_is_not_finite_is_excluded_and_said():
    x = says(0, 1, 3)
    x[0, 0, 0, 0] = torch.nan
    found = check(x, ["cat", "cat", "cat"], ["dog"] * 3)
    assert found.excluded == {0: "not finite"}
    assert found.verdict == "not valid"
    assert found["either_cue"].interval.n == 2


def test_no_decision_for_either_cue_has_no_number():
    found = check(says(3, 3), ["cat", "dog"], ["dog", "cat"])
    assert found.verdict == "not valid"
    assert found["shape_bias"].interval.n == 0
    assert found["either_cue"].interval.value == 0


def test_a_cnn_is_asked_in_any_batch_size():
    x = images(4)
    one, all_at_once = (
        check(
            x, ["cat", "dog", "cat", "bird"], ["dog", "cat", "bird", "dog"], sw.wrap(tiny_cnn(), size=32, batch_size=n)
        )
        for n in (1, 4)
    )
    assert one.details == all_at_once.details
