import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import seewhy as sw
from seewhy.audit.output import write_finding
from seewhy.data.dataset import Sample

FOUND = {
    "id": "a11ce0000001",
    "kind": "local_pattern",
    "name": "a mark",
    "sentence": "The model relies on a mark.",
    "effect": [],
}


def image(width=60, height=40, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def samples(tmp_path):
    found = []
    for i, name in enumerate(("coat/a.png", "coat/b.jpg", "jacket/a.png")):
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image(seed=i).save(file)
        found.append(Sample(name, "coat", file))
    return found


BOXES = [[(0.5, 0.5, 1.0, 1.0)], [], [(0.0, 0.0, 0.1, 0.25), (0.5, 0.0, 1.0, 0.5)]]
SCORES = [{"before": 0.9, "removed": 0.4}, {"before": 0.8, "group": "x"}, {"before": None}]


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_boxes_are_coco_in_pixels_of_the_data_sets_own_files(tmp_path, samples):
    place = write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES)
    assert place == tmp_path / "run" / "findings" / FOUND["id"]
    coco = json.loads((place / "boxes.json").read_text())
    assert [one["file_name"] for one in coco["images"]] == ["coat/a.png", "coat/b.jpg", "jacket/a.png"]
    assert {(one["width"], one["height"]) for one in coco["images"]} == {(60, 40)}
    assert [(one["image_id"], one["bbox"], one["area"]) for one in coco["annotations"]] == [
        (1, [30, 20, 30, 20], 600),
        (3, [0, 0, 6, 10], 60),
        (3, [30, 0, 30, 20], 600),
    ]
    assert coco["categories"] == [{"id": 1, "name": "a mark", "supercategory": "local_pattern"}]


def test_boxes_fit_the_photo_as_it_stands_upright(tmp_path):
    lying = image(60, 40)
    exif = lying.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    lying.save(tmp_path / "turned.jpg", exif=exif)
    place = write_finding(
        tmp_path / "run", FOUND, [Sample("turned.jpg", 0, tmp_path / "turned.jpg")], [[(0, 0, 1, 0.5)]], [{}]
    )
    coco = json.loads((place / "boxes.json").read_text())
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (40, 60)
    assert coco["annotations"][0]["bbox"] == [0, 0, 40, 30]
    with Image.open(place / coco["images"][0]["preview"]) as preview:
        assert preview.size == (40, 60)
        assert not preview.getexif()


def test_scores_stand_beside_their_image(tmp_path, samples):
    place = write_finding(tmp_path, FOUND, samples, BOXES, SCORES)
    with (place / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [sample.name for sample in samples]
    assert rows[0] == {"path": "coat/a.png", "before": "0.9", "removed": "0.4", "group": ""}
    assert rows[2]["before"] == ""


def test_the_finding_itself_lies_there(tmp_path, samples):
    place = write_finding(tmp_path, FOUND, samples, BOXES, SCORES)
    assert json.loads((place / "finding.json").read_text()) == {**FOUND, "unreadable": []}


def test_pictures_are_small_and_the_same_call_changes_nothing(tmp_path, samples):
    image(900, 600).save(samples[0].source)
    place = write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES)
    first = everything(place)
    assert len([name for name in first if name.startswith("images/")]) == 3
    coco = json.loads(first["boxes.json"])
    with Image.open(place / coco["images"][0]["preview"]) as preview:
        assert preview.size == (448, 299)
    assert coco["images"][0]["width"] == 900
    write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES)
    assert everything(place) == first


def test_what_an_earlier_call_wrote_goes_and_what_somebody_laid_there_stays(tmp_path, samples):
    place = write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES)
    (place / "images" / "mine.txt").write_text("keep")
    write_finding(tmp_path / "run", FOUND, samples[:1], BOXES[:1], SCORES[:1])
    left = sorted(p.name for p in (place / "images").iterdir())
    assert len(left) == 2
    assert "mine.txt" in left


def test_without_pictures_boxes_and_scores_stay(tmp_path, samples):
    write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES)
    place = write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES, pictures=False)
    assert not list((place / "images").iterdir())
    coco = json.loads((place / "boxes.json").read_text())
    assert len(coco["annotations"]) == 3
    assert {one["preview"] for one in coco["images"]} == {None}


def test_an_image_without_a_file_is_kept_whole(tmp_path):
    x = torch.rand(3, 500, 600, generator=torch.Generator().manual_seed(0))
    samples = [Sample("item 3", 0, lambda: x), Sample("item 4", 1, image())]
    place = write_finding(tmp_path, FOUND, samples, [[(0, 0, 0.5, 0.5)], []], [{}, {}])
    coco = json.loads((place / "boxes.json").read_text())
    with Image.open(place / coco["images"][0]["file_name"]) as kept:
        assert np.array_equal(np.asarray(kept), (x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    assert coco["annotations"][0]["bbox"] == [0, 0, 300, 250]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "a/../../b.png", "..", "con\nx.png", "c:\\x.png", "caf\udce9.png"]
)
def test_no_name_from_outside_leaves_the_folder(tmp_path, name):
    place = write_finding(tmp_path / "run", FOUND, [Sample(name, 0, image())], [[]], [{}])
    (written,) = (place / "images").iterdir()
    assert written.resolve().is_relative_to((tmp_path / "run").resolve())
    assert {p.name for p in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize("identifier", ["../x", "a/b", "", ".", "..", "/tmp/x", "a" * 65, 7, None, "x\n"])
def test_an_id_that_could_lead_elsewhere_is_refused(tmp_path, identifier):
    with pytest.raises(sw.UsageError, match="the id of a finding"):
        write_finding(tmp_path / "run", {**FOUND, "id": identifier}, [], [], [])
    assert not (tmp_path / "run").exists()


def test_two_images_of_one_name_in_two_folders_stay_two(tmp_path, samples):
    place = write_finding(tmp_path, FOUND, samples, BOXES, SCORES)
    assert len({one["preview"] for one in json.loads((place / "boxes.json").read_text())["images"]}) == 3


def test_an_image_that_cannot_be_read_is_listed_and_the_others_go_on(tmp_path, samples):
    samples[1].source.write_bytes(b"")
    place = write_finding(tmp_path / "run", FOUND, samples, BOXES, SCORES)
    (one,) = json.loads((place / "finding.json").read_text())["unreadable"]
    assert one["path"] == "coat/b.jpg"
    coco = json.loads((place / "boxes.json").read_text())
    assert [image["id"] for image in coco["images"]] == [1, 3]


@pytest.mark.parametrize("box", [(0, 0, 2, 1), (0.5, 0, 0.5, 1), (0, 0, 1), (-0.1, 0, 1, 1), (0, 0, float("nan"), 1)])
def test_a_box_outside_of_the_photo_is_refused_before_anything_is_written(tmp_path, samples, box):
    with pytest.raises(sw.UsageError, match=r"coat/a.png: a box is"):
        write_finding(tmp_path / "run", FOUND, samples[:1], [[box]], [{}])
    assert not (tmp_path / "run").exists()


def test_another_number_of_boxes_than_samples_is_refused(tmp_path, samples):
    with pytest.raises(sw.UsageError, match="3 samples with 1 lists of boxes and 3 scores"):
        write_finding(tmp_path, FOUND, samples, [[]], SCORES)
