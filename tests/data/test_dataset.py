"""Labelled images from whatever holds them: read lazily, broken ones listed, wrong ones told."""

import csv
import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset

from seewhy.data import images as images_room
from seewhy.data.dataset import DataSet, Sample, open_image, read_dataset
from seewhy.data.kinds import KINDS
from seewhy.errors import ImageError, MissingExtraError, UsageError


def picture(path, color="gray"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)
    return path


def encoded(color="gray"):
    out = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(out, "PNG")
    return out.getvalue()


def pairs(dataset):
    return [(sample.name, sample.label) for sample in dataset.samples]


def reasons(dataset):
    return {one["path"]: one["reason"] for one in dataset.skipped}


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        picture(tmp_path / name)
    return tmp_path


def table(folder, text, name="t.csv"):
    (folder / name).write_bytes(text.encode())
    return folder / name


# -- folders ----------------------------------------------------------------------------------------------------------


def test_a_sub_folder_is_a_class_however_deep_its_images_lie(photos):
    picture(photos / "dog" / "deep" / "er" / "D 1.JPEG")
    picture(photos / "7" / "x.png")
    dataset = read_dataset(str(photos))
    assert pairs(dataset) == [
        ("7/x.png", 7),
        ("cat/a.png", "cat"),
        ("cat/b.png", "cat"),
        ("dog/c.png", "dog"),
        ("dog/deep/er/D 1.JPEG", "dog"),
    ]
    assert (dataset.kind, dataset.root, dataset.skipped, len(dataset)) == ("class", photos, (), 5)
    assert open_image(dataset.samples[0]) == photos / "7" / "x.png"


def test_nothing_is_decoded_before_it_is_asked_for(photos, monkeypatch):
    monkeypatch.setattr(images_room, "_photo", lambda *_: pytest.fail("decoded"))
    (photos / "cat" / "a.png").write_bytes(b"no image")
    monkeypatch.setattr(Path, "read_bytes", lambda *_: pytest.fail("read"))
    assert len(read_dataset(photos)) == 3


