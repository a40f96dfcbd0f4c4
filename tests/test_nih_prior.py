"""The benchmark that needs no image: the table of NIH's list, on boxes whose numbers can be worked out by hand."""

import sys

import pytest

from nih_prior import main, prior_table

HEAD = "Image Index,Finding Label,Bbox [x,y,w,h],,,"


def listed(folder, *rows):
    path = folder / "BBox_List_2017.csv"
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


def test_the_prior_of_boxes_made_by_hand(tmp_path):
    rows = [
        "00000001_000.png,Mass,0,0,100,100",
        "00000002_000.png,Mass,0,0,100,100",
        "00000002_001.png,Mass,0,0,100,200",
        "00000003_000.png,Nodule,0,0,512,512",
        "00000004_000.png,Nodule,512,512,512,512",
    ]
    found = {row["finding"]: row for row in prior_table(listed(tmp_path, *rows))}
    # leave one image out: of the first two the others have heights 100 and 200, so 150; of the third both have 100
    mass, nodule, every = found["Mass"], found["Nodule"], found["all"]
    assert mass["iou"].value == pytest.approx((100 / 150 + 100 / 150 + 100 / 200) / 3)
    assert (mass["n"], mass["iou"].clusters) == (3, 2)  # three images of two patients
    assert mass["area"] == pytest.approx(1e4 / 1024**2)
    assert (mass["iou_50"], mass["iou_10"], mass["center"]) == (1, 1, 1)
    assert (nodule["iou"].value, nodule["iou_10"], nodule["center"]) == (0, 0, 0)
    assert nodule["area"] == 0.25
    assert (every["n"], every["iou_50"]) == (5, 0.6)
    assert every["iou"].value == pytest.approx(3 / 5 * mass["iou"].value)


def test_the_script_prints_a_line_per_finding_or_says_what_is_missing(tmp_path, monkeypatch, capsys):
    path = listed(tmp_path, *(f"0000000{k}_000.png,Mass,0,0,10,10" for k in range(3)))
    monkeypatch.setattr(sys, "argv", ["nih_prior.py", str(path)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["finding", "Mass", "all"]
    assert "1.000 [1.000, 1.000]" in lines[1]
    monkeypatch.setattr(sys, "argv", ["nih_prior.py", "nowhere.csv"])
    with pytest.raises(SystemExit, match=r"nowhere\.csv: give the path"):
        main()
