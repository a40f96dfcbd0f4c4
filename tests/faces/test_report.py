import base64
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from zoo import cat

import seewhy as sw
from nets import tiny_cnn
from seewhy import draw
from seewhy.faces import report, words

LABELS = ["cat", "dog", "owl", "fox", "elk"]


@pytest.fixture
def model():
    return sw.wrap(tiny_cnn(), size=32, labels=LABELS, mean=(0.5,) * 3, std=(0.25,) * 3)


def run_folder(model, folder, *methods, **options):
    for method in methods or ("grad_cam", "integrated_gradients", "edge_map"):
        sw.explain(model, cat(), method, **options).save(folder)
    return folder


def maps_on(page):
    return [
        np.asarray(Image.open(BytesIO(base64.b64decode(data))))
        for data in re.findall(r"--map: url\(data:image/png;base64,([^)]+)\)", page)
    ]


def test_the_maps_on_the_page_are_the_saved_ones_once_each_at_their_own_grid(model, tmp_path):
    page = sw.report(run_folder(model, tmp_path)).read_text()
    shown = maps_on(page)
    for method, gray in zip(("grad_cam", "integrated_gradients", "edge_map"), shown, strict=True):
        raw = sw.read_explanation(tmp_path, method).raw[0].numpy()
        limit = draw.limit_of(raw, "positive" if method != "integrated_gradients" else "signed")
        assert gray.shape == raw.shape
        assert np.abs((gray.astype(float) - 128) / 127 * limit - raw.clip(-limit, limit)).max() <= limit / 127


def test_the_page_needs_nothing_from_outside(model, tmp_path):
    page = sw.report(run_folder(model, tmp_path)).read_text()
    assert not re.findall(r"(?:src|href)\s*=|https?://|@import|url\((?!data:|#sw-)", page.replace("url({{", ""))


def test_the_page_is_whole(model, tmp_path):
    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open_tags = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "input", "br", "i"):
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("br", "i"):
                assert self.open_tags.pop() == tag

    parser = Balance()
    parser.feed(sw.report(run_folder(model, tmp_path)).read_text())
    assert parser.open_tags == []


def test_a_notebook_shows_the_same_section_as_the_page(model, tmp_path):
    e = sw.explain(model, cat(), "grad_cam")
    e.save(tmp_path)
    page = sw.report(tmp_path).read_text()
    (section,) = re.findall(r"<section class=\"sw-section\".*?</section>", e._repr_html_(), re.DOTALL)
    assert section in page


def test_nothing_is_drawn_where_there_is_no_map(model, tmp_path):
    with torch.no_grad():
        model.module.fc.weight.zero_()
    page = sw.report(run_folder(model, tmp_path, "gradient")).read_text()
    assert maps_on(page) == []
    assert "the gradient is exactly zero" in page


def test_a_question_and_its_contrast_are_asked_in_words(model, tmp_path):
    run_folder(model, tmp_path, "grad_cam", target="owl")
    page = sw.report(run_folder(model, tmp_path, "grad_cam", target="owl - fox")).read_text()
    assert "Why owl?" in page
    assert "Why owl and not fox?" in page


def test_the_evidence_of_a_path_is_told_with_its_numbers_and_its_limit(model):
    record = sw.explain(model, cat(), "integrated_gradients", tolerance=1e-9, max_rows=80).rows()[0][0]
    said = " ".join(words.evidence(record))
    assert "black picture" in said
    assert "Not converged" in said
    assert words.percent(record["evidence"]["path_error"]) in said


def test_a_control_is_told_as_one(model):
    assert "tells no more" in words.evidence(sw.explain(model, cat(), "random_map").rows()[0][0])[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.013, "1.3 %"), (0.0004, "0.04 %"), (0.997, "100 %"), (1.41, "141 %"), (None, "an undefined share")],
)
def test_percentages_are_short_and_true(value, text):
    assert words.percent(value) == text


def test_the_browsers_palette_is_the_one_that_pictures_use():
    palettes = report._palettes()
    for picture, gray, value in (("signed", 0, -1), ("signed", 255, 1), ("positive", 255, 1), ("magnitude", 1, -1)):
        table = np.array([[float(v) for v in palettes[picture]["channels"][c].split()] for c in "RGB"]).T
        drawn = draw.heatmap(np.array([[value]], np.float32), picture, limit=1.0)[0, 0] / 255
        assert np.abs(table[round(gray / 3)] - drawn).max() < 0.02


def test_an_empty_run_has_a_page_that_says_so(tmp_path):
    from seewhy.runfolder import open_folder

    assert "holds no map" in sw.report(open_folder(tmp_path / "run")).read_text()
