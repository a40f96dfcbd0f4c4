"""What people marked, from every kind of file: read in the same pixels, and what cannot be used is listed with its reason."""

import gzip
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

import seewhy as sw
from seewhy.data.boxes import MarkedObject, read_boxes
from seewhy.data.outlines import bounds, polygon_mask, read_runs, run_mask

NIH = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000001_000.png,Infiltrate,10,20,30.5,40
00000001_000.png,Mass,1,2,3,4,,,
"""


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def boxes_of(found):
    return [(one.file, one.finding, one.box) for one in found.objects]


# -- tables


@pytest.mark.parametrize("packed", [False, True])
def test_the_list_of_nih_is_read_as_it_is(tmp_path, packed):
    path = write(tmp_path / ("b.csv.gz" if packed else "b.csv"), gzip.compress(NIH.encode()) if packed else NIH)
    found = read_boxes(path)
    assert boxes_of(found) == [
        ("00000001_000.png", "Infiltrate", (10, 20, 40.5, 60)),
        ("00000001_000.png", "Mass", (1, 2, 4, 6)),
    ]
    assert {one.size for one in found.objects} == {(1024, 1024)}
    assert found.skipped == ()


@pytest.mark.parametrize(
    "text",
    [
        "file,label,x0,y0,x1,y1\na.png,cat,1,2,5,8\n",
        "\ufefffile;label;x0;y0;x1;y1\r\na.png;cat;1;2;5;8\r\n",
        "Label,Image,xmin,ymin,xmax,ymax\ncat,a.png,1,2,5,8\n",
        "image_id\tclass_name\tx_min\ty_min\tx_max\ty_max\na.png\tcat\t5\t8\t1\t2\n",
        "path,finding,x,y,width,height\na.png,cat,1,2,4,6\n",
        "path,finding,x,y,w,h,,\na.png,cat,1,2,4,6,,\n\n",
        "file,label,x1,y1,x2,y2\na.png,cat,5,2,1,8\n",
    ],
)
def test_a_plain_table_in_any_of_its_dialects_gives_the_same_box(tmp_path, text):
    assert boxes_of(read_boxes(write(tmp_path / "b.csv", text))) == [("a.png", "cat", (1, 2, 5, 8))]


def test_annotators_patients_and_images_without_an_object_are_told(tmp_path):
    text = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max,who\na.1.2,cat,R1,1,2,5,8,p\na.1.2,No finding,R2,,,,,p\n"
    found = read_boxes(write(tmp_path / "b.csv", text), annotator="the file", clusters="who")
    assert found.objects == (
        MarkedObject("a.1.2", "cat", (1, 2, 5, 8), "R1", "p"),
        MarkedObject("a.1.2", "", None, "R2", "p"),
    )
    plain = read_boxes(write(tmp_path / "c.csv", "file,x0,y0,x1,y1\na.png,1,2,5,8\n"), annotator="the file")
    assert plain.objects == (MarkedObject("a.png", "", (1, 2, 5, 8), "the file"),)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("b.png,cat,1,2,nan,8", "finite numbers"),
        ("b.png,cat,1,2,inf,8", "finite numbers"),
        ("b.png,cat,1,2,left,8", "no box of four numbers"),
        ("b.png,cat,1,2,,8", "no box of four numbers"),
        ("b.png,cat,1,2,1,8", "without an area"),
        (",cat,1,2,5,8", "names no image"),
        ("b.png,cat,,,,", "names 'cat' without a box"),
        ("b.png,cat,1,2,5,8,9", "7 cells"),
        ("a.png,cat,1,2,5,8", "twice"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed_and_the_others_are_read(tmp_path, row, said):
    found = read_boxes(write(tmp_path / "b.csv", f"file,label,x0,y0,x1,y1\na.png,cat,1,2,5,8\n{row}\n"))
    assert boxes_of(found) == [("a.png", "cat", (1, 2, 5, 8))]
    (skip,) = found.skipped
    assert said in skip["reason"]


def test_a_size_below_zero_is_a_mistake_and_not_another_corner(tmp_path):
    text = "file,label,x,y,w,h\na.png,cat,1,2,4,6\na.png,cat,9,9,-4,6\n"
    found = read_boxes(write(tmp_path / "b.csv", text))
    assert len(found.objects) == 1
    assert "-4 x 6" in found.skipped[0]["reason"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "b.csv",
            "file,label,left,top\na,b,1,2\n",
            "needs the columns x0, y0, x1, y1 .or x, y, w, h.; it has file, label",
        ),
        ("b.csv", "picture,x0,y0,x1,y1\na,1,2,3,4\n", "needs a column file"),
        ("b.csv", "file,x0,y0,x1,y1\na,4,4,4,4\n", "no box or mask in it can be used. The first, a: .*without an area"),
        ("b.csv", "file,x0,y0,x1,y1\n", "no box or mask"),
        ("b.csv", b"\xff\xfe\x00", "UTF-8"),
        ("b.csv.gz", b"\x1f\x8b\x08torn", "cannot be read as a CSV table"),
        ("b.csv.gz", gzip.compress(NIH.encode())[:-9], "cannot be read as a CSV table"),
        ("b.json", "{", "cannot be read as JSON"),
        ("b.json", "[" * 100_000, "cannot be read as JSON"),
        ("b.json", "[1, 2]", "not COCO's"),
        ("b.json", '{"images": [{"id": 1}], "annotations": []}', "not COCO's"),
        ("b.json", '{"images": [{"id": 1, "file_name": 3}], "annotations": []}', "called 3"),
        ("b.json", '{"images": [{"id": 1, "file_name": "a", "width": 1e9, "height": 5}], "annotations": []}', "pixels"),
        ("b.xml", "<annotation>", "no Pascal VOC"),
        ("b.xml", "<html/>", "root is <html>"),
    ],
)
def test_a_file_that_is_none_of_these_is_an_error_that_names_it(tmp_path, name, content, said):
    with pytest.raises(sw.UsageError, match=said) as raised:
        read_boxes(write(tmp_path / name, content))
    assert name in str(raised.value)


def test_what_is_not_there_or_has_no_columns_is_a_usage_error(tmp_path):
    write(tmp_path / "boxes.csv", "file,x0,y0,x1,y1\na,1,2,3,4\n")
    with pytest.raises(sw.UsageError, match=r"Did you mean 'boxes.csv'"):
        read_boxes(tmp_path / "boxs.csv")
    with pytest.raises(sw.UsageError, match="no column 'patient'"):
        read_boxes(tmp_path / "boxes.csv", clusters="patient")
    with pytest.raises(sw.UsageError, match="read from a table"):
        read_boxes(write(tmp_path / "b.json", "{}"), clusters="patient")
    (tmp_path / "empty").mkdir()
    with pytest.raises(sw.UsageError, match="neither Pascal VOC annotations"):
        read_boxes(tmp_path / "empty")


# -- COCO


def coco(*annotations, size=(8, 10)):
    """Three images, each 8 high and 10 wide, and two categories."""
    images = [{"id": k, "file_name": f"tb/{k}.png", "height": size[0], "width": size[1]} for k in (1, 2, 3)]
    entries = [{"image_id": 1, "category_id": 7, **one} for one in annotations]
    return json.dumps(
        {"images": images, "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}], "annotations": entries}
    )


def test_coco_boxes_belong_to_images_by_id_and_images_without_one_are_there(tmp_path):
    text = coco({"bbox": [1, 2, 4, 5.5]}, {"bbox": [0, 0, 1, 1], "image_id": 3, "category_id": 9, "annotator": "Ann"})
    found = read_boxes(write(tmp_path / "b.json", "\ufeff" + text))
    assert boxes_of(found) == [
        ("tb/1.png", "cat", (1, 2, 5, 7.5)),
        ("tb/3.png", "dog", (0, 0, 1, 1)),
        ("tb/2.png", "", None),
    ]
    assert [one.annotator for one in found.objects] == ["", "Ann", ""]
    assert found.objects[0].size == (8, 10)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"bbox": [1, 1, 2, 2], "iscrowd": 1}, "crowd"),
        ({"bbox": [1, 1, -2, 2]}, "-2 x 2"),
        ({"bbox": [1, 1, float("nan"), 2]}, "finite numbers"),
        ({"bbox": [1, 1, 2]}, "no box"),
        ({"bbox": "1 1 2 2"}, "no box"),
        ({"bbox": [1, 1, 2, 2], "image_id": 99}, "unknown 99"),
        ({"bbox": [1, 1, 2, 2], "category_id": 1}, "unknown 1"),
        ({"segmentation": [[1, 1, 2, 2]]}, "three corners"),
        ({"segmentation": {"size": [8, 9], "counts": [72]}}, "of size .8, 9. in an image of .8, 10."),
        ({"segmentation": {"size": [8, 10], "counts": [3, 4]}}, "7 pixels in all"),
        ({"segmentation": {"size": [8, 10], "counts": [81, -1]}}, "whole numbers from 0 on"),
        ({"segmentation": {"size": [8, 10], "counts": "\x7f"}}, "character"),
        ({"segmentation": {"size": [8, 10], "counts": "o"}}, "break off"),
        ({"segmentation": {"size": [8, 10], "counts": [80]}}, "no box"),
    ],
)
def test_a_coco_entry_that_cannot_be_used_is_listed(tmp_path, entry, said):
    found = read_boxes(write(tmp_path / "b.json", coco({"bbox": [1, 2, 4, 5]}, entry)))
    assert [one.box for one in found.objects if one.box] == [(1, 2, 5, 7)]
    (skip,) = found.skipped
    assert skip["reason"].startswith("annotation 2: ")
    assert re.search(said, skip["reason"]), skip["reason"]


def test_coco_polygons_and_run_lengths_are_masks(tmp_path):
    square = {"segmentation": [[1, 2, 5, 2, 5, 7, 1, 7], [8, 0, 10, 0, 10, 1, 8, 1]]}
    runs = {"segmentation": {"size": [8, 10], "counts": [8, 3, 5, 3, 61]}}
    found = read_boxes(write(tmp_path / "b.json", coco(square, {**runs, "bbox": [1, 0, 2, 3]})))
    first, second = [one for one in found.objects if one.box]
    expected = np.zeros((8, 10), dtype=bool)
    expected[2:7, 1:5] = expected[0, 8:10] = True
    assert np.array_equal(first.mask(), expected)
    assert first.box == (1, 0, 10, 7)
    expected[:] = False
    expected[0:3, 1:3] = True
    assert np.array_equal(second.mask(), expected)
    assert second.box == bounds(second.mask()) == (1, 0, 3, 3)


def test_two_outlines_in_one_box_are_two_objects_and_one_box_twice_is_one(tmp_path):
    halves = [{"segmentation": [[1, 1, 5, 1, 5, 5]]}, {"segmentation": [[1, 1, 5, 5, 1, 5]]}]
    found = read_boxes(write(tmp_path / "b.json", coco(*halves, {"bbox": [0, 0, 2, 2]}, {"bbox": [0, 0, 2, 2]})))
    assert [one.box for one in found.objects if one.box] == [(1, 1, 5, 5), (1, 1, 5, 5), (0, 0, 2, 2)]
    assert "1 of its entries" in found.skipped[0]["reason"]


def packed(counts):
    """The slow twin: COCO's text of run lengths, number by number as its format says."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = not (value == -1 and bits & 16) and not (value == 0 and not bits & 16)
            text += chr(48 + (bits | 32 if more else bits))
            if not more:
                break
    return text


