"""What goes with a label is told from what chance reaches, and from what a scene has for itself."""

import torch
from scipy import stats

from seewhy.audit import association
from seewhy.audit.association import _within_scenes, associate, exchanged_labels, labels_of


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
    order = _within_scenes(scenes, torch.Generator().manual_seed(1))
    assert order.sort().values.tolist() == list(range(40))
    assert torch.equal(scenes[order], scenes)
    assert (order != torch.arange(40)).float().mean() > 0.5


def test_exchanged_labels_stay_in_their_scene_where_it_holds_several_and_go_with_it_where_not():
    scenes, column = torch.arange(60) // 6, (torch.arange(60) % 2).double()
    inside = exchanged_labels(column, scenes, 0)
    assert not torch.equal(inside, column)
    assert all(inside[scenes == k].sum() == 3 for k in range(10))
    whole = (scenes < 4).double()
    between = exchanged_labels(whole, scenes, 1)
    assert not torch.equal(between, whole)
    assert all(len(between[scenes == k].unique()) == 1 for k in range(10))
    assert between.sum() == whole.sum()


def test_random_numbers_pass_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr(association, "PERMUTATIONS", 99)
    y = (torch.arange(40) % 2).double()[:, None]
    passed = sum(bool(associate(drawn(40, 5, seed=s), y, torch.arange(40), s).p_is_low().any()) for s in range(100))
    assert stats.binomtest(passed, 100, 0.05).pvalue > 0.001, passed


def test_one_number_alone_passes_as_often_as_the_level_says(monkeypatch):
    monkeypatch.setattr(association, "PERMUTATIONS", 99)
    y = (torch.arange(40) % 2).double()[:, None]
    passed = [associate(drawn(40, 10, seed=s), y, torch.arange(40), s).p_is_low_alone() for s in range(20)]
    assert stats.binomtest(int(torch.cat(passed).sum()), 200, 0.05).pvalue > 0.001


def of(truth, kind, outputs=3):
    return labels_of(truth, kind, [f"name {k}" for k in range(50)], outputs)


def test_columns_are_classes_with_enough_images_on_either_side():
    truth = torch.tensor([0] * 10 + [1] * 10 + [2] * 5)
    found = of(truth, "class")
    assert (found.names, found.rises) == (["name 0", "name 1"], [0, 1])
    assert torch.equal(found.columns[:, 1], (truth == 1).double())
    assert of(torch.tensor([0] * 30), "class").names == []
    assert of(torch.arange(41).repeat(6), "class").names == []
    scores = torch.rand(9)
    assert torch.equal(of(scores, "score").columns[:, 0], scores.double())
    assert of(torch.eye(3).repeat(8, 1), "labels").names == ["name 0", "name 1", "name 2"]


def test_the_one_output_of_two_classes_rises_with_the_second():
    truth = torch.arange(20) % 2
    assert of(truth, "class", 1).rises == [None, 0]
    assert of(truth, "class", 2).rises == [0, 1]


def test_the_carriers_of_a_score_are_its_highest_quarter():
    assert of(torch.arange(8.0), "score").carriers(0).tolist() == [False] * 6 + [True] * 2
    assert of(torch.arange(20) % 2, "class").carriers(1).tolist() == [False, True] * 10