def test_what_no_user_put_there_is_left_out_and_what_is_broken_is_listed(photos):
    for name in (".DS_Store", "cat/.DS_Store", "cat/._a.png", ".git/x.png", "__MACOSX/cat/a.png", "cat/Thumbs.db"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(b"x")
    (photos / "cat" / "empty.png").write_bytes(b"")
    (photos / "cat" / "gone.png").symlink_to("nowhere")
    (photos / "cat" / "self.png").symlink_to("self.png")
    (photos / "bird").mkdir()
    os.mkfifo(photos / "cat" / "pipe.png")
    dataset = read_dataset(photos)
    assert len(dataset) == 3
    found = reasons(dataset)
    assert found.pop("cat/self.png").startswith("cannot be read")
    assert found == {
        "bird": "a class folder without an image",
        "cat/empty.png": "the file is empty (0 bytes)",
        "cat/gone.png": "no such file",
    }


def test_a_linked_folder_is_followed_and_a_loop_of_links_ends(photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("storage")
    picture(elsewhere / "z.png")
    (photos / "bird").symlink_to(elsewhere)
    (photos / "dog" / "loop").symlink_to(photos)
    assert pairs(read_dataset(photos))[0] == ("bird/z.png", "bird")
    assert len(read_dataset(photos)) == 4
    (photos / "cat" / "same").symlink_to(photos / "dog")
    assert pairs(read_dataset(photos))[-2:] == [("cat/same/c.png", "cat"), ("dog/c.png", "dog")]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_is_no_utf8_can_be_opened_and_written_down(photos):
    raw = os.fsencode(photos / "cat") + b"/\xff.png"
    with open(raw, "wb") as file:
        file.write(encoded())
    (odd,) = [sample for sample in read_dataset(photos).samples if "\\" in sample.name]
    assert json.loads(json.dumps(odd.name).encode("utf-8")) == odd.name == r"cat/\udcff.png"
    assert open_image(odd).read_bytes() == encoded()


def test_images_beside_class_folders_an_empty_folder_and_none_are_told(photos, tmp_path_factory):
    with pytest.raises(UsageError, match="without an image"):
        read_dataset(tmp_path_factory.mktemp("empty"))
    with pytest.raises(UsageError, match="no such table"):
        read_dataset(photos / "nothing.csv")
    picture(photos / "stray.png")
    with pytest.raises(UsageError, match=r"1 images lie in no sub-folder of a class, e\.g\. stray\.png"):
        read_dataset(photos)
    with pytest.raises(UsageError, match="label= is about a table"):
        read_dataset(photos / "cat", label="x")


def test_splits_are_named_never_mixed(photos, tmp_path_factory):
    root = tmp_path_factory.mktemp("splits")
    for name in ("train/cat/1.png", "test/cat/2.png", "test/dog/3.png"):
        picture(root / name)
    with pytest.raises(UsageError, match="holds the splits test, train"):
        read_dataset(root)
    assert pairs(read_dataset(root, split="test")) == [("cat/2.png", "cat"), ("dog/3.png", "dog")]
    with pytest.raises(UsageError, match="did you mean 'test'"):
        read_dataset(root, split="tets")
    with pytest.raises(UsageError, match="has no splits"):
        read_dataset(photos, split="val")
    picture(photos / "test" / "1.png")  # a class of that name beside others
    assert pairs(read_dataset(photos))[-1] == ("test/1.png", "test")


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_table_is_read_whatever_program_wrote_it(photos, ending, delimiter, bom):
    rows = (" File ", "Label", "group", "site"), ("cat/a.png", " cat ", "p1", "north"), ("dog/c.png", "dog", "", "")
    text = bom + ending.join(delimiter.join(row) for row in rows) + ending + ending
    dataset = read_dataset(table(photos, text))
    assert pairs(dataset) == [("cat/a.png", "cat"), ("dog/c.png", "dog")]
    assert [sample.group for sample in dataset.samples] == ["p1", None]
    assert [sample.metadata for sample in dataset.samples] == [{"site": "north"}, {}]
    assert dataset.samples[0].source == photos / "cat" / "a.png"


def test_columns_can_be_named_and_a_wrong_one_names_a_near_one(photos):
    path = table(photos, "where,what,who,site,label\ncat/a.png,1,p,n,0\n")
    dataset = read_dataset(path, path="where", label="what", group="who", metadata=["site"])
    assert dataset.samples == (Sample("cat/a.png", 1, None, "p", {"site": "n"}),)
    for wrong in ({"label": "wat"}, {"group": "whoo"}, {"metadata": ["sites"]}, {"path": "wher"}):
        with pytest.raises(UsageError, match="did you mean"):
            read_dataset(path, **{"path": "where", **wrong})
    with pytest.raises(UsageError, match=r"needs a column file .*it has where, what"):
        read_dataset(path)
    with pytest.raises(UsageError, match="list of columns"):
        read_dataset(path, path="where", metadata="site")
    with pytest.raises(UsageError, match="kind of label"):
        read_dataset(path, path="where", kind="klass")


def test_paths_are_relative_to_the_table_or_to_a_root_and_never_leave_it(photos):
    (photos / "tables").mkdir()
    text = f"file,label\ncat/a.png,x\n../cat/b.png,x\n{photos}/dog/c.png,x\ncat/../../etc,x\n"
    dataset = read_dataset(table(photos, text, "tables/t.csv"), root=photos)
    assert pairs(dataset) == [("cat/a.png", "x"), ("dog/c.png", "x")]
    assert all("outside" in reason for reason in reasons(dataset).values())
    assert [*reasons(dataset)] == ["../cat/b.png", "cat/../../etc"]
    with pytest.raises(UsageError, match=r"none of 4 images can be used; the first, cat/a\.png: no such file"):
        read_dataset(photos / "tables" / "t.csv")


def test_broken_rows_are_listed_with_their_reason(photos):
    (photos / "zero.png").write_bytes(b"")
    rows = ("cat/a.png,cat", "none.png,cat", "cat/b.png,", "zero.png,cat", ",dog", "cat,cat", "b,c,d", "x")
    text = "\n".join(["file,label", *rows, "cat/a.png,cat", "a\0b,cat"])
    dataset = read_dataset(table(photos, text))
    assert pairs(dataset) == [("cat/a.png", "cat")]
    found = [(one["path"], one["reason"]) for one in dataset.skipped]
    assert sorted(found[:-3]) == [
        ("cat", "not a file"),
        ("none.png", "no such file"),
        ("row 5", "no path"),
        ("row 7", "row 7 has 3 cells, the header 2"),
        ("row 8", "row 8 has 1 cells, the header 2"),
        ("zero.png", "the file is empty (0 bytes)"),
    ]
    assert found[-3][1].startswith("cannot be read")
    assert found[-2:] == [("cat/b.png", "no label"), ("cat/a.png", "named more than once, always as 'cat'")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\ncat/a.png,cat\n./cat//a.png,dog\n", "cat/a.png is 'cat' and 'dog'"),
        ("file,label\n", "without a row"),
        ("", "it has none"),
        ("file,label,label\ncat/a.png,1,2\n", "'label' is there 2 times"),
        ('file,label\ncat/a.png,"cat\ncat/b.png,cat\n', "cannot be read"),  # an open quote would swallow the rest
        ("file,label\ncat/a.png,\n", "none of 1 images can be used"),
    ],
)
def test_a_table_that_cannot_be_meant_is_told(photos, text, said):
    with pytest.raises(UsageError, match=said):
        read_dataset(table(photos, text))


def test_a_table_in_another_encoding_is_told(photos):
    (photos / "t.csv").write_bytes("file,label\ncat/a.png,Löwe\n".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        read_dataset(photos / "t.csv")


def test_a_folder_with_a_metadata_table_is_read_by_it_and_its_folders_can_be_the_classes(photos):
    table(photos, "file_name,hospital\ncat/a.png,north\ndog/c.png,south\n", "metadata.csv")
    dataset = read_dataset(photos)
    assert pairs(dataset) == [("cat/a.png", "cat"), ("dog/c.png", "dog")]
    assert [sample.metadata["hospital"] for sample in dataset.samples] == ["north", "south"]
    table(photos, "file_name,label\ncat/a.png,3\n", "metadata.csv")
    assert pairs(read_dataset(photos)) == [("cat/a.png", 3)]


# -- kinds of labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "kind", "read"),
    [
        (["cat", "dog", "3"], "class", ["cat", "dog", 3]),
        (["1", "0", "7"], "class", [1, 0, 7]),
        (["1.0", "0.0", "nan"], "class", [1, 0]),  # how pandas writes indices with a gap
        (["007", "n01440764", "1"], "class", ["007", "n01440764", 1]),
        (["0.5", "3", "1e2"], "score", [0.5, 3.0, 100.0]),
        (["-1", "3", "4"], "score", [-1.0, 3.0, 4.0]),
        (["0.5", "nan", "inf"], "score", [0.5]),
        (["cat;dog", "cat", "dog | cat"], "labels", [("cat", "dog"), ("cat",), ("dog", "cat")]),
        (['["cat"]', "[]", "['a', 'b']"], "labels", [("cat",), (), ("a", "b")]),
        (["cat;cat", ";", "1|2"], "labels", [("cat",), (1, 2)]),
        (["[unknown]", "cat", "dog"], "class", ["[unknown]", "cat", "dog"]),
    ],
)
def test_the_kind_of_labels_is_inferred(photos, column, kind, read):
    out = io.StringIO()
    names = ("cat/a.png", "cat/b.png", "dog/c.png")
    csv.writer(out).writerows([("file", "label"), *zip(names, column, strict=True)])
    dataset = read_dataset(table(photos, out.getvalue()))
    assert (dataset.kind, [sample.label for sample in dataset.samples]) == (kind, read)
    assert len(dataset.samples) + len(dataset.skipped) == 3


def test_the_kind_can_be_said_and_a_label_of_another_kind_is_listed(photos):
    path = table(photos, "file,label\ncat/a.png,1\ncat/b.png,0.5\ndog/c.png,a|b\n")
    score = read_dataset(path, kind="score")
    assert ([s.label for s in score.samples], reasons(score)) == ([1.0, 0.5], {"dog/c.png": "'a|b' is no number"})
    assert [s.label for s in read_dataset(path, kind="class").samples] == [1, "0.5", "a|b"]
    several = read_dataset(path, kind="labels")
    assert [s.label for s in several.samples] == [(1,), ("0.5",), ("a", "b")]
    assert read_dataset(several) is several
    assert [s.label for s in read_dataset(several, kind="class").samples] == [1, "0.5"]


def test_whole_numbers_are_scores_under_a_column_of_scores_or_where_they_are_more_than_classes_would_be(photos):
    assert read_dataset(table(photos, "file,score\ncat/a.png,7\n")).kind == "score"
    assert read_dataset(table(photos, "file,name,score\ncat/a.png,Tom,7\n")).samples[0].label == 7.0
    assert read_dataset(table(photos, "file,name\ncat/a.png,cat\n")).samples[0].label == "cat"
    assert read_dataset(table(photos, "file,rating\ncat/a.png,good\n")).kind == "class"
    images = [(Image.new("L", (1, 1)), k) for k in range(1001)]
    assert read_dataset(images[:1000]).kind == "class"
    assert read_dataset(images).kind == "score"


# -- Parquet and Arrow ------------------------------------------------------------------------------------------------

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
NOTED = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}


