"""Any network from the command line: how it wants its pixels, and its maps on the photo."""

import json

import pytest
import torch
from PIL import Image
from zoo import TINY

from nets import tiny_cnn

OWN = ("--model", "mine:net", "--size", "32x40", "--mean", "0.5,0.5,0.5", "--std", ".2,.3,.4")


@pytest.fixture
def own(seewhy, tmp_path):
    (tmp_path / "mine.py").write_text("from nets import tiny_cnn as net\n")
    return seewhy


def test_an_own_network_is_explained_with_the_pixels_that_the_options_say(own, tmp_path):
    options = (*OWN, "--framing", "pad", "--task", "multilabel", "--target", "3")
    code, out, err = own("explain", "cat.png", *options, "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert (row["image"]["shape"], row["provenance"]["task"]) == ([3, 32, 40], "multilabel")
    assert row["image"]["geometry"]["box"][1] < 0  # padded left and right
    assert row["provenance"]["weights"] == "as mine:net gives it"
    assert "as mine:net gives it" in (tmp_path / "seewhy-run" / "index.html").read_text()


@pytest.mark.parametrize("labels", ["names.txt", "names.json", "names.csv"])
def test_labels_of_every_form_name_the_target(own, tmp_path, labels):
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    (tmp_path / "names.json").write_text('{"0": "ant", "1": "bee", "2": "cat", "3": "dog", "4": "eel"}')
    (tmp_path / "names.csv").write_text("index,name\n0,ant\n1,bee\n2,cat\n3,dog\n4,eel\n")
    code, out, _ = own("explain", "cat.png", *OWN, "--labels", labels, "--target", "cat", "--json")
    assert code == 0
    assert json.loads(out)["rows"][0]["target"]["text"] == "logit of 2 cat"


def test_a_program_file_needs_its_size_and_takes_methods_on_the_input(seewhy, tmp_path, recwarn):
    torch.jit.save(torch.jit.trace(tiny_cnn(), torch.rand(1, 3, 32, 32)), tmp_path / "net.pt")
    recwarn.clear()
    code, _, err = seewhy("explain", "cat.png", "--model", "net.pt", "--method", "gradient")
    assert code == 2
    assert "--size" in err
    code, _, err = seewhy("explain", "cat.png", "--model", "net.pt", "--size", "32", "--method", "gradient")
    assert (code, err) == (0, "")
    code, _, err = seewhy("explain", "cat.png", "--model", "net.pt", "--size", "32")
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def test_layers_and_mean_image_take_the_same_options(own, tmp_path):
    code, out, _ = own("layers", *OWN, "--json")
    assert code == 0
    assert json.loads(out)["layers"][0]["grid"] == [16, 20]
    code, out, _ = own("mean-image", "cat.png", *OWN, "--framing", "stretch", "--json")
    assert code == 0
    with Image.open(tmp_path / "mean.png") as picture:
        assert picture.size == (40, 32)


def test_on_photo_writes_the_map_over_the_whole_photo_and_the_page_links_it(seewhy, tmp_path):
    code, out, err = seewhy("explain", "cat.png", *TINY, "--on-photo", "--json", "--out", "run")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    with Image.open(tmp_path / "run" / row["picture_on_photo"]) as picture:
        assert picture.height > 80
    assert f'href="{row["picture_on_photo"]}"' in (tmp_path / "run" / "index.html").read_text()
    _, out, _ = seewhy("explain", "cat.png", *TINY, "--json", "--out", "again")
    assert json.loads(out)["rows"][0]["picture_on_photo"] is None
    assert "over the whole photo" not in (tmp_path / "again" / "index.html").read_text()


def test_on_photo_with_a_preprocess_of_ones_own_is_refused_before_any_work(seewhy, tmp_path):
    code = "import seewhy as sw, torch\nfrom nets import tiny_cnn\n"
    code += "def net(): return sw.wrap(tiny_cnn(), size=32, preprocess=lambda image: torch.rand(3, 32, 32))\n"
    (tmp_path / "own_preprocess.py").write_text(code)
    code, _, err = seewhy("explain", "cat.png", "--model", "own_preprocess:net", "--on-photo")
    assert code == 2
    assert "the way back to a photo is unknown" in err
    assert not (tmp_path / "seewhy-run").exists()
    assert seewhy("explain", "cat.png", "--model", "own_preprocess:net")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--size", "big"), "--size is one number, or height x width"),
        (("--size", "32x32x32"), "--size is one number"),
        (("--size", "0"), "at least 1"),
        (("--mean", "a,b,c"), "--mean is one number per channel"),
        (("--mean", "0.5,0.5,0.5,0.5"), "std holds one number per channel"),
        (("--crop", "1.5"), "crop"),
        (("--framing", "squash"), "unknown framing"),
        (("--task", "multi"), "multiclass"),
        (("--model", "mine:not"), "did you mean 'net'"),
        (("--model", "file.pth"), "no such model file"),
        (("--model", "torchvision:resnet5o"), "did you mean 'resnet50'"),
        (("--model", "hf:nobody/nothing"), "hf download nobody/nothing"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line_before_any_work(own, tmp_path, arguments, said):
    code, out, err = own("explain", "cat.png", *OWN, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "seewhy-run").exists()