def test_packed_run_lengths_are_unpacked_with_their_differences_and_signs():
    numbers = np.random.default_rng(0)
    for _ in range(20):
        mask = numbers.random((9, 13)) < numbers.random()
        flat = mask.T.ravel()
        ends = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]]))) if len(flat) else []
        counts = np.diff([0, *ends]).tolist()
        assert list(read_runs(packed(counts), (9, 13))) == counts
        assert np.array_equal(run_mask(counts, (9, 13)), mask)
    big = [5, 1_000_000, 3, 40]
    assert read_runs(packed(big), (1, sum(big))) == tuple(big)


def test_a_polygon_holds_the_pixels_whose_centers_it_holds():
    triangle = [0.0, 0.0, 12.0, 0.0, 0.0, 9.0]
    found = polygon_mask([triangle], (10, 14))
    y, x = np.mgrid[:10, :14] + 0.5
    assert np.array_equal(found, x / 12 + y / 9 < 1)
    ring = [*triangle]  # the same one twice over is not emptied: parts of an object are joined
    assert np.array_equal(polygon_mask([triangle, ring], (10, 14)), found)
    beyond = polygon_mask([[-5, -5, 50, -5, 50, 50, -5, 50]], (10, 14))
    assert beyond.all()
    star = [7, 0, 11, 10, 0, 4, 14, 4, 3, 10]
    drawn = Image.new("1", (14 * 40, 10 * 40))
    ImageDraw.Draw(drawn).polygon([40 * v for v in star], fill=1)  # even-odd as well; sampled at the centers
    assert np.array_equal(polygon_mask([star], (10, 14)), np.asarray(drawn)[20::40, 20::40])