def stored(colors, labels, **more):
    cells = [{"bytes": encoded(color), "path": None} for color in colors]
    return pa.table({"image": cells, "label": labels, **more}).replace_schema_metadata(NOTED)


def write_arrow(path, rows, form=pa.ipc.new_stream):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, form(sink, rows.schema) as writer:
        for batch in rows.to_batches(max_chunksize=2):
            writer.write_batch(batch)


def saved(folder, *tables):
    """A folder as datasets.save_to_disk leaves it."""
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, rows in zip(names, tables, strict=True):
        write_arrow(folder / name, rows)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def color_of(sample):
    return open_image(sample).convert("RGB").getpixel((0, 0))


RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


@pytest.mark.parametrize("form", ["parquet", "arrow", "hub", "split"])
def test_images_in_hugging_face_files_are_decoded_one_by_one(tmp_path, form):
    first, second = stored(["red", "green"], [0, 1], site=["n", "s"]), stored(["blue"], [-1], site=[None])
    if form == "arrow":
        source, split = saved(tmp_path / "d", first, second), None
    elif form == "split":
        saved(tmp_path / "d" / "test", first, second)
        saved(tmp_path / "d" / "train", second)
        (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        source, split = tmp_path / "d", "test"
    else:
        folder = tmp_path / "d" / ("data" if form == "hub" else "")
        folder.mkdir(parents=True)
        pq.write_table(first, folder / "test-00000-of-00002.parquet", row_group_size=1)
        pq.write_table(second, folder / "test-00001-of-00002.parquet")
        source, split = tmp_path / "d", None
    dataset = read_dataset(source, split=split)
    assert pairs(dataset) == [("item 0", 0), ("item 1", 1), ("item 2", -1)]
    assert (dataset.kind, dataset.classes) == ("class", ("cat", "dog"))
    assert [sample.metadata for sample in dataset.samples] == [{"site": "n"}, {"site": "s"}, {}]
    assert [color_of(sample) for sample in (*dataset.samples, dataset.samples[0])] == [RED, GREEN, BLUE, RED]


def test_splits_of_parquet_files_and_missing_shards_are_told(tmp_path):
    pq.write_table(stored(["red"], [0]), tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(stored(["blue"], [1]), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(UsageError, match="splits test, train"):
        read_dataset(tmp_path)
    assert [sample.label for sample in read_dataset(tmp_path, split="test").samples] == [1]
    with pytest.raises(UsageError, match="did you mean 'test'"):
        read_dataset(tmp_path, split="tst")
    (tmp_path / "test-00000-of-00001.parquet").rename(tmp_path / "test-00001-of-00002.parquet")
    with pytest.raises(UsageError, match="1 of 2 files of 'test' are there; number 0 is missing"):
        read_dataset(tmp_path, split="test")
    assert len(read_dataset(tmp_path / "test-00001-of-00002.parquet")) == 1  # asked for by itself


@pytest.mark.parametrize("form", [None, pa.ipc.new_stream, pa.ipc.new_file])
def test_a_file_whose_writer_was_killed_is_told_wherever_it_was_cut(tmp_path, form):
    rows = stored(["red", "green", "blue"], [0, 1, 0])
    path = tmp_path / ("t.arrow" if form else "t.parquet")
    write_arrow(path, rows, form) if form else pq.write_table(rows, path)
    whole = path.read_bytes()
    for cut in (0, 1, 4, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match=r"not written to its end|damaged"):
            read_dataset(path)
    path.write_bytes(whole)
    assert [color_of(sample) for sample in read_dataset(path).samples] == [RED, GREEN, BLUE]


def test_a_damaged_page_costs_its_images_and_an_empty_cell_its_own(tmp_path):
    path = tmp_path / "t.parquet"
    rows = stored(["red", "green"], [0, 1])
    pq.write_table(rows, path, row_group_size=1, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    where = content.index(encoded("green"))
    content[where - 4 : where] = b"\xff\xff\xff\x7f"  # the length of the image
    path.write_bytes(content)
    good, bad = read_dataset(path).samples
    assert color_of(good) == RED
    with pytest.raises(ImageError, match=r"t\.parquet, column image, row 0 of group 1"):
        open_image(bad)
    picture(tmp_path / "own.png")
    cells = [{"bytes": None, "path": p} for p in ("own.png", None, "../x.png")] + [{"bytes": b"no", "path": "a"}]
    pq.write_table(pa.table({"image": cells, "label": [0, 1, 0, 1]}), path)
    own, *broken = read_dataset(path).samples
    assert open_image(own) == tmp_path / "own.png"
    for sample, said in zip(broken, ("0 bytes", "outside", "not an image"), strict=True):
        with pytest.raises(ImageError, match=said):
            open_image(sample)


def test_a_parquet_table_of_paths_and_lists(photos):
    columns = {"path": ["cat/a.png", "cat/b.png"], "labels": [["x", "y"], []], "at": [None, 2.5], "v": [[1.0], [2.0]]}
    pq.write_table(pa.table(columns), photos / "t.PARQUET")
    dataset = read_dataset(photos / "t.PARQUET")
    assert (dataset.kind, pairs(dataset)) == ("labels", [("cat/a.png", ("x", "y")), ("cat/b.png", ())])
    assert [sample.metadata for sample in dataset.samples] == [{}, {"at": "2.5"}]
    pq.write_table(pa.table({**columns, "b": [1, 2]}), photos / "u.parquet")
    with pytest.raises(UsageError, match="give one data set"):
        read_dataset(photos)


def test_without_pyarrow_the_install_line_is_given(tmp_path, monkeypatch):
    pq.write_table(pa.table({"file": ["a"], "label": [1]}), tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"seewhy\[parquet\]"):
        read_dataset(tmp_path / "t.parquet")


# -- Datasets and lists -----------------------------------------------------------------------------------------------


class Own(Dataset):
    """A user's Dataset that counts what it is asked for."""

    classes = ("cat", "dog")

    def __init__(self, items):
        self.items, self.asked = items, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.asked.append(i)
        if isinstance(self.items[i], Exception):
            raise self.items[i]
        return self.items[i]


def test_a_dataset_is_asked_once_for_its_labels_and_again_for_an_image():
    items = Own(
        [
            (torch.zeros(3, 4, 4), torch.tensor(1), {"group": 7, "site": "n", "age": float("nan")}),
            (torch.ones(3, 4, 4), np.int64(0)),
            OSError("disk"),
            torch.zeros(3),
            (np.zeros((4, 4, 3), np.uint8), 1),
        ]
    )
    dataset = read_dataset(items)
    assert items.asked == [0, 1, 2, 3, 4]
    assert pairs(dataset) == [("item 0", 1), ("item 1", 0), ("item 4", 1)]
    assert (dataset.samples[0].group, dataset.samples[0].metadata) == ("7", {"site": "n"})
    assert dataset.classes == ("cat", "dog")
    assert reasons(dataset)["item 2"] == "OSError: disk"
    assert "expected (image, label" in reasons(dataset)["item 3"]
    assert torch.equal(open_image(dataset.samples[1]), torch.ones(3, 4, 4))
    assert isinstance(open_image(dataset.samples[2]), Image.Image)
    items.items[1] = ValueError("now broken")
    with pytest.raises(ImageError, match="item 1: ValueError: now broken"):
        open_image(dataset.samples[1])


def test_a_list_of_pairs_keeps_its_images(photos):
    gray = Image.new("L", (2, 2))
    items = [(photos / "cat" / "a.png", "cat"), (gray, "dog"), ("none.png", "dog"), (object(), "dog"), (gray, None)]
    dataset = read_dataset(items)
    assert pairs(dataset) == [(str(photos / "cat" / "a.png"), "cat"), ("item 1", "dog"), ("item 3", "dog")]
    assert dataset.samples[1].source is gray
    assert reasons(dataset) == {"none.png": "no such file", "item 4": "no label"}
    with pytest.raises(ImageError, match="a object; expected"):
        open_image(dataset.samples[2])


def test_vectors_of_zeros_and_ones_are_several_labels():
    gray = Image.new("L", (2, 2))
    vectors = (torch.tensor([0, 1, 1], dtype=torch.bfloat16), np.zeros(3), ["a", "b"], {"y", "x"})
    dataset = read_dataset([(gray, label) for label in vectors])
    assert (dataset.kind, [s.label for s in dataset.samples]) == ("labels", [(1, 2), (), ("a", "b"), ("x", "y")])
    with pytest.raises(UsageError, match=r"none of 1 images.*no class") as error:
        read_dataset([(gray, np.full((64, 64), 0.5))])  # a mask
    assert len(str(error.value)) < 200
    assert len(repr(dataset)) < 80


def test_torchvision_tells_its_labels_without_an_image(photos, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    folder = datasets.ImageFolder(str(photos))
    monkeypatch.setattr(folder, "loader", lambda _: pytest.fail("decoded"))
    assert [s.label for s in read_dataset(folder).samples] == [0, 0, 1]
    subset = read_dataset(Subset(folder, [2, 0]))
    assert ([s.label for s in subset.samples], subset.classes) == ([1, 0], ("cat", "dog"))

    class Renumbered(datasets.ImageFolder):
        def __getitem__(self, i):
            return super().__getitem__(i)[0], 5

    assert [s.label for s in read_dataset(Renumbered(str(photos))).samples] == [5, 5, 5]
    changed = datasets.ImageFolder(str(photos), target_transform=lambda k: k + 3)
    assert [s.label for s in read_dataset(Subset(changed, [2])).samples] == [4]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize("source", [7, None, {"a": 1}, Stream(), [], ["a.png"], [(1,)], torch.zeros(2, 3)])
def test_what_is_no_data_set_is_told(source):
    with pytest.raises(UsageError, match=r"data set is|expected \(image, label"):
        read_dataset(source)


def test_columns_are_for_tables_alone():
    dataset = DataSet((Sample("a", 1, Image.new("L", (1, 1))),), "class", None)
    assert read_dataset(dataset) is dataset
    with pytest.raises(UsageError, match="group= is about a table"):
        read_dataset(dataset, group="x")


# -- size, and anything at all ----------------------------------------------------------------------------------------


def test_a_hundred_thousand_rows_are_read_in_seconds(photos):
    n = 100_000
    for k in range(50):
        os.link(photos / "cat" / "a.png", photos / f"{k}.png")
    lines = [f"{'./' * (i // 50 % 3)}{i % 50}.png,{i % 50 % 7},{i % 91}\n" for i in range(n)]
    start = time.process_time()
    dataset = read_dataset(table(photos, "file,label,group\n" + "".join(lines)))
    assert (len(dataset), len(dataset.skipped)) == (50, n - 50)
    cells = [{"bytes": b"x", "path": None}] * n
    pq.write_table(pa.table({"image": cells, "label": [i % 7 for i in range(n)]}), photos / "t.parquet")
    assert len(read_dataset(photos / "t.parquet")) == n
    assert time.process_time() - start < 20  # about 2 s here; a quadratic step would take minutes


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["cat/a.png", "dog/c.png", "..", "1", "0.5", "nan", "a;b", "[1]", "[[[", "['x']", "", " ", "/", "1" * 400]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=3), max_size=8),
    kind=st.sampled_from([None, *KINDS]),
)
def test_of_any_table_every_row_is_used_or_listed_or_the_table_is_refused(photos, rows, kind):
    out = io.StringIO()
    csv.writer(out).writerows([("file", "label"), *rows])
    try:
        dataset = read_dataset(table(photos, out.getvalue()), kind=kind)
    except UsageError:
        return
    used = [row for row in rows if any(cell.strip() for cell in row)]
    assert len(dataset) + len(dataset.skipped) == len(used)
    assert len({sample.name for sample in dataset.samples}) == len(dataset)
    allowed = {"class": int | str, "labels": tuple, "score": float}[dataset.kind]
    assert all(isinstance(sample.label, allowed) for sample in dataset.samples)
    assert all(sample.name in ("cat/a.png", "dog/c.png", "cat/b.png", "t.csv") for sample in dataset.samples)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_table_or_refused(photos, content):
    for name in ("t.csv", "t.parquet", "t.arrow"):
        (photos / name).write_bytes(content)
        with pytest.raises(UsageError):
            read_dataset(photos / name)
