"""The localization report: a card per finding, each against its own boxes, patients together, and nothing lost in silence."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seewhy as sw
from nets import images as pictures
from nets import tiny_cnn
from seewhy import runfolder
from seewhy.intervals import interval
from test_contract import assert_nothing_left_behind, world

LABELS = ["Infiltration", "Pleural_Thickening", "Mass"]


class Corners(nn.Module):
    """Three findings: the brightness of the left upper, the right upper and the lower part of the picture."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        gray = x.mean(1)
        return torch.stack(
            [gray[:, :16, :16].mean((1, 2)), gray[:, :16, 16:].mean((1, 2)), gray[:, 16:].mean((1, 2))], 1
        )


def network(**given):
    return sw.wrap(
        Corners(), **{"size": 32, "crop": 1.0, "labels": LABELS, "task": "multilabel", "batch_size": 8, **given}
    )


@pytest.fixture
def photos(tmp_path):
    """Six photos of 64 x 64, twice the model's input, of three patients."""
    (tmp_path / "p").mkdir()
    found = []
    for i in range(6):
        values = (pictures(6)[i].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        path = tmp_path / "p" / f"0000000{i // 2}_00{i % 2}.png"
        Image.fromarray(values).resize((64, 64), Image.Resampling.NEAREST).save(path)
        found.append(path)
    return found


def table(folder, rows, name="b.csv", head="file,finding,x0,y0,x1,y1"):
    path = folder / name
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def at(photos, finding, box="0,0,32,32", which=range(6)):
    return [f"{photos[i].name},{finding},{box}" for i in which]


def report(photos, *marks, model=None, method="gradient", **keywords):
    return sw.localization_report(model or network(), photos, [sw.read_boxes(*m) for m in marks], method, **keywords)


def test_the_map_of_each_finding_is_held_against_the_boxes_of_that_finding(tmp_path, photos):
    rows = at(photos, "Infiltrate") + at(photos, "pleural thickening", "32,0,64,32", which=(1, 2, 3))
    found = report(photos, (table(tmp_path, rows),))
    assert list(found.results) == ["Infiltration", "Pleural_Thickening"]
    for name, n in (("Infiltration", 6), ("Pleural_Thickening", 3)):
        row = found.results[name]
        assert row["energy_inside"].interval.value == row["iou_at_0.50"].interval.value == 1
        assert row["energy_inside"].interval.n == n
        assert set(found.cards[name].about["targets"]) == {f"logit of {LABELS.index(name)} {name}"}
    assert found.cards["Pleural_Thickening"].about["images"] == [str(photos[i]) for i in (1, 2, 3)]
    assert found.results["Pleural_Thickening"].settings["clusters"] == ["00000000", "00000001", "00000001"]
    wrong = report(photos, (table(tmp_path, at(photos, "Mass")),)).results["Mass"]
    assert wrong["energy_inside"].interval.value == 0


def test_patients_are_resampled_whole_and_their_other_images_are_no_prior(tmp_path, photos):
    found = report(photos, (table(tmp_path, at(photos, "Mass", "0,32,64,64")),)).results["Mass"]
    assert found["auprc"].interval.clusters == 3  # from names as NIH's
    per_image = torch.tensor(found["auprc"].per_image)
    assert found["auprc"].interval == interval(per_image, [0, 0, 1, 1, 2, 2])
    head = "file,finding,x0,y0,x1,y1,who"
    rows = [f"{row},{'AB'[i % 2]}" for i, row in enumerate(at(photos, "Mass", "0,32,64,64"))]
    marked = sw.read_boxes(table(tmp_path, rows, head=head), clusters="who")
    by_column = sw.localization_report(network(), photos, marked, "gradient").results["Mass"]
    assert by_column["auprc"].interval.clusters == 2
    given = report(photos, (table(tmp_path, at(photos, "Mass", "0,32,64,64")),), clusters=range(6)).results["Mass"]
    assert given["auprc"].interval.clusters == 6


def test_annotators_are_compared_and_one_who_did_not_look_disagrees_with_nobody(tmp_path, photos):
    first = table(tmp_path, at(photos, "Infiltrate"), "ann.csv")
    second = table(tmp_path, [*at(photos, "Infiltration", "0,0,64,32", (0, 1)), f"{photos[2].name},,,,,"], "bob.csv")
    row = report(photos, (first, "Ann"), (second, "Bob")).results["Infiltration"]
    assert row["annotators_iou"].per_image == pytest.approx((0.5, 0.5, 0, *[np.nan] * 3), nan_ok=True)
    assert row["iou_at_0.50 with Ann"].interval.value == 1
    assert row["iou_at_0.50 with Bob"].interval.value == 0.5
    assert row["iou_at_0.50 with Bob"].interval.n == 2
    assert row["iou_at_0.50"].interval.value == pytest.approx((0.75 * 2 + 4) / 6)


def test_a_map_that_peaks_where_no_other_patient_has_the_finding_is_queued_by_name(tmp_path, photos):
    boxes = ["0,32,64,64"] * 4 + ["32,0,64,32"] * 2
    rows = [f"{path.name},Mass,{box}" for path, box in zip(photos, boxes, strict=True)]
    assert (
        report(photos, (table(tmp_path, rows),)).review_queue == []
    )  # it peaks below, where two other patients have it
    rows = [f"{path.name},Mass,{box}" for path, box in zip(photos[:3], boxes[::-1], strict=False)]
    found = report(photos, (table(tmp_path, rows),), out=tmp_path / "run")  # the first right above, the second below
    assert [(entry["image"], entry["finding"]) for entry in found.review_queue] == [(str(photos[2]), "Mass")]
    with (tmp_path / "run" / runfolder.QUEUE).open() as file:
        (line,) = csv.DictReader(file)
    assert (line["image"], line["finding"]) == (str(photos[2]), "Mass")
    assert float(line["pixels_outside"]) > 0
    page = sw.report(tmp_path / "run").read_text()
    assert "To look at again: 1" in page
    assert f"{photos[2]}: the map peaks at" in page


def test_whatever_is_not_used_is_listed_with_its_reason(tmp_path, photos):
    rows = [
        *at(photos, "Mass", "0,32,64,64"),
        *at(photos, "Hernia", which=(0, 1)),
        *at(photos, "Mass", "70,70,80,80", which=(3,)),
        *at(photos, "Mass", "1,1,nan,4", which=(3,)),
        "elsewhere.png,Mass,1,1,9,9",
        *at(photos, "Mass", "-8,32,20,90", which=(4,)),
    ]
    found = report(photos, (table(tmp_path, rows),))
    told = " | ".join(item["reason"] for item in found.unused)
    for said in (
        "'Hernia' (marked 2 times): the model has no class 'Hernia'",
        "outside of the photo",
        "finite",
        "not among those given: 1",
    ):
        assert said in told
    assert len(found.unused) == 4
    assert found.notes == ("Mass: 1 of 8 objects reach beyond what the model is shown: cut off",)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["findings"]["Mass"]["checks"][0]["check"] == "localization"
    assert "4 annotations were not used" in str(found)


def test_a_second_run_in_the_same_folder_computes_nothing_again(tmp_path, photos):
    marks = (table(tmp_path, at(photos, "Mass", "0,32,64,64")),)
    first = report(photos, marks, out=tmp_path / "run")
    again = report(photos, marks, out=tmp_path / "run")
    assert again.results["Mass"].seconds == first.results["Mass"].seconds
    assert len(runfolder.read_checks(tmp_path / "run")) == 1
    moved = (table(tmp_path, at(photos, "Mass", "0,30,64,64")),)
    assert report(photos, moved, out=tmp_path / "run").results["Mass"].seconds != first.results["Mass"].seconds


def test_masks_in_a_folder_are_of_the_given_target_or_the_predicted_class(tmp_path, photos):
    (tmp_path / "m").mkdir()
    values = np.zeros((64, 64), dtype=np.uint8)
    values[:32, :32] = 255
    for path in photos[:3]:
        Image.fromarray(values).save(tmp_path / "m" / path.name)
    found = report(photos, (tmp_path / "m",), target="Infiltration")
    assert found.results["object"]["iou_at_0.50"].per_image == (1, 1, 1)
    with pytest.raises(sw.UsageError, match="no finding, and a multilabel network predicts no one class"):
        report(photos, (tmp_path / "m",))
    predicted = report(photos, (tmp_path / "m",), model=network(task="multiclass"))
    assert predicted.cards["object"].about["targets"][0].startswith("logit of")


@pytest.mark.parametrize(
    ("rows", "keywords", "said"),
    [
        (["x.png,Mass,1,1,9,9"], {}, "none of 1 annotations is of one of the 6 images"),
        (["00000000_000.png,Hernia,1,1,9,9"], {}, "no class 'Hernia'. target= .--target."),
        (["00000000_000.png,Mass,1,1,9,9"], {"findings": ["Mas"]}, "did you mean 'Mass'"),
        (["00000000_000.png,Mass,90,90,99,99"], {}, "no marked object lies in what the model is shown"),
        (["00000000_000.png,No finding,,,,"], {}, "in none of the images anything is marked"),
        (["00000000_000.png,Mass,1,1,9,9"], {"clusters": [1]}, "got 1 for 6 images"),
        (["00000000_000.png,Mass,1,1,9,9"], {"settings": {"tolerence": 3}}, "did you mean 'tolerance'"),
        (["00000000_000.png,Mass,1,1,9,9"], {"model": "own"}, "preprocess of its own"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_it(tmp_path, photos, rows, keywords, said):
    if keywords.get("model") == "own":
        own = sw.wrap(Corners(), labels=LABELS, task="multilabel", preprocess=lambda image: torch.zeros(3, 32, 32))
        keywords = {"model": own}
    with pytest.raises(sw.UsageError, match=said):
        report(photos, (table(tmp_path, rows),), **keywords)


def test_images_are_files_or_folders_of_them(tmp_path, photos):
    marked = sw.read_boxes(table(tmp_path, at(photos, "Mass", "0,32,64,64", (0, 1))))
    found = sw.localization_report(network(), tmp_path / "p", marked, "gradient")
    assert found.cards["Mass"].about["images"] == [str(photo) for photo in photos[:2]]
    with pytest.raises(sw.UsageError, match="got Tensor"):
        sw.localization_report(network(), pictures(2), marked, "gradient")


def test_an_image_that_belongs_to_two_patients_is_an_error(tmp_path, photos):
    rows = [f"{photos[0].name},Mass,1,1,9,9,A", f"{photos[0].name},Mass,2,2,9,9,B"]
    marked = sw.read_boxes(table(tmp_path, rows, head="file,finding,x0,y0,x1,y1,who"), clusters="who")
    with pytest.raises(sw.UsageError, match="belongs to A and B"):
        sw.localization_report(network(), photos, marked, "gradient")


def test_the_report_leaves_no_trace(tmp_path, photos):
    net = tiny_cnn().train()
    model = sw.wrap(net, size=32, crop=1.0, labels=["Mass", *"bcde"])
    marks = (table(tmp_path, at(photos, "Mass", "0,32,64,64")),)
    before = world(net)
    report(photos, marks, model=model, method="grad_cam")
    assert_nothing_left_behind(before, world(net))