# -- Pascal VOC


def voc(name="a.png", boxes=((1, 1, 10, 8),), size=(8, 10), more=""):
    objects = "".join(
        f"<object><name>cat</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1 in boxes
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[1]}</width><height>{size[0]}</height></size>{more}"
        f"{objects}</annotation>"
    )


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path):
    (tmp_path / "xml").mkdir()
    write(tmp_path / "xml" / "a.xml", voc(boxes=[(1, 1, 10, 8), (5, 3, 2, 2)]))
    write(tmp_path / "xml" / "b.xml", voc("", boxes=[], size=(0, 0)))
    write(tmp_path / "xml" / ".hidden.xml", "no")
    found = read_boxes(tmp_path / "xml")
    assert boxes_of(found) == [("a.png", "cat", (0, 0, 10, 8)), ("a.png", "cat", (1, 1, 5, 3)), ("b", "", None)]
    assert [one.size for one in found.objects] == [(8, 10), (8, 10), None]
    assert boxes_of(read_boxes(tmp_path / "xml" / "a.xml")) == boxes_of(found)[:2]


def test_a_voc_file_that_cannot_be_used_is_listed_and_the_others_are_read(tmp_path):
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + voc("&b;")
    broken = {"bomb.xml": bomb, "torn.xml": voc()[:50], "page.xml": "<html/>", "latin.xml": b"\xe4"}
    for name, text in broken.items():
        write(tmp_path / name, text)
    write(tmp_path / "half.xml", voc("h.png", boxes=[("", 1, 2, 3), (1, 1, 2, 2), (1, 1, "nan", 5), ("a", 1, 2, 3)]))
    found = read_boxes(tmp_path)
    assert boxes_of(found) == [("h.png", "cat", (0, 0, 2, 2))]
    assert len(found.skipped) == len(broken) + 3
    reasons = {skip["path"].rpartition("/")[2]: skip["reason"] for skip in found.skipped}
    assert set(reasons) == {*broken, "half.xml"}
    assert "document type" in reasons["bomb.xml"]


