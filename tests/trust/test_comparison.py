"""Methods side by side: a card each, what is left out and why, how far the numbers agree on an order."""

import pytest

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn, tiny_vit
from seewhy.checks import CheckResult, Score, Verdict
from seewhy.intervals import Interval
from seewhy.trust import comparison as module

QUICK = ("resolution", "completeness")


@pytest.fixture(autouse=True)
def few_checks(monkeypatch):
    monkeypatch.setattr(module, "COMPARED", QUICK)


def model(net=None):
    return sw.wrap(net or tiny_cnn(), mean=MEAN, std=STD, size=32, batch_size=8)


def test_every_method_has_a_card_and_what_the_network_refuses_is_listed_with_the_reason():
    found = sw.compare(model(tiny_vit()), images(2), ["gradient", "guided_backprop", "edge_map"])
    assert [card.about["method"] for card in found.cards] == ["gradient", "edge_map"]
    assert "ReLU" in found.left_out["guided_backprop"]
    assert "Fewer than three methods" in found.sentence


def test_a_method_above_the_budget_is_left_out_with_the_forecast(monkeypatch):
    monkeypatch.setattr(module, "seconds_per_row", lambda *_, gradient: 0.03 if gradient else 0.01)
    found = sw.compare(model(), images(1), ["gradient", "rise"], budget=0.5)
    assert [card.about["method"] for card in found.cards] == ["gradient"]
    assert found.left_out["rise"] == (
        "a map takes about 40 s (at most 4001 forward and 0 gradient rows), the budget is 0.5 s"
    )


def test_parameters_go_to_their_method():
    found = sw.compare(model(), images(1), ["gradient", "smooth_grad"], params={"smooth_grad": {"samples": 3}})
    assert found.cards[1].about["parameters"]["samples"] == 3


def test_wrong_labels_stop_the_comparison_before_any_map():
    network = model()
    wrong = [(int(k) + 1) % 5 for k in network.predict(images(4)).argmax(1)]
    with pytest.raises(sw.RefusalError, match="Labels or normalization"):
        sw.compare(network, images(4), ["gradient"], labels=wrong)
    assert network.gradient_rows == 0


@pytest.mark.parametrize("given", [{"methods": []}, {"methods": ["grad"]}, {"budget": 0}, {"budget": "2s"}])
def test_what_cannot_be_meant_is_told_before_any_work(given):
    with pytest.raises(sw.UsageError):
        sw.compare(model(), images(1), **given)


def test_two_numbers_that_put_the_methods_in_opposite_orders_are_named():
    def card(method, good, bad):
        scores = tuple(
            Score(name, Interval(value, 0, 1, 9, 9), (), direction, "")
            for name, value, direction in (("a", good, "higher"), ("b", good, "lower"), ("c", bad, "neither"))
        )
        row = CheckResult("faithfulness", scores, Verdict.NONE, "")
        return module.TrustCard({"method": method}, {"key": row}, None, 0.0)

    cards = tuple(card(str(i), i, 0) for i in range(4))
    found = module.Comparison(cards, {}, module._disagreement(cards), None)
    assert found.disagreement == {"a / b": -1.0}
    assert "no one winner" in found.sentence
    assert "a / b (Kendall correlation -1.00)" in found.sentence
