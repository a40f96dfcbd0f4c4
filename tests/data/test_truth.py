"""The true class of an image: from a table or from its folder; what is missing or ambiguous is named."""

import pytest
from PIL import Image

import seewhy as sw
from seewhy.data.truth import read_truth


@pytest.fixture
def photos(tmp_path):
    found = []
    for name in ("cat/a.png", "cat/b.png", "7/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
        found.append(tmp_path / name)
    return found


def table(folder, text):
    (folder / "t.csv").write_text(text)
    return folder / "t.csv"


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.png,cat\nb.png,3\nc.png,owl\n",
        "\ufeffFile;Label".replace(";", ",") + "\na.png,cat\nb.png,3\nc.png,owl\n",
        "wnid,path,class_index\nx,a.png,cat\nx,b.png,3\nx,c.png,owl\n",
    ],
)
def test_a_table_gives_names_and_indices(tmp_path, photos, text):
    assert read_truth(table(tmp_path, text), photos) == ["cat", 3, "owl"]


def test_a_whole_path_is_told_from_another_file_of_that_name(tmp_path, photos):
    other = tmp_path / "7" / "a.png"
    found = read_truth(table(tmp_path, f"file,label\n{photos[0]},1\n{other},2\n"), [photos[0], other])
    assert found == [1, 2]


def test_the_folder_can_be_the_class(photos):
    assert read_truth("folders", photos) == ["cat", "cat", 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.png,1\n", "b.png is not in it"),
        ("file,label\nx/a.png,1\ny/a.png,2\nb.png,1\nc.png,1\n", "has 2 labels"),
        ("picture,what\na.png,1\n", "needs a column file; it has picture, what"),
        ("", "it has none"),
    ],
)
def test_a_table_that_lacks_something_says_what(tmp_path, photos, text, said):
    with pytest.raises(sw.UsageError, match=said):
        read_truth(table(tmp_path, text), photos)


def test_a_table_that_is_not_there_names_a_near_one(tmp_path, photos):
    table(tmp_path, "")
    with pytest.raises(sw.UsageError, match=r"Did you mean 't\.csv'"):
        read_truth(tmp_path / "tt.csv", photos)


def test_bytes_that_are_no_text_and_short_rows_are_told(tmp_path, photos):
    (tmp_path / "b.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(sw.UsageError, match="cannot be read"):
        read_truth(tmp_path / "b.csv", photos)
    with pytest.raises(sw.UsageError, match="cannot be read"):
        read_truth(table(tmp_path, "file,label\na.png\n"), photos)
