"""What goes with a label is told from what chance reaches, and from what a scene has for itself."""

import torch
from scipy import stats

from seewhy.audit import association
from seewhy.audit.association import _within_scenes, associate, label_columns, toward


def drawn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_cue_that_scenes_hide_is_seen_within_them():
    scenes = torch.arange(60) // 4
    y = (torch.arange(60) % 4 < 2).double()[:, None]
    feature = 10 * drawn(15, 1)[scenes] + y + 0.3 * drawn(60, 1, seed=1)
    found = associate(feature, y, scenes, 0)
    assert found.within
    assert bool(found.p_is_low()[0, 0])
    assert found.r[0, 0] > 0.8
    assert not bool(associate(feature, y, torch.arange(60), 0).p_is_low()[0, 0])


def test_what_a_scene_has_for_itself_is_no_cue():
    scenes = torch.arange(80) // 8
    y = (scenes % 2).double()
    y[torch.arange(80) % 8 == 0] = 1 - y[torch.arange(80) % 8 == 0]  # each scene holds both labels
    feature = (scenes % 2).double()[:, None] + 0.1 * drawn(80, 1)
    found = associate(feature, y[:, None], scenes, 0)
    assert found.within
    assert not bool(found.p_is_low()[0, 0])


def test_scenes_of_one_label_count_once_each():
    scenes = torch.arange(40) // 10
    y = (scenes < 2).double()[:, None]
    feature = y + 0.01 * drawn(40, 1)
    found = associate(feature, y, scenes, 0)
    assert not found.within
    assert not bool(found.p_is_low()[0, 0])  # four scenes: a third of all exchanges do as well


def test_labels_change_places_within_their_scene():
    scenes = torch.randint(5, (40,), generator=torch.Generator().manual_seed(0))
    key = scenes + 0.999 * torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order = _within_scenes(key, scenes)
    assert order.sort().values.tolist() == list(range(40))
    assert torch.equal(scenes[order], scenes)
    assert (order != torch.arange(40)).float().mean() > 0.5


def test_random_numbers_pass_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr(association, "PERMUTATIONS", 99)
    y = (torch.arange(40) % 2).double()[:, None]
    passed = sum(bool(associate(drawn(40, 5, seed=s), y, torch.arange(40), s).p_is_low().any()) for s in range(100))
    assert stats.binomtest(passed, 100, 0.05).pvalue > 0.001, passed


def test_columns_are_classes_with_enough_images_on_either_side():
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 5)
    table, which = label_columns(labels, "class")
    assert which == [0, 1]
    assert torch.equal(table[:, 1], (labels == 1).double())
    assert label_columns(torch.tensor([0] * 30), "class")[1] == []
    assert label_columns(torch.arange(41).repeat(6), "class")[1] == []
    scores = torch.rand(9)
    assert torch.equal(label_columns(scores, "score")[0][:, 0], scores.double())
    assert label_columns(torch.eye(3).repeat(8, 1), "labels")[1] == [0, 1, 2]


def test_of_two_classes_either_output_may_move():
    assert toward(1, "class", torch.tensor([0, 1])) is None
    assert toward(1, "class", torch.tensor([0, 1, 2])) == 1
    assert toward(1, "labels", torch.tensor([[0, 1]])) == 1
