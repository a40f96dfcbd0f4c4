"""seewhy check and seewhy compare as a user calls them."""

import json
import shutil

import pytest
from PIL import Image
from zoo import TINY, cat

from seewhy.faces.cli import check as command

QUICK = ("--only", "completeness", "--only", "resolution", "--only", "documentation")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(3):
        cat().rotate(90 * k).save(folder / f"{k}.png")
    return folder


def test_check_prints_a_row_per_check_and_the_page(seewhy, tmp_path, photos):
    code, out, err = seewhy("check", "photos", *TINY, *QUICK, "--out", "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "run" / "index.html")
    assert [line.split("  ")[0] for line in out.splitlines()[1:-1] if line[0] != " "] == [
        "Completeness",
        "Resolution",
        "Documentation",
    ]
    page = (tmp_path / "run" / "index.html").read_text()
    assert page.count('<article class="sw-check">') == 3
    assert page.count('<figure class="sw-card">') == 3
    assert seewhy("report", "run")[0] == 0
    assert (tmp_path / "run" / "index.html").read_text() == page


def test_check_as_json_has_every_number_with_its_n_and_interval(seewhy, photos):
    code, out, _ = seewhy("check", "photos", *TINY, "--only", "stability", "--set", "stability.samples=1", "--json")
    assert code == 0
    (row,) = json.loads(out)["checks"]
    assert row["settings"]["samples"] == 1
    assert row["verdict"] in ("pass", "fail", "unclear", "no verdict")
    for score in row["scores"]:
        assert {"value", "low", "high", "n", "direction", "unit", "controls", "null", "per_image"} <= score.keys()


def test_the_checks_can_be_listed(seewhy):
    _, out, _ = seewhy("check", "--list")
    assert "model_randomization" in out
    names = [row["name"] for row in json.loads(seewhy("check", "--list", "--json")[1])]
    assert names[:6] == [
        "model_randomization",
        "class_discrimination",
        "completeness",
        "resolution",
        "cost",
        "stability",
    ]


def test_a_broken_image_is_listed_and_the_others_are_checked(seewhy, tmp_path, photos):
    (photos / "torn.png").write_bytes((photos / "0.png").read_bytes()[:200])
    code, out, err = seewhy("check", "photos", *TINY, *QUICK, "--json", "--out", "run")
    assert code == 3
    assert "torn.png" in err
    assert "torn.png" in json.loads(out)["skipped"][0]["path"]
    assert len(json.loads(out)["images"]) == 3
    assert seewhy("check", "photos", *TINY, *QUICK, "--max-skipped", "1")[0] == 0


def test_labels_that_look_wrong_stop_before_any_map(seewhy, tmp_path, photos):
    (tmp_path / "truth.csv").write_text("file,label\n0.png,1\n1.png,2\n2.png,3\n")
    wrong = ("check", "photos", *TINY, *QUICK, "--truth", "truth.csv", "--out", "run")
    code, out, err = seewhy(*wrong)
    assert (code, out) == (2, "")
    assert "Labels or normalization look wrong" in err
    assert not (tmp_path / "run" / "rows.jsonl").exists()
    code, out, _ = seewhy(*wrong, "--anyway")
    assert code == 0
    assert "Labels or normalization look wrong" in out
    assert "look wrong" in (tmp_path / "run" / "index.html").read_text()


def test_an_interrupted_check_keeps_its_rows_and_goes_on(seewhy, tmp_path, photos, monkeypatch):
    from seewhy.trust import card

    once = card._row

    def interrupted(model, name, *rest):
        if name == "resolution":
            raise KeyboardInterrupt
        return once(model, name, *rest)

    monkeypatch.setattr(card, "_row", interrupted)
    code, out, err = seewhy("check", "photos", *TINY, *QUICK, "--out", "run")
    assert (code, out) == (130, "")
    assert "goes on with the next one" in err
    assert len((tmp_path / "run" / "checks.jsonl").read_text().splitlines()) == 1
    asked = []
    monkeypatch.setattr(card, "_row", lambda model, name, *rest: asked.append(name) or once(model, name, *rest))
    assert seewhy("check", "photos", *TINY, *QUICK, "--out", "run")[0] == 0
    assert asked == ["resolution", "documentation"]


def test_dry_run_says_rows_and_minutes_and_writes_nothing(seewhy, tmp_path, photos):
    code, out, _ = seewhy("check", "photos", *TINY, "--dry-run", "--out", "run")
    assert code == 0
    assert "gradient rows" in out
    code, out, _ = seewhy("check", "photos", *TINY, "--only", "stability", "--dry-run", "--json")
    assert json.loads(out)["gradient_rows"] == 3 * (1 + 5 + 4)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "stabilty"), "did you mean 'stability'"),
        (("--set", "stability.sample=3"), "did you mean 'samples'"),
        (("--set", "steps=3"), "CHECK.NAME=VALUE"),
        (("--set", "stable.samples=3"), "stability"),
        (("--method", "grad_cm"), "did you mean 'grad_cam'"),
        (("--truth", "none.csv"), "no such table"),
        (("--only", "roar"), "needs train_images"),
        (("--only", "roar", "--training", "photos"), "--truth"),
        (("--only", "shape_bias"), "named shape-texture"),
    ],
)
def test_what_cannot_be_meant_is_one_line_before_any_map(seewhy, tmp_path, photos, arguments, said):
    code, out, err = seewhy("check", "photos", *TINY, *arguments, "--out", "run")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "rows.jsonl").exists()


