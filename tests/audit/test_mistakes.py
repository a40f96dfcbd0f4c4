"""Mistakes are grouped by what the network sees under their maps, against pairs with right answers."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import seewhy as sw
from seewhy.audit.mistakes import alike_mistakes, features_under, mistakes_in_words
from seewhy.ledger import open_ledger


def drawn(n, channels=32, seed=0):
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


WRONG = torch.arange(60) < 20
SAME = ["cat"] * 60


def test_mistakes_that_share_a_feature_are_one_group_and_the_others_none():
    features = drawn(60)
    features[:6, :8] += 6.0
    [group], chance = alike_mistakes(features, WRONG, torch.arange(60), SAME)
    assert set(range(6)) <= set(group)
    assert len(group) <= 7
    assert 0 < chance < 1


def test_features_that_right_answers_have_as_well_make_no_group():
    features = drawn(60)
    features[:6, :8] += 6.0
    features[30:50, :8] += 6.0
    assert alike_mistakes(features, WRONG, torch.arange(60), SAME)[0] == []


def test_right_answers_of_another_label_may_have_it_too():
    features, labels = drawn(60), ["cat"] * 40 + ["dog"] * 20
    features[:6, :8] += 6.0
    features[40:, :8] += 6.0  # what makes a dog of a cat
    [group], _ = alike_mistakes(features, WRONG, torch.arange(60), labels)
    assert set(range(6)) <= set(group)
    assert len(group) <= 7


def test_a_group_of_one_scene_is_none():
    features = drawn(60)
    features[:6, :8] += 6.0
    scenes = torch.arange(60)
    scenes[:6] = 0
    assert alike_mistakes(features, WRONG, scenes, SAME)[0] == []


def test_what_has_no_map_is_in_no_group():
    features = drawn(60)
    features[:6, :8] += 6.0
    features[2] = torch.nan
    [group], _ = alike_mistakes(features, WRONG, torch.arange(60), SAME)
    assert {0, 1, 3, 4, 5} <= set(group)
    assert 2 not in group


def test_without_mistakes_or_without_right_answers_there_is_nothing_to_group():
    assert alike_mistakes(drawn(9), torch.zeros(9, dtype=torch.bool), torch.arange(9), SAME[:9])[0] == []
    assert alike_mistakes(drawn(9), torch.ones(9, dtype=torch.bool), torch.arange(9), SAME[:9])[0] == []


def test_random_features_seldom_make_a_group():
    found = [alike_mistakes(drawn(60, seed=seed), WRONG, torch.arange(60), SAME)[0] for seed in range(40)]
    assert sum(bool(groups) for groups in found) <= 10


def test_a_group_is_told_by_its_first_image_and_names_others():
    [one] = mistakes_in_words([[4, 5, 6, 7, 8]], 0.5, [f"{i}.png" for i in range(9)])
    assert one["path"] == "4.png"
    assert "one of 5 mistakes" in one["reason"]
    assert "5.png, 6.png, 7.png ..." in one["reason"]


@pytest.mark.parametrize(("task", "outputs"), [("multiclass", 3), ("binary", 1), ("multilabel", 4), ("regression", 1)])
def test_features_are_what_the_layer_sees_under_the_map_asked_in_batches_and_only_once(tmp_path, task, outputs):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())
    network = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, outputs))
    model = sw.wrap(network, mean=(0, 0, 0), std=(1, 1, 1), size=16, batch_size=4, task=task)
    images = torch.randint(256, (10, 3, 16, 16), dtype=torch.uint8)
    maps = torch.randn(9, 8, 8)
    e = SimpleNamespace(held=SimpleNamespace(images=images), explained=list(range(1, 10)))
    with open_ledger(tmp_path) as ledger:
        found = features_under(model, e, {"grad_cam": maps}, ledger)
        spent = model.forward_rows
        assert torch.equal(features_under(model, e, {"grad_cam": maps}, ledger), found)
    assert model.forward_rows == spent
    with torch.no_grad():
        cells = body(images[1:].float() / 255)
    share = maps.abs() / maps.abs().sum((1, 2), keepdim=True)
    assert torch.allclose(found, (cells * share[:, None]).sum((2, 3)), atol=1e-5)
