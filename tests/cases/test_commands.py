"""The command line as users meet it: folders with broken files, no display, half of the packages missing."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from zoo import TINY, cat

import seewhy as sw

# row 76

GRAPHICAL = {"cv2", "matplotlib", "tkinter", "_tkinter", "PyQt5", "PyQt6", "IPython", "pandas", "skimage", "sklearn"}
OPTIONAL = {"timm", "torchvision", "transformers", "typer", "rich", "jinja2", "captum", "safetensors", *GRAPHICAL}


def run(code, folder, missing):
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "HOME")}
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules.update(dict.fromkeys({missing!r}))\n{code}"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_library_explains_saves_and_draws_with_torch_numpy_scipy_and_pillow_alone(tmp_path):
    done = run(
        "import torch, seewhy as sw\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))\n"
        "for method in ('gradient', 'grad_cam', 'occlusion'):\n"
        "    e = sw.explain(sw.wrap(net), torch.rand(1, 3, 8, 8), method, 1)\n"
        "    e.overlay().save(method + '.png'); e.save('run'); print(e)\n"
        "try: sw.load('timm:resnet18', weights='random')\n"
        "except sw.MissingExtraError as error: print(error)\n",
        tmp_path,
        OPTIONAL,
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'seewhy[timm]'" in done.stdout
    with Image.open(tmp_path / "gradient.png") as picture:
        assert picture.mode == "RGB"
    assert sw.read_explanation(tmp_path / "run", method="occlusion").grid == (8, 8)


def test_the_command_line_and_its_page_work_headless_without_opencv_and_matplotlib(seewhy, tmp_path, monkeypatch):
    for name in GRAPHICAL:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = seewhy("explain", "cat.png", *TINY, "--out", "run", "--method", "grad_cam", "--method", "gradient")
    assert (code, err) == (0, "")
    assert out.strip().endswith("index.html")
    assert (tmp_path / "run" / "index.html").read_text().count("<figure") == 2
    assert seewhy("report", "run")[0] == 0


# row 77


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos" / "deeper"
    photos.mkdir(parents=True)
    cat().save(tmp_path / "photos" / "cat.jpg")
    cat().convert("L").save(tmp_path / "photos" / "gray.png")
    cat().convert("CMYK").save(photos / "cmyk.jpg")
    Image.fromarray(np.asarray(cat().convert("L"), np.uint16) * 256).save(photos / "sixteen.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "photos" / "notes.txt").write_text("not an image at all, and not looked at")
    return tmp_path / "photos"


@pytest.fixture
def own_checkpoint(tmp_path):
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("test_resnet", num_classes=3)
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "mine.pth")
    (tmp_path / "names.txt").write_text("Straße, naß\nan owl\n日本\n")
    return ("--model", "timm:test_resnet", "--weights", "mine.pth", "--labels", "names.txt")


def test_a_folder_with_a_broken_file_under_an_own_checkpoint_is_done_in_part_and_says_so(
    seewhy, folder, own_checkpoint
):
    method = ("--method", "grad_cam", "--method", "gradient")
    code, out, err = seewhy("explain", "photos", *own_checkpoint, *method, "--out", "run", "--json")
    assert code == 3
    found = json.loads(out)
    assert len(found["rows"]) == 4 * 2
    (skipped,) = found["skipped"]
    assert skipped["path"].endswith("broken.jpg")
    assert "broken.jpg" in err
    assert {row["target"]["label"] for row in found["rows"]} <= {"Straße, naß", "an owl", "日本"}
    run = folder.parent / "run"
    assert len(list((run / "maps").iterdir())) == 8
    assert len(list((run / "pictures").iterdir())) == 8
    page = (run / "index.html").read_text()
    assert page.count("<figure") == 8
    assert "broken.jpg" in page
    for method in ("grad_cam", "gradient"):
        e = sw.read_explanation(run, method=method)
        assert len(e) == 4
        assert torch.isfinite(e.raw).all()


def test_the_exit_code_says_whether_more_was_skipped_than_allowed(seewhy, folder):
    arguments = ("explain", "photos", *TINY, "--method", "edge_map", "--out", "run")
    assert [seewhy(*arguments, "--max-skipped", allowed)[0] for allowed in (0, 1)] == [3, 0]


def test_the_same_command_again_doubles_nothing_and_gives_the_same_maps(seewhy, folder):
    def maps():
        seewhy("explain", "photos", *TINY, "--max-skipped", "1", "--out", "run")
        return sw.read_explanation(folder.parent / "run")

    first, second = maps(), maps()
    assert len(first) == len(second) == 4
    assert torch.equal(first.raw, second.raw)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("empty",), "without an image"),
        (("nowhere",), "no such file"),
        (("notes.txt",), "not an image"),
        (("photos", "--target", "4"), "3 classes|0 to 2"),
        (("photos", "--target", "an wol"), "an owl"),
        (("photos", "--layer", "layer9"), "layer4"),
        (("photos", "--out", "photos"), "photos"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_line_and_exit_code_2(seewhy, folder, own_checkpoint, arguments, said):
    (folder.parent / "empty").mkdir()
    (folder.parent / "notes.txt").write_text("no picture")
    before = sorted(path.name for path in folder.iterdir())
    code, _, err = seewhy("explain", *arguments, *own_checkpoint)
    assert code == 2
    assert re.search(said, err)
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("name", ["naïve 猫, ;.png", "-[red]100%.png", "x" * 200 + ".png"])
def test_a_photo_of_any_name_has_its_row_and_its_page(seewhy, tmp_path, name):
    cat((32, 32)).save(tmp_path / name)
    code, out, _ = seewhy("explain", f"./{name}", *TINY, "--method", "gradient", "--out", "run", "--json")
    assert code == 0
    assert json.loads(out)["rows"][0]["image"]["name"].endswith(name)
    assert (tmp_path / "run" / "index.html").exists()