def test_no_image_is_a_usage_error(seewhy):
    code, _, err = seewhy("check", *TINY)
    assert code == 2
    assert "no image was given" in err


def test_shape_bias_reads_its_cues_from_file_names(seewhy, tmp_path):
    (tmp_path / "cues").mkdir()
    for name in ("cat1-dog2", "dog1-cat2", "bird1-bird2"):
        Image.new("RGB", (40, 40), "gray").save(tmp_path / "cues" / f"{name}.png")
    code, out, err = seewhy("check", "cues", *TINY, "--only", "shape_bias", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["checks"]
    assert row["check"] == "shape_bias"
    assert row["settings"]["textures"] == ["bird", "dog", "cat"]


def test_roar_trains_on_a_folder_and_goes_on_where_it_stopped(seewhy, tmp_path, photos):
    for k in range(12):
        folder = tmp_path / "training" / str(k % 2)
        folder.mkdir(parents=True, exist_ok=True)
        cat().resize((40, 40)).rotate(17 * k).save(folder / f"{k}.png")
    (tmp_path / "truth.csv").write_text("file,label\n0.png,0\n1.png,1\n2.png,1\n")
    data = ("--training", "training", "--truth", "truth.csv", "--anyway")
    small = ("--size", "32", "--set", "roar.runs=1", "--set", "roar.fractions=[0.5]", "--set", "roar.mask_alone=false")
    asked = (
        "check",
        "photos",
        *TINY,
        "--method",
        "gradient",
        "--only",
        "roar",
        *data,
        *small,
        "--json",
        "--out",
        "run",
    )
    code, _, err = seewhy(*asked)
    assert code == 0, err
    assert "ROAR: 4 trainings" in err
    first = (tmp_path / "run" / "trainings" / "trainings.jsonl").read_text()
    (tmp_path / "run" / "checks.jsonl").unlink()
    assert seewhy(*asked)[0] == 0
    assert (tmp_path / "run" / "trainings" / "trainings.jsonl").read_text() == first
    shutil.rmtree(tmp_path / "run")


def test_compare_prints_the_table_of_methods_and_what_was_left_out(seewhy, tmp_path, photos):
    few = ("--set", "faithfulness.steps=2", "--set", "model_randomization.networks=1", "--set", "cost.repeats=1")
    methods = ("--method", "grad_cam", "--method", "edge_map", "--method", "attention_rollout")
    code, out, err = seewhy("compare", "photos", *TINY, *methods, *few, "--out", "run")
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith(("Grad-CAM", "Edge map"))]
    assert len(lines) == 2
    assert "left out: attention_rollout" in err
    assert out.splitlines()[-1] == str(tmp_path / "run" / "index.html")
    page = (tmp_path / "run" / "index.html").read_text()
    assert "The methods, measured on this model" in page
    assert page.count("Trust card:") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget", "soon"), "number of seconds"),
        (("--param", "samples=3"), "METHOD.NAME=VALUE"),
        (("--param", "rise.sample=3"), "did you mean 'samples'"),
        (("--method", "grad_cm"), "did you mean"),
    ],
)
def test_compare_with_what_cannot_be_meant(seewhy, photos, arguments, said):
    code, out, err = seewhy("compare", "photos", *TINY, *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_all_asks_for_every_order_and_protocol():
    settings = command.check_settings(["faithfulness.steps=3"], [], everything=True)
    assert settings["model_randomization"]["order"] == ("cascading", "independent", "bottom_up")
    assert settings["faithfulness"]["steps"] == 3
    assert "road" in settings["faithfulness"]["protocols"]


LOCALIZE = ("check", "photos", *TINY, "--only", "localization", "--method", "gradient", "--out", "run")


def test_maps_are_held_against_boxes_from_files_a_finding_a_line(seewhy, tmp_path, photos):
    rows = ("0.png,1,0,0,80,50,A", "1.png,1,0,10,80,60,A", "2.png,1,0,0,40,60,B", "2.png,2,0,0,40,60,B")
    unused = ("9.png,1,0,0,4,4,C", "0.png,1,500,500,600,600,A")
    (tmp_path / "ann.csv").write_text("\n".join(["file,label,x0,y0,x1,y1,who", *rows, *unused]))
    (tmp_path / "bob.csv").write_text("file;label;x0;y0;x1;y1;who\n0.png;1;0;0;40;50;A\n1.png;;;;;;A\n")
    code, out, err = seewhy(*LOCALIZE, "--boxes", "ann.csv", "--boxes", "bob.csv", "--clusters", "who")
    assert code == 0, err
    assert "goldfish           3 of 2 patients" in out
    assert "great white shark  1 " in out
    assert "goldfish, iou at 0.50 with bob: " in out
    assert "outside of the photo" in err
    assert "not among those given: 1" in err
    page = (tmp_path / "run" / "index.html").read_text()
    assert "explained: logit of 1 goldfish" in page
    assert "Gradient, logit of 2 great white shark" in page
    assert (tmp_path / "run" / "review_queue.csv").read_text().startswith("image,finding,")
    again = (*LOCALIZE, "--boxes", "ann.csv", "--boxes", "bob.csv", "--clusters", "who", "--finding", "1", "--json")
    found = json.loads(seewhy(*again)[1])
    (row,) = found["findings"]["goldfish"]["checks"]
    names = [score["name"] for score in row["scores"]]
    assert {"annotators_iou", "iou_at_0.50 with ann", "peak_in_plausible_region"} <= set(names)
    assert row["scores"][names.index("auprc")]["clusters"] == 2
    assert len(found["unused"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "localization", "--boxes", "none.csv"), "no such file of boxes"),
        (("--boxes", "ann.csv"), "add --only localization"),
        (("--only", "localization", "--only", "cost", "--boxes", "ann.csv"), "add --only localization"),
        (("--only", "localization", "--finding", "cat"), "are of --boxes"),
        (("--only", "localization", "--boxes", "ann.csv", "--truth", "folders"), "leave them out"),
        (("--only", "localization", "--clusters", "who"), "are of --boxes"),
        (("--only", "localization", "--boxes", "ann.csv", "--clusters", "patient"), "no column 'patient'"),
        (("--only", "localization", "--boxes", "ann.csv", "--finding", "dog"), "no object is marked as 'dog'"),
        (("--only", "localization", "--boxes", "ann.csv"), "the model has no class 'cat'. target= (--target) says"),
    ],
)
def test_boxes_that_cannot_be_meant_are_one_line_before_any_map(seewhy, tmp_path, photos, arguments, said):
    (tmp_path / "ann.csv").write_text("file,label,x0,y0,x1,y1\n0.png,cat,0,0,80,50\n")
    code, out, err = seewhy("check", "photos", *TINY, *arguments, "--out", "run")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "rows.jsonl").exists()


def test_a_dry_run_with_boxes_counts_a_map_for_every_image_and_finding(seewhy, tmp_path, photos):
    (tmp_path / "ann.csv").write_text(
        "file,label,x0,y0,x1,y1\n0.png,1,0,0,80,50\n0.png,2,0,0,80,50\n1.png,1,0,0,9,9\n1.png,2,0,0,9,9\n"
    )
    asked = (*LOCALIZE, "--boxes", "ann.csv", "--dry-run", "--json")
    assert json.loads(seewhy(*asked)[1])["gradient_rows"] == 4  # of three images
    assert not (tmp_path / "run").exists()
