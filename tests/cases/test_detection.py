"""Detectors: the score of a box is explained; no box is a result, not a fault."""

import pytest
import torch

import seewhy as sw
from cases.nets import QUICK, detector, state_of
from nets import images


def explain(x, method="gradient", target=None, net=None, **given):
    model = sw.wrap(detector() if net is None else net, task="detection")
    return sw.explain(model, x, method, target, **{**QUICK.get(method, {}), **given})


def one_empty():
    x = images(3) * 0.8 + 0.1
    x[1] = 0.0
    return x


# row 72


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "grad_cam", "occlusion"])
def test_an_image_without_a_box_is_a_result_and_the_batch_goes_on(method, tmp_path):
    x = one_empty()
    e = explain(x, method, sw.target.box(0))
    assert e.status[1] is sw.Status.NO_DETECTION
    assert sw.Status.NO_DETECTION not in (e.status[0], e.status[2])
    assert not e.raw[1].any()
    assert all(e.raw[i].any() for i in (0, 2))
    assert torch.isfinite(e.raw).all()
    alone = explain(x[2:], method, sw.target.box(0))
    assert torch.allclose(e.raw[2], alone.raw[0], atol=1e-5 * float(alone.raw.abs().max()))
    for draw in (e.heatmap, e.overlay):
        assert draw(1).size == (32, 32)  # a sentence, no color bar
    again = sw.read_explanation(e.save(tmp_path / "run"))
    assert again.status == e.status


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_nothing_but_images_without_a_box(method):
    e = explain(torch.zeros(2, 3, 32, 32), method, sw.target.box(0))
    assert e.status == [sw.Status.NO_DETECTION] * 2
    assert not e.raw.any()


def test_the_first_box_is_the_default_and_its_place_and_class_are_said():
    net, x = detector(), images(2)
    e, asked = explain(x), explain(x, target=sw.target.box(0))
    assert torch.equal(e.raw, asked.raw)
    with torch.no_grad():
        detections = net(x)
    for i, found in enumerate(detections):
        best = int(found["scores"].argmax())
        assert float(e.scores[i]) == pytest.approx(float(found["scores"][best]), abs=1e-5)
        assert e.targets[i]["box"] == pytest.approx(found["boxes"][best].tolist(), abs=1e-3)
        assert str(int(found["labels"][best])) in e.target_text[i]


def test_two_boxes_of_an_image_have_two_maps_and_a_third_is_no_detection():
    x = images(1)
    e = explain(x, target=[[sw.target.box(0), sw.target.box(1), sw.target.box(2)]])
    assert e.image_index == [0, 0, 0]
    assert not torch.equal(e.raw[0], e.raw[1])
    assert e.status[2] is sw.Status.NO_DETECTION


@pytest.mark.parametrize("method", ["gradient", "grad_cam"])
def test_nothing_is_left_behind_on_a_detector(method):
    net = detector().train()
    before = state_of(net)
    explain(one_empty(), method, sw.target.box(0), net)
    assert state_of(net) == before


@pytest.mark.parametrize("index", [-1, 1.5, "first", True])
def test_what_is_no_number_of_a_box_is_a_usage_error(index):
    box = sw.target.box
    with pytest.raises(sw.UsageError):
        explain(images(1), target=box(index))


def test_a_class_asked_of_a_detector_shows_the_recipe():
    with pytest.raises(sw.UsageError, match=r"sw\.target\.box"):
        explain(images(1), target=1)
