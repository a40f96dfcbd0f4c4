import json
import re
import shlex

import pytest
import recorded
from audited import MARK, finding
from recorded import audited, checked, explained, network
from typer.main import get_command

from seewhy.errors import SeewhyError, UsageError
from seewhy.faces import cli, compliance_evidence, compliance_page
from seewhy.faces.audit_pdf import Paper
from seewhy.faces.compliance import compliance_record
from seewhy.faces.compliance_page import contents, write_compliance
from seewhy.ledger import CONTENTS, open_ledger
from seewhy.methods.path import PRESETS
from seewhy.registry import METHODS

IG = ("integrated_gradients", {"rule": "midpoint", "steps": 8})
OCCLUSION = ("occlusion", {"patch": 16})
EVIL = "<script>alert('x')</script>\"&"
CLAIMS = r"\b(complian(?!ce)\w*|certif\w*|satisf\w*|guarant\w*|prove[sd]?|proof|conform\w*|approved)\b"


def page_of(folder, **asked):
    path, _ = write_compliance(folder, **asked)
    return path.read_text("utf-8")


def with_gap(relative, **more):
    def change(content):
        content["evidence"] |= {"completeness_gap_relative": relative, **more}

    return change


def commands(record):
    """Every command that the record names."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            found.extend([value["command"]] if value.get("command") else [])
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(record)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One image explained by three methods, and the checks that belong to a record."""
    folder = tmp_path_factory.mktemp("whole")
    explained(folder, IG, "grad_cam", OCCLUSION, names=("a.png",), model_version="v3")
    return checked(folder, *("integrated_gradients", "model_randomization", "agreement", "faithfulness"), **IG[1])


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Three images explained by one method, and nothing else."""
    return explained(tmp_path_factory.mktemp("bare"), "grad_cam")


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    return audited(tmp_path_factory.mktemp("audit"))


# -- a decision ----------------------------------------------------------------------------------------------------------


def test_a_decision_is_identified_by_model_version_image_and_answer(whole):
    record, page = compliance_record(whole), page_of(whole)
    with open_ledger(whole, read_only=True) as ledger:
        content, last = ledger.read("explanation")[0].content, ledger.read()[-1]
    assert record["kind"] == "decision"
    for said in (
        network().fingerprint(),
        "v3",
        content["image_sha256"],
        content["pixels_sha256"],
        content["target"]["text"],
        last.hash,
    ):
        assert said in page
    assert record["answers"][0]["score"] == content["score"]
    assert (record["ledger"]["number"], record["ledger"]["hash"]) == (last.number, last.hash)


def test_the_method_stands_with_what_it_is_for_its_baseline_with_the_reason_and_its_steps(whole):
    path = compliance_record(whole)["methods"][0]
    assert path["good_for"] == METHODS["integrated_gradients"].good_for
    assert path["baseline"]["what"] == "black"
    assert "the absence of light" in path["baseline"]["why"]
    assert path["steps"][0] == "8 steps, rule midpoint"
    assert "8 gradient row(s)" in path["steps"][1]
    assert "compares with no other picture" in page_of(whole)  # Grad-CAM


def test_a_reason_for_the_baseline_that_the_user_gave_is_the_reason(tmp_path):
    explained(tmp_path, (IG[0], {**IG[1], "baseline_reason": "scans lie on black felt"}), names=("a.png",))
    assert "scans lie on black felt" in page_of(tmp_path)


def test_checks_stand_with_verdict_n_and_sentence(whole):
    record, page = compliance_record(whole), page_of(whole)
    [random], [agreed], [faithful] = (
        record[name][key]
        for name, key in (("randomization", "results"), ("agreement", "results"), ("behavior", "checks"))
    )
    for found in (random, agreed, faithful):
        assert (found["n"], found["same_settings"]) == (3, True)
        assert found["sentence"].replace("'", "&#39;") in page
    assert "Measured with other settings" not in page
    assert not record["randomization"]["missing"] + record["agreement"]["missing"] + record["behavior"]["missing"]


def test_a_check_with_other_settings_says_so_and_one_of_another_model_or_method_is_not_taken(tmp_path):
    explained(tmp_path, IG, names=("a.png",))
    checked(tmp_path, "integrated_gradients", "completeness", "cost", rule="midpoint", steps=4)
    checked(tmp_path, "gradient", "agreement")
    checked(tmp_path, IG[0], "agreement", model=network(seed=5), **IG[1])
    record = compliance_record(tmp_path)
    assert record["agreement"]["results"] == []
    assert len(record["agreement"]["missing"]) == 1
    checked(tmp_path, "integrated_gradients", "agreement", rule="midpoint", steps=4)
    assert compliance_record(tmp_path)["agreement"]["results"][0]["same_settings"] is False
    assert "Measured with other settings of the method than these maps" in page_of(tmp_path)


def test_other_methods_of_the_same_image_stand_beside_the_one_that_was_asked_for(tmp_path):
    explained(tmp_path, "grad_cam", OCCLUSION)
    record = compliance_record(tmp_path, decision=5)  # occlusion of the second image
    assert [(one["number"], one["method"]) for one in record["ledger"]["decisions"]] == [
        (5, "occlusion"),
        (2, "grad_cam"),
    ]
    assert {one["image"] for one in record["data"]["images"]} == {"b.png"}
    assert record["ledger"]["replay"].endswith(" 5")


def test_an_image_that_another_call_named_from_another_root_is_the_same_image(tmp_path):
    explained(tmp_path, "grad_cam", names=("a.png",))
    explained(tmp_path, OCCLUSION, names=("a.png",), change=lambda content: content.update(image="photos/a.png"))
    record = compliance_record(tmp_path)
    assert (record["kind"], record["title"]) == ("decision", "one decision on a.png")
    assert [one["image"] for one in record["data"]["images"]] == ["a.png"]


def test_the_same_map_recorded_again_is_one_explanation(tmp_path):
    explained(tmp_path, IG, names=("a.png",))
    with open_ledger(tmp_path) as ledger:
        content = ledger.read()[0].content
        ledger.append("explanation", "again", {**content, "model_version": "v4"})
        other = {**content, "map": {**content["map"], "sha256": "0" * 64}}
        ledger.append("explanation", "on another machine", other)
    record = compliance_record(tmp_path)
    assert [one["number"] for one in record["ledger"]["decisions"]] == [1, 3]
    assert record["completeness"]["n"] == record["methods"][0]["n"] == 2
    assert record["model"]["version"] == "v4"


def test_without_a_name_every_decision_is_in_the_record_and_controls_are_not(tmp_path):
    explained(tmp_path, "grad_cam", "random_map")
    record = compliance_record(tmp_path)
    assert record["kind"] == "decisions"
    assert [one["record"] for one in record["answers"]] == [1, 2, 3]
    assert [one["method"] for one in record["methods"]] == ["grad_cam"]


def test_a_map_that_there_is_not_is_counted_with_its_reason(tmp_path):
    explained(tmp_path, IG, names=("a.png",), change=lambda c: c.update(status="zero_gradient"))
    record = compliance_record(tmp_path)
    assert record["methods"][0]["without_map"] == {"zero_gradient": 1}
    assert "1 explanations have no map: zero_gradient." in record["limits"]


# -- completeness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relative", "result", "shown"),
    [(0.009996, "met", "0.9996 %"), (0.01, "not met", "1 %"), (0.010004, "not met", "1 %"), (0.3, "not met", "30 %")],
)
def test_each_decision_is_held_against_the_level(tmp_path, relative, result, shown):
    explained(tmp_path, IG, names=("a.png",), change=with_gap(relative))
    found = compliance_record(tmp_path)["completeness"]
    assert found["level"] == 0.01
    assert (found["decisions"][0]["result"], found["n"], found["n_met"]) == (result, 1, result == "met")
    page = page_of(tmp_path)
    assert f"<td>{shown}</td>" in page
    assert f"<td>{result}</td>" in page
    assert "taken from no law or standard" in page


def test_a_score_that_does_not_change_has_no_relative_error_and_is_not_counted_as_met(tmp_path):
    explained(tmp_path, IG, names=("a.png",), change=with_gap(None, completeness_gap=0.2))
    found = compliance_record(tmp_path)["completeness"]
    assert (found["n"], found["n_met"]) == (0, 0)
    assert "undefined" in found["decisions"][0]["result"]
    assert "integrated_gradients" in found["missing"][0]["command"]


def test_the_worst_come_first_and_a_long_table_is_cut_in_words(tmp_path, monkeypatch):
    errors = iter([0.001, 0.5, 0.02])
    explained(tmp_path, IG, change=lambda c: with_gap(next(errors))(c))
    monkeypatch.setattr(compliance_page, "LISTED", 2)
    rows = compliance_record(tmp_path)["completeness"]["decisions"]
    assert [row["relative"] for row in rows] == [0.5, 0.02, 0.001]
    page = page_of(tmp_path)
    assert "2 of 3 explanations, the worst of them here; all stand in the .json file" in page
    assert "0.1 %" not in page
    assert len(json.loads((tmp_path / "compliance.json").read_text())["completeness"]["decisions"]) == 3


# -- what is missing -----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_the_command_that_makes_it(bare):
    record, page = compliance_record(bare), page_of(bare)
    folder = shlex.quote(str(bare))
    assert commands(record) == [
        f'seewhy report {folder} --compliance --purpose "..."',
        f"seewhy explain IMAGES --model MODEL --method grad_cam --model-version VERSION --out {folder}",
        f"seewhy explain IMAGES --model MODEL --method integrated_gradients --param preset=compliance --out {folder}",
        f"seewhy check IMAGES --model MODEL --method grad_cam --only model_randomization --out {folder}",
        f"seewhy check IMAGES --model MODEL --method grad_cam --only agreement --out {folder}",
        f"seewhy explain IMAGES --model MODEL --method occlusion --out {folder}",
        f"seewhy check IMAGES --model MODEL --method grad_cam --only faithfulness --out {folder}",
        f"seewhy check IMAGES --model MODEL --method grad_cam --only class_discrimination --only resolution --only cost "
        f"--only stability --out {folder}",
        f"seewhy audit DATA --model MODEL --out {folder}-audit",
    ]
    assert page.count("<code>seewhy ") == len(commands(record))
    assert page.count("<dd>not measured</dd>") == 4  # in short


def test_every_command_that_a_record_names_exists_with_these_options(bare, whole, audit):
    known = get_command(cli.app)
    for line in [one for folder in (bare, whole, audit) for one in commands(compliance_record(folder))]:
        _, name, *words = shlex.split(line)
        options = {option for parameter in known.commands[name].params for option in parameter.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= options, line


def test_a_purpose_is_printed_and_without_one_there_are_lines_to_write_on(bare):
    said = "Triage of chest films in two wards"
    assert said in page_of(bare, purpose=f"  {said} ")
    assert "What is the model used for" not in page_of(bare, purpose=said)
    assert page_of(bare, purpose="  ").count('<p class="sw-write"></p>') == 3


def test_every_sign_off_field_is_empty_and_printable(bare):
    assert compliance_record(bare)["sign_off"] == {"name": "", "role": "", "date": "", "signature": ""}
    assert page_of(bare).count('<p class="sw-write"><span>') == 4


def test_the_wording_claims_nothing_that_was_not_measured(bare, whole, audit):
    for folder in (bare, whole, audit):
        assert not re.findall(CLAIMS, page_of(folder, purpose="a test"), re.IGNORECASE)


def test_what_a_method_declares_of_itself_claims_nothing_either():
    for info in [one for one in METHODS.values() if one.family != "control"]:  # of which there is no record
        words = f"{info.summary} {info.good_for} {info.not_for} {info.randomization} {info.warning}"
        assert not re.findall(CLAIMS, words, re.IGNORECASE), info.name


# -- black under a modality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "baseline", "flagged"),
    [
        ({}, "black", None),
        ({"image": "scans/1.DCM"}, "black", "The images are DICOM"),
        ({"modality": "CT"}, "black", "The images are CT"),
        ({"modality": "CT"}, "blur", None),
        ({"modality": "CT"}, ["white", "black"], "The images are CT"),
    ],
)
def test_a_black_baseline_is_flagged_where_black_is_a_measured_value(tmp_path, change, baseline, flagged):
    given = (IG[0], {**IG[1], "baseline": baseline})
    explained(tmp_path, given, names=("a.png",), change=lambda content: content.update(change))
    warning = compliance_record(tmp_path)["methods"][0]["baseline"]["warning"]
    assert (warning is None) == (flagged is None)
    if flagged:
        assert warning.startswith(flagged)
        assert "--param baseline=blur" in warning
        assert flagged in page_of(tmp_path)


# -- a data set ----------------------------------------------------------------------------------------------------------


def test_a_data_set_stands_with_verdict_counts_and_what_was_tried(audit):
    record, page = compliance_record(audit), page_of(audit)
    assert record["kind"] == "data set"
    assert (record["data"]["predicted"], record["data"]["labelled"], record["data"]["right"]) == (40, 40, 36)
    for said in (
        "36 of 40",
        "d4" * 32,
        "not their pixels",
        "accuracy 0.9 [0.77, 0.96] (n = 40)",
        "blocked",
        "ab" * 32,
        "the file ends too early",
        "3 patterns confirmed, 2 patterns refuted",
        "raises coat by 1.92 logits [1.71, 2.13]",
        "smallest effect that would have shown: 0.31 (logit), n = 24",
        "none could be seen: too few images, n = 3",
        "no candidate of this kind was found",
        "Marks smaller than about a thirtieth",
    ):
        assert said in page
    assert page.index("raises coat by 1.92") < page.index("A small dark button was found")
    assert [one["n"] for one in record["behavior"]["findings"]] == [24] * 5


def test_an_audit_that_was_not_finished_says_so(tmp_path):
    audited(tmp_path, "grad_cam", finished=False)
    page = page_of(tmp_path)
    assert "the audit was not finished" in page
    assert "seewhy audit DATA --model MODEL" in page


def test_only_the_findings_of_the_last_verdict_are_in_the_record(tmp_path):
    audited(tmp_path, "grad_cam")
    with open_ledger(tmp_path) as ledger:
        newer = ledger.append("finding", "newer", finding(MARK, "place", "refuted", "Another sentence."))
        ledger.append("verdict", "newer", {**recorded.VERDICT, "verdict": "pass", "findings": [newer.key]})
    record = compliance_record(tmp_path)
    assert record["audit"]["verdict"] == "pass"
    assert [one["sentence"] for one in record["behavior"]["findings"]] == ["Another sentence."]


def test_answers_that_are_no_classes_are_not_counted_and_have_no_set_up_check(audit):
    record = compliance_record(audit)
    facts = dict(
        contents({**record, "data": {**record["data"], "labelled": 0, "right": 0, "setup": None}})["sections"][3][
            "facts"
        ]
    )
    assert facts["answers as labelled"] == "not counted: no answer is a class"
    assert facts["set-up check"] == "none: it asks networks that give one class per image"


def test_an_accepted_finding_says_by_whom_and_until_when(tmp_path):
    accepted = {"name": "A. Person", "until": "2099-01-31", "reason": "every depot scans so"}
    audited(tmp_path, "grad_cam", finds=[finding(MARK, "place", "confirmed", "It does.", accepted=accepted)])
    assert "Accepted by A. Person until 2099-01-31: every depot scans so." in page_of(tmp_path)


def test_one_decision_of_an_audit(audit):
    record = compliance_record(audit, decision="1")
    assert (record["kind"], record["audit"], record["title"]) == ("decision", None, "one decision on a.png")


# -- what cannot be meant ------------------------------------------------------------------------------------------------


def test_a_decision_is_found_by_its_number_and_by_the_beginning_of_its_key(bare):
    with open_ledger(bare, read_only=True) as ledger:
        second = ledger.read("explanation")[1]
    for decision in (2, "2", second.key, second.key[:12]):
        assert compliance_record(bare, decision=decision)["ledger"]["decisions"][0]["key"] == second.key


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ("99", r"no explanations of .* have the number or the key '99'. Explanations: 1 \(a.png, grad_cam\), 2"),
        ("", "no explanations"),
        (7, "record 7 of .* is of kind run, no explanation"),
    ],
)
def test_a_decision_that_there_is_not(audit, decision, said):
    with pytest.raises(UsageError, match=said):
        compliance_record(audit, decision=decision)


def test_a_map_that_knows_nothing_of_the_network_is_no_decision(tmp_path):
    explained(tmp_path, "random_map", names=("a.png",))
    with pytest.raises(UsageError, match=r"record 1 of .* is a map of random_map, which knows nothing of the network"):
        compliance_record(tmp_path, decision=1)


def test_the_beginning_of_two_keys_is_no_decision(tmp_path):
    explained(tmp_path, "grad_cam", names=("a.png",))
    with open_ledger(tmp_path) as ledger:
        content = ledger.read()[0].content
        for key in ("same-1", "same-2"):
            ledger.append("explanation", key, content)
    with pytest.raises(UsageError, match=r"2 explanations of .* have the number or the key 'same'"):
        compliance_record(tmp_path, decision="same")


def test_a_ledger_of_two_models_or_two_data_sets_is_refused(tmp_path):
    explained(tmp_path / "", "grad_cam", names=("a.png",))
    explained(tmp_path, "gradient", names=("a.png",), change=lambda content: content.update(model_sha256="0" * 64))
    with pytest.raises(UsageError, match=r"holds 2 models; a compliance record is of one. Name a decision"):
        compliance_record(tmp_path)
    assert compliance_record(tmp_path, decision=1)["model"]["sha256"] == network().fingerprint()
    (tmp_path / "audit").mkdir()
    audited(tmp_path / "audit", "grad_cam")
    with open_ledger(tmp_path / "audit") as ledger:
        run = ledger.read("run")[0].content
        ledger.append("run", "other", {**run, "data": "e5" * 32})
    with pytest.raises(UsageError, match=r"holds 2 data sets; .* Audit each into a folder of its own"):
        compliance_record(tmp_path / "audit")


def test_a_folder_without_a_ledger_and_a_ledger_without_an_explanation(tmp_path):
    with pytest.raises(UsageError, match="holds no ledger"):
        compliance_record(tmp_path)
    explained(tmp_path, "random_map")
    with pytest.raises(UsageError, match=r"3 records and no explanation by a method: seewhy explain IMAGES"):
        compliance_record(tmp_path)


def test_a_record_that_lacks_what_every_one_has_is_named(tmp_path):
    explained(tmp_path, "grad_cam", names=("a.png",), change=lambda content: content.pop("evidence"))
    with pytest.raises(SeewhyError, match=r"lacks what every one has .KeyError: 'evidence'"):
        compliance_record(tmp_path)


# -- the files -----------------------------------------------------------------------------------------------------------


def test_it_reads_the_ledger_and_nothing_else_and_leaves_it_as_it_is(tmp_path):
    explained(tmp_path, "grad_cam", names=("a.png",))
    for path in [*tmp_path.glob("*.png"), *(tmp_path / "maps").iterdir()]:
        path.unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    page = write_compliance(tmp_path)[0].read_bytes()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert write_compliance(tmp_path)[0].read_bytes() == page
    new = {path.name for path in tmp_path.iterdir() if path.is_file()} - set(before)
    assert {name for name in new if not name.startswith("ledger.sqlite")} == {"compliance.html", "compliance.json"}


def test_what_is_written_in_a_name_is_shown_and_never_run(tmp_path):
    explained(
        tmp_path, "grad_cam", names=("a.png",), model_version=EVIL, change=lambda c: c.update(image=EVIL, notes=[EVIL])
    )
    page = page_of(tmp_path, purpose=EVIL)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert not re.findall(r"https?://|@import|<link|url\((?!#sw-)|\son\w+=\"", page)
    assert write_compliance(tmp_path, purpose=EVIL, pdf=True)[0].read_bytes().startswith(b"%PDF")


def test_the_pdf_says_all_that_the_page_says(audit, monkeypatch):
    said = []
    plain = Paper.plain
    monkeypatch.setattr(Paper, "plain", lambda self, text: said.append(str(text)) or plain(self, text))
    path, record = write_compliance(audit, pdf=True)
    assert path.name == "compliance.pdf"
    wanted = []
    for one in contents(record)["sections"]:
        wanted += [one["title"], one["lead"], *one["head"], *(cell for row in one["rows"] for cell in row)]
        wanted += [*(text for fact in one["facts"] for text in fact), *one["notes"]]
        wanted += [text for lack in one["missing"] for text in lack.values()]
    everything = "\n".join(said)
    assert [text for text in wanted if text not in everything] == []


def test_page_pdf_and_json_are_made_from_one_record(whole):
    path, record = write_compliance(whole, purpose="a test")
    assert json.loads(path.with_suffix(".json").read_text("utf-8")) == record
    assert record["schema"] == 1
    assert record["purpose"]["text"] == "a test"


def test_the_command_writes_page_json_and_pdf(seewhy, tmp_path):
    explained(tmp_path, "grad_cam")
    code, out, _ = seewhy("report", tmp_path, "--compliance", "--purpose", "sorting parcels")
    assert (code, out.strip()) == (0, str(tmp_path / "compliance.html"))
    assert "sorting parcels" in (tmp_path / "compliance.html").read_text()
    code, out, _ = seewhy("report", tmp_path, "--compliance", "--decision", "2", "--json")
    found = json.loads(out)
    assert (code, found["kind"], found["page"]) == (0, "decision", str(tmp_path / "compliance-2.html"))
    code, out, _ = seewhy("report", tmp_path, "--compliance", "--pdf")
    assert (code, out.strip()) == (0, str(tmp_path / "compliance.pdf"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--purpose", "x"], "--decision and --purpose belong to --compliance"),
        (["--decision", "1"], "--decision and --purpose belong to --compliance"),
        (["--compliance", "--no-pictures"], "a compliance record has no pictures"),
        (["--compliance", "--decision", "77"], "have the number or the key '77'"),
    ],
)
def test_options_that_cannot_be_meant(seewhy, tmp_path, options, said):
    explained(tmp_path, "grad_cam", names=("a.png",))
    code, out, err = seewhy("report", tmp_path, *options)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())


def test_an_erased_map_is_said(tmp_path, monkeypatch):
    explained(tmp_path, "grad_cam", names=("a.png",))
    with open_ledger(tmp_path) as ledger:
        name = ledger.read()[0].content["map"]["file"]
        monkeypatch.setitem(CONTENTS, "erasure", {"*": "what was erased"})
        ledger.append("erasure", name, {"file": name, "reason": "asked by the patient", "by": "A. Person"})
    assert f"Erased on request: {name} (asked by the patient, by A. Person)." in page_of(tmp_path)


def test_the_level_is_the_one_that_the_preset_works_towards():
    assert PRESETS["compliance"].tolerance == compliance_evidence.LEVEL == 0.01
