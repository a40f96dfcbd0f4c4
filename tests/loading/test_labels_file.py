import pytest

import seewhy as sw
from seewhy.errors import UsageError
from seewhy.loading import read_labels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "cat\ndog\n\nsnow owl\n"),
        ("a.names", "\ufeffcat\r\n dog \r\nsnow owl"),
        ("a.json", '["cat", "dog", "snow owl"]'),
        ("a.json", '{"0": "cat", "1": "dog", "2": "snow owl"}'),
        ("a.JSON", '{"2": "snow owl", "0": "cat", "1": "dog"}'),
        ("a.json", '{"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "snow owl"]}'),
        ("a.csv", "index,name\n0,cat\n1,dog\n2,snow owl\n"),
        ("a.csv", 'name,color,Index\n"snow owl",white,2\ncat,black,0\ndog,red,1\n'),
        ("a.csv", "0,cat\n1,dog\n2,snow owl\n"),
        ("a.csv", "class,label\n1,dog\n0,cat\n2,snow owl\n"),
    ],
)
def test_every_form_of_a_labels_file_gives_the_names_in_order(tmp_path, name, content):
    (tmp_path / name).write_text(content, "utf-8")
    assert read_labels(tmp_path / name) == ["cat", "dog", "snow owl"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "\n \n", "no class name"),
        ("a.json", "[", "not JSON"),
        ("a.json", "[1, 2]", "list of class names"),
        ("a.json", '"cat"', "list of class names"),
        ("a.json", "{}", "no class name"),
        ("a.json", '{"0": "cat", "2": "dog"}', "has no index 1"),
        ("a.json", '{"cat": 0}', "every index"),
        ("a.json", '{"0": 7}', "every index"),
        ("a.csv", "", "no class name"),
        ("a.csv", "cat\ndog\n", "columns index and name"),
        ("a.csv", "0,cat\n0,dog\n", "index 0 more than once"),
        ("a.csv", "0,cat\n2,dog\n", "has no index 1"),
        ("a.csv", "index,name\nfirst,cat\n", "every index"),
    ],
)
def test_a_labels_file_that_cannot_be_meant_is_a_usage_error(tmp_path, name, content, said):
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UsageError, match=said) as caught:
        read_labels(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_or_binary_labels_file_is_a_usage_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x01")
    for path in (tmp_path / "a.txt", tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_labels(path)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_load_takes_a_labels_file_and_holds_their_number_against_the_outputs(tmp_path, kind):
    (tmp_path / "a.txt").write_text("\n".join(f"thing {i}" for i in range(1000)))
    model = sw.load("timm:test_resnet", weights="random", labels=kind(tmp_path / "a.txt"))
    assert model.labels[999] == "thing 999"
    (tmp_path / "a.txt").write_text("cat\ndog")
    model = sw.load("timm:test_resnet", weights="random", labels=kind(tmp_path / "a.txt"))
    with pytest.raises(UsageError, match="2 labels given, but the network has 1000 outputs"):
        model.output_shape((3, 160, 160))
