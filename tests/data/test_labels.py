"""What a model should answer: labels by name or index, in the model's own terms; what fits no class is listed."""

import pytest
import torch
from PIL import Image
from torch import nn

import seewhy as sw
from seewhy.data.dataset import read_dataset
from seewhy.data.labels import class_of, labels_for
from seewhy.errors import UsageError

GRAY = Image.new("L", (4, 4))


def network(task="multiclass", labels=None, outputs=3):
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, outputs))
    return sw.wrap(module, mean=(0.5,) * 3, std=(0.5,) * 3, size=4, labels=labels, task=task)


def dataset(*labels, kind=None, classes=()):
    read = read_dataset([(GRAY, label) for label in labels], kind=kind)
    return type(read)(read.samples, read.kind, read.root, read.skipped, tuple(classes))


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["cat", "dog", "red_fox"], ["dog", "CAT", "Red fox"], [1, 0, 2]),
        (["cat", "Cat", "dog"], ["Cat", "cat", "DOG"], [1, 0, 2]),  # as it is written comes first
        (["n01", "n02", "n03"], ["n03", "n01", "n01"], [2, 0, 0]),
        (["a", "b", "c"], [2, 0, "b"], [2, 0, 1]),
        (["9", "8", "7"], [7, 9, 8], [2, 0, 1]),  # every number is a name
        (["1", "2", "x"], [0, 1, 2], [0, 1, 2]),  # not every one is
        (None, [2, 0, 1], [2, 0, 1]),
    ],
)
def test_a_class_is_found_by_name_or_index(names, labels, expected):
    known, targets = labels_for(network(labels=names), dataset(*labels, kind="class"))
    assert (targets.tolist(), targets.dtype, known.skipped) == (expected, torch.int64, ())


def test_labels_that_no_class_fits_are_listed_and_their_images_left_out():
    given = dataset("cat", "dgo", 5, "dog", kind="class")
    known, targets = labels_for(network(labels=["cat", "dog", "owl"]), given)
    assert targets.tolist() == [0, 1]
    assert [sample.name for sample in known.samples] == ["item 0", "item 3"]
    assert [one["reason"] for one in known.skipped] == [
        "the model has no class 'dgo'",
        "5 is no class index: the network has 3 classes, 0 to 2",
    ]


def test_where_none_fits_near_names_are_given_or_what_to_do():
    with pytest.raises(UsageError, match=r"fits this multiclass network.*Did you mean 'dog'"):
        labels_for(network(labels=["cat", "dog", "owl"]), dataset("doog", "dug"))
    with pytest.raises(UsageError, match=r"no class names.*labels=\[\.\.\.\]"):
        labels_for(network(), dataset("cat", "dog"))
    with pytest.raises(UsageError, match="task='embedding' has neither"):
        labels_for(network("embedding"), dataset(1))
    with pytest.raises(UsageError, match="'cat' is no number"):
        labels_for(network("regression", outputs=1), dataset("cat"))


def test_a_name_that_two_classes_have_is_no_class():
    known, targets = labels_for(network(labels=["crane", "owl", "crane"]), dataset("crane", "owl"))
    assert targets.tolist() == [1]
    assert "2 classes named 'crane' (0, 2)" in known.skipped[0]["reason"]


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        (["cat", "dog", "owl"], ["owl", "cat", "dog"], [2, 0, 1]),  # the model's in another order
        (["tench", "goldfish", "owl"], ["n01", "n02", "n03"], [0, 1, 2]),  # as many, none of the same name
        (["tench", "goldfish", "owl"], ["tench", "gold fish", "owl"], [0, 1, 2]),
        (["cat", "dog", "owl"], ["owl", "cat"], [2, 0, None]),  # fewer: by name
        (["cat", "dog", "owl"], ["dgo", "cat", "owl"], [None, 0, 2]),  # "cat" stands elsewhere: by name
        (["crane", "owl", "crane"], ["crane", "owl", "crane"], [0, 1, 2]),
        (None, ["a", "b", "c"], [0, 1, 2]),
    ],
)
def test_classes_that_a_data_set_numbers_itself_are_matched_with_the_models(names, classes, expected):
    known, targets = labels_for(network(labels=names), dataset(0, 1, 2, classes=classes))
    assert targets.tolist() == [k for k in expected if k is not None]
    assert [sample.name for sample in known.samples] == [f"item {i}" for i, k in enumerate(expected) if k is not None]


@pytest.mark.parametrize(
    ("names", "labels"),
    [(None, [0, 1]), (None, ["False", "true"]), (["ok", "bad"], ["ok", "Bad"]), (["bad"], [0, "bad"])],
)
def test_a_binary_network_has_two_classes(names, labels):
    assert labels_for(network("binary", names, 1), dataset(*labels, kind="class"))[1].tolist() == [0, 1]


def test_several_labels_are_rows_of_zeros_and_ones():
    given = dataset(("cat", "owl"), [], "dog", ("cat", "bat"), kind="labels")
    known, targets = labels_for(network("multilabel", ["cat", "dog", "owl"]), given)
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert [one["path"] for one in known.skipped] == ["item 3"]
    assert labels_for(network("multilabel"), dataset(2, 0))[1].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_the_models_task_decides_what_a_number_is():
    whole, scores = dataset(1, 2), dataset(0.5, 2.0)
    assert (whole.kind, scores.kind) == ("class", "score")
    assert labels_for(network("regression", outputs=1), whole)[1].tolist() == [1.0, 2.0]
    known, targets = labels_for(network(), scores)
    assert (targets.tolist(), [one["reason"] for one in known.skipped]) == ([2], ["0.5 is no class"])


def test_an_image_with_two_labels_is_none_of_one_class():
    known, targets = labels_for(network(labels=["a", "b", "c"]), dataset(("a", "b"), ("c",)))
    assert (targets.tolist(), [one["reason"] for one in known.skipped]) == (
        [2],
        ["2 labels where one class is expected"],
    )


@pytest.mark.parametrize(
    ("labels", "given", "found"),
    [
        (["cat", "Big_Dog"], "big dog", (1, "Big_Dog")),
        (["cat", "dog"], "1", (1, "dog")),
        (["7", "1"], "7", (0, "7")),  # a number that is a name
        (["cat", "Cat"], "Cat", (1, "Cat")),
        (None, "4", (4, "4")),
    ],
)
def test_a_class_is_found_by_its_name_or_else_by_its_index(labels, given, found):
    assert class_of(network(labels=labels, outputs=len(labels or "abcde")), given) == found


@pytest.mark.parametrize(
    ("labels", "given", "said"),
    [
        (["cat", "dog"], "owl", "no class 'owl'"),
        (["cat", "dog"], "2", "2 is no class index"),
        (["cat", "Cat"], "CAT", "2 classes named 'CAT'"),
        (None, "cat", "no class names"),
    ],
)
def test_a_class_that_there_is_not_is_a_reason(labels, given, said):
    with pytest.raises(ValueError, match=said):
        class_of(network(labels=labels, outputs=len(labels or "abcde")), given)