# -- masks


def mask(path, values):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.asarray(values)).save(path)


def test_a_folder_of_masks_of_one_value_is_one_object_an_image(tmp_path):
    values = np.zeros((6, 9), dtype=np.uint8)
    mask(tmp_path / "m" / "empty.png", values)
    values[1:3, 2:7] = 255
    mask(tmp_path / "m" / "a.png", values)
    mask(tmp_path / "m" / "sub" / "a.png", values)
    mask(tmp_path / "bits" / "b.png", values.astype(bool))
    found = read_boxes(tmp_path / "m", annotator="Ann")
    object_, nothing = ("", (2, 1, 7, 3)), ("", None)
    assert boxes_of(found) == [("a.png", *object_), ("empty.png", *nothing), ("sub/a.png", *object_)]
    assert boxes_of(read_boxes(tmp_path / "bits")) == [("b.png", *object_)]
    assert np.array_equal(found.objects[0].mask(), values > 0)


def test_masks_of_several_values_are_classes_by_number(tmp_path):
    values = np.zeros((6, 9), dtype=np.uint16)
    values[0, :3], values[4:, 8], values[2, 2] = 3, 700, 255
    mask(tmp_path / "m" / "a.png", values)
    picture = Image.fromarray((values == 3).astype(np.uint8) * 3).convert("P")
    picture.save(tmp_path / "m" / "b.gif")
    Image.new("RGB", (4, 4)).save(tmp_path / "m" / "color.png")
    write(tmp_path / "m" / "torn.png", b"\x89PNG")
    found = read_boxes(tmp_path / "m")
    assert boxes_of(found)[:2] == [("a.png", "3", (0, 0, 3, 1)), ("a.png", "700", (8, 4, 9, 6))]
    assert found.objects[2].file == "b.gif"
    assert ["color.png" in s["path"] or "torn.png" in s["path"] for s in found.skipped] == [True, True]
    assert "one number a pixel" in found.skipped[0]["reason"]
