"""The trust card: its rows, what is computed once, what is kept in a folder, what does not apply."""

import json

import pytest
import torch

import seewhy as sw
from nets import MEAN, STD, images, tiny_cnn
from seewhy import runfolder
from seewhy.checks import CheckResult, Score, read_result
from seewhy.checks.result import Curve, Null, Verdict
from seewhy.identity import identity
from seewhy.intervals import Interval
from seewhy.ledger import open_ledger
from seewhy.trust import card as module
from seewhy.trust.documentation import FIELDS, documentation


def model(**given):
    return sw.wrap(tiny_cnn(), **{"mean": MEAN, "std": STD, "size": 32, "batch_size": 8, **given})


def test_a_card_has_a_row_per_check_with_its_verdict_in_words_and_json():
    card = sw.check(model(), images(3), "gradient", only=["completeness", "resolution", "documentation"])
    assert [row.check for row in card.rows.values()] == ["completeness", "resolution", "documentation"]
    assert json.loads(json.dumps(card.to_dict(), allow_nan=False))["method"] == "gradient"
    assert "Documentation" in str(card)
    assert card["completeness"].verdict == "no verdict"
    with pytest.raises(KeyError, match="resolution"):
        card["cost"]


def test_the_maps_are_computed_once_for_all_checks(monkeypatch):
    network = model()
    card = sw.check(network, images(3), "gradient", only=["completeness", "resolution"])
    assert network.gradient_rows == 3
    assert (card["completeness"].gradient_rows, card["resolution"].gradient_rows) == (0, 0)


def test_what_is_remembered_is_not_given_for_other_weights():
    network, x = model(), images(2)
    card = module.explain_rows(network, x, [], sw.registry.find_method("gradient"), 1, None, 0, {})
    maps = module.Remembered(sw.bind("gradient"), card[1], card[2], card[3], module.weights_of(network))
    assert maps(network, card[1], card[2]) is card[3]
    assert maps(network, card[1].clone(), card[2]) is not card[3]
    with torch.no_grad():
        network.module.fc.weight.mul_(2)
    assert not torch.equal(maps(network, card[1], card[2]).raw, card[3].raw)


def test_a_second_run_in_the_same_folder_computes_only_what_is_new(tmp_path):
    asked = {"method": "gradient", "out": tmp_path / "run"}
    first = sw.check(model(), images(3), only=["completeness"], **asked)
    network = model()
    again = sw.check(network, images(3), only=["completeness", "resolution"], **asked)
    assert next(iter(again.rows)) == next(iter(first.rows))
    assert again["completeness"].seconds == first["completeness"].seconds
    records = runfolder.read_checks(tmp_path / "run")
    assert [record["check"] for record in records] == ["completeness", "resolution"]
    changed = model()
    with torch.no_grad():
        changed.module.fc.bias.add_(1)
    sw.check(changed, images(3), only=["completeness"], **asked)
    assert len(runfolder.read_checks(tmp_path / "run")) == 3


def test_another_batch_size_is_the_same_card(tmp_path):
    asked = {"method": "gradient", "out": tmp_path / "run", "only": ["completeness"]}
    sw.check(model(batch_size=8), images(3), **asked)
    sw.check(model(batch_size=2), images(3), **asked)  # on a CPU it is timed anew each time
    assert len(runfolder.read_checks(tmp_path / "run")) == 1


def test_a_card_can_be_saved_afterwards_and_has_a_page(tmp_path):
    card = sw.check(model(), images(3), "gradient", only=["completeness", "documentation"])
    page = sw.report(card.save(tmp_path / "run")).read_text()
    assert "Trust card: Gradient" in page
    assert card["documentation"].sentence in page


def test_a_card_that_redraws_the_weights_is_saved_under_the_model_that_was_explained(tmp_path):
    own = model()
    card = sw.check(own, images(3), "gradient", only=["model_randomization"])
    card.save(tmp_path / "run")
    with open_ledger(tmp_path / "run", read_only=True) as ledger:
        assert {record.content["model_sha256"] for record in ledger.read("explanation")} == {own.fingerprint()}


def test_a_check_that_does_not_apply_says_why_in_its_row(monkeypatch):
    def refused(*_args, **_settings):
        raise sw.RefusalError("there is nothing to compare.")

    info = module.CHECKS["completeness"]
    monkeypatch.setitem(
        module.CHECKS, "completeness", type("Info", (), {"function": refused, "title": info.title, "parameters": {}})
    )
    card = sw.check(model(), images(1), "gradient", only="completeness")
    assert card["completeness"].sentence == "It does not apply here: there is nothing to compare."
    assert card["completeness"].verdict == "no verdict"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"only": "completness"}, "did you mean 'completeness'"),
        ({"only": []}, "no check"),
        ({"settings": {"completeness": {"levle": 1}}}, "did you mean 'level'"),
        ({"settings": {"complete": {}}}, "did you mean 'completeness'"),
        ({"method": "grad"}, "did you mean"),
    ],
)
def test_what_cannot_be_meant_is_told_before_any_work(given, said):
    network = model()
    with pytest.raises(sw.UsageError, match=said):
        sw.check(network, images(1), **given)
    assert network.forward_rows == network.gradient_rows == 0


def test_a_result_is_read_back_as_it_was_written():
    nan = float("nan")
    score = Score("s", Interval(1, 0, 2, 3, 3), (1.0, nan), "higher", "u", {"edge_map": Interval(nan, nan, nan, 0, 0)})
    curve = Curve("c", "x", (0.5, "end"), "y", (Interval(1, nan, nan, 1, 1), Interval(2, 1, 3, 2, 2)), control=True)
    null = Null(0.1, -1, nan, 7, "pairs")
    result = CheckResult(
        "completeness", (score, score), Verdict.UNCLEAR, "So.", (curve,), {3: "zero"}, {"a": [1]}, {"b": 2}
    )
    with_null = CheckResult(
        "completeness", (Score("n", score.interval, (), "lower", "u", {}, null),), Verdict.PASS, "So."
    )
    for found in (result, with_null):
        assert read_result(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()


def test_a_record_is_documented_by_the_fields_that_are_filled():
    e = sw.explain(model(), images(2), "gradient")
    records = [record for record, _, _ in e.rows()]
    found = documentation(records, needs_layer=False)
    assert found.details["fields"]["its score"] == 2
    assert "SHA-256 of the image file (2 of 2)" in found.sentence  # a tensor came without a file
    assert len(found.details["fields"]) == len(FIELDS) - 1


def test_the_identity_of_a_call_depends_on_the_content_of_tensors_and_on_nothing_else():
    a, b = torch.arange(4.0), torch.arange(4.0)
    assert identity([a, {"x": 1}]) == identity([b, {"x": 1}])
    assert identity([a]) != identity([a + 1])
    assert identity([a]) != identity([a.reshape(2, 2)])
    assert identity([len]) != identity([max])
    assert identity([a.numpy()]) != identity([(a + 1).numpy()])


def test_a_bound_method_is_told_from_another_and_what_it_remembers_is_no_part_of_it():
    network, x = model(), images(2)
    assert identity(sw.bind("gradient")) != identity(sw.bind("gradient", channels="l2"))
    _, rows, question, found = module.explain_rows(network, x, [], sw.registry.find_method("gradient"), 1, None, 0, {})
    kept = [
        module.Remembered(sw.bind("gradient"), *part, ()) for part in ((rows, question, found), (x, question, found))
    ]
    assert identity(kept[0]) == identity(kept[1])
