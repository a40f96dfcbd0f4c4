"""What a detector sees: which box is explained, what a later output says of it, and images on which nothing is detected."""

import numpy as np
import pytest
import torch

import seewhy as sw
from nets import images
from seewhy import target as questions
from seewhy.registry import METHODS
from seewhy.target import Target, resolve
from small import REPRESENTATIVES, SMALL
from task_nets import bright, detector, queries

sw.methods()
METHODS_HERE = [name for name in REPRESENTATIVES if name in METHODS and "attention" not in name]
ROW = torch.arange(1)
SEEN, DARK = bright((1, 2, 1.0), (3, 0, 0.9)), bright()


def wrapped(net=None, **given):
    return sw.wrap(detector() if net is None else net, **{"size": 32, "task": "detection", **given})


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**SMALL.get(method, {}), **given})


def detection(boxes, labels, scores):
    return {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


OVERLAPPING = detection(
    [[0, 0, 10, 10], [2, 0, 12, 10], [0, 0, 9, 10], [40, 40, 50, 50]], [1, 1, 2, 1], [0.9, 0.2, 0.8, 0.1]
)


def settled(rank, outputs, threshold=0.0):
    return resolve(questions.box(rank, threshold), None, "detection").settle(outputs, torch.arange(len(outputs)))


# -- the question ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "score"), [(0, 0.9), (1, 0.8), (2, 0.2), (3, 0.1)])
def test_the_score_of_a_box_in_its_own_image_is_its_own_also_beside_a_more_certain_one(rank, score):
    question = settled(rank, [OVERLAPPING])
    assert question([OVERLAPPING], ROW).item() == pytest.approx(score)


def test_later_a_box_is_what_overlaps_it_best_times_its_score():
    question = settled(0, [OVERLAPPING])
    later = detection([[0, 0, 5, 10], [0, 0, 10, 8], [0, 0, 10, 10]], [1, 1, 2], [0.9, 0.5, 1.0])
    assert question([later], ROW).item() == pytest.approx(max(0.5 * 0.9, 0.8 * 0.5))
    elsewhere = detection([[20, 20, 30, 30]], [1], [0.9])
    assert question([elsewhere], ROW).item() == 0


def test_boxes_are_ranked_by_score_whatever_their_order():
    shuffled = detection([[0, 0, 1, 1], [5, 5, 9, 9]], [2, 1], [0.1, 0.6])
    question = settled(0, [shuffled])
    assert question.index.tolist() == [1]
    assert question.boxes.box.tolist() == [[5, 5, 9, 9]]


def test_the_gradient_is_that_of_the_score_and_not_of_the_overlap():
    scores, boxes = torch.tensor([0.4], requires_grad=True), torch.tensor([[0.0, 0.0, 8.0, 10.0]], requires_grad=True)
    question = settled(0, [OVERLAPPING])
    question([{"boxes": boxes, "labels": torch.tensor([1]), "scores": scores}], ROW).sum().backward()
    assert scores.grad.item() == pytest.approx(0.8)
    assert boxes.grad is None


def test_a_row_without_that_box_has_a_gradient_of_exactly_zero():
    scores = torch.tensor([0.4], requires_grad=True)
    other = {"boxes": torch.zeros(1, 4), "labels": torch.tensor([2]), "scores": scores}
    settled(0, [OVERLAPPING])([other], ROW).sum().backward()
    assert scores.grad.tolist() == [0]


def test_the_threshold_decides_what_is_detected():
    for threshold, found in ((0.9, True), (0.91, False)):
        assert settled(0, [OVERLAPPING], threshold).found.tolist() == [found]
    assert settled(4, [OVERLAPPING]).found.tolist() == [False]


@pytest.mark.parametrize("none", [True, False], ids=["softmax with no object", "sigmoid"])
def test_a_query_of_a_detr_keeps_its_class(none):
    net, x = queries(none=none), images(3)
    outputs, labels = net(x), ["a", "b", "c"]
    table = outputs.logits.detach()
    p = table.softmax(2)[..., :-1] if none else table.sigmoid()
    question = resolve(questions.box(1, 0), labels, "detection").settle(outputs, torch.arange(3))
    best = p.amax(2).argsort(dim=1, descending=True)[:, 1]
    rows = torch.arange(3)
    assert torch.equal(question.boxes.query, best)
    assert torch.equal(question.index, p[rows, best].argmax(1))
    assert torch.equal(question.on("logit")(outputs, rows), outputs.logits[rows, best, question.index])
    assert torch.allclose(question.on("probability")(outputs, rows), p[rows, best, question.index])
    assert torch.allclose(question.boxes.confidence, p[rows, best, question.index])
    center, size = outputs.pred_boxes[rows, best].chunk(2, 1)
    in_pixels = question.boxes.in_pixels((10, 20)).box
    assert torch.allclose(
        in_pixels, torch.cat([center - size / 2, center + size / 2], 1) * torch.tensor([20, 10, 20, 10])
    )


def test_as_many_labels_as_neither_form_has_is_an_error_with_both_numbers():
    with pytest.raises(sw.UsageError, match=r"7 classes are named.* 4 scores"):
        explain(wrapped(queries(), labels=list("abcdefg")), images(1), target=sw.target.box(0, 0))


def test_settled_boxes_survive_select_and_join():
    outputs = [OVERLAPPING, detection([[1, 1, 3, 3]], [5], [0.7])]
    whole = settled(0, outputs)
    parts = [whole.select(torch.tensor([1])), whole.select(torch.tensor([0]))]
    joined = Target.join(parts)
    assert joined.index.tolist() == [5, 1]
    assert joined.boxes.box.tolist() == whole.boxes.box.flip(0).tolist()
    assert joined(outputs[::-1], torch.arange(2)).tolist() == pytest.approx([0.7, 0.9])
    assert whole.copied().boxes.box is not whole.boxes.box


@pytest.mark.parametrize("given", [-1, 1.0, True, "0"])
def test_a_box_has_a_whole_number(given):
    with pytest.raises(sw.UsageError, match="box is a whole number"):
        sw.target.box(given)


def test_a_threshold_is_a_share():
    with pytest.raises(sw.UsageError, match="threshold"):
        sw.target.box(0, 1.5)


# -- maps ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [True, False], ids=["empty lists in the graph", "empty lists of their own"])
@pytest.mark.parametrize("method", METHODS_HERE)
def test_a_batch_goes_on_past_an_image_on_which_nothing_is_detected(method, connected):
    model = wrapped(detector(connected=connected), batch_size=2)
    x = torch.stack([SEEN, DARK, bright((0, 0, 1.0))])
    e = explain(model, x, method, sw.target.box(0))
    assert [str(s) for s in e.status][1] == "no_detection"
    assert not e.raw[1].any()
    assert "nothing was detected" in e.target_text[1] or "no box 0" in e.target_text[1]
    assert np.asarray(e.overlay(1)).shape[:2] == (32, 32)
    alone = explain(model, x[:1], method, sw.target.box(0))
    assert str(alone.status[0]) == str(e.status[0]) != "no_detection"
    assert torch.allclose(e.raw[0], alone.raw[0], atol=1e-5 * float(alone.raw.abs().max()))


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_one_image_on_which_nothing_is_detected_is_a_result(method):
    model = wrapped(detector(connected=False), labels=["a", "b", "c"])
    e = explain(model, DARK[None], method)
    assert e.status == [sw.Status.NO_DETECTION]
    assert e.targets[0]["box"] is None
    assert e.target_text == ["no box 0 with a score of 0.5 or more: nothing was detected"]
    weak = explain(model, bright((0, 0, 0.3))[None], method)
    assert weak.status == [sw.Status.NO_DETECTION]
    assert "the best, 0 a, has a score of 0." in weak.target_text[0]


def test_the_most_certain_box_is_explained_by_default_and_said_in_words(tmp_path):
    model = wrapped(labels=["cat", "dog", "owl"])
    e = explain(model, torch.stack([SEEN, DARK]), "gradient")
    score = model.module(SEEN[None])[0]["scores"][0].item()
    assert e.scores[0].item() == pytest.approx(score)
    assert e.targets[0]["box"] == [16, 8, 24, 16]
    assert e.target_text[0] == "score of box 0: 0 cat at [16, 8, 24, 16]"
    assert e.raw[0, 8:16, 16:24].abs().sum() == e.raw[0].abs().sum() > 0
    assert e.predictions == [[], []]
    back = sw.read_explanation(e.save(tmp_path / "run"))
    assert back.targets == e.targets
    assert [str(s) for s in back.status] == ["ok", "no_detection"]
    page = sw.report(tmp_path / "run").read_text("utf-8")
    assert "Why cat, box 0?" in page
    assert "Asked for: no box 0 with a score of 0.5 or more" in page


def test_several_boxes_of_an_image_are_rows():
    model, box = wrapped(), sw.target.box
    e = explain(model, torch.stack([SEEN, bright((0, 0, 1.0))]), "gradient", [[box(0), box(1)], [box(0)]])
    assert e.image_index == [0, 0, 1]
    assert [t["box"] for t in e.targets] == [[16, 8, 24, 16], [0, 24, 8, 32], [0, 0, 8, 8]]
    assert [t["rank"] for t in e.targets] == [0, 1, 0]
    assert explain(model, SEEN[None], "gradient", "box 1").targets[0]["box"] == [0, 24, 8, 32]
    with pytest.raises(sw.UsageError, match="one threshold"):
        explain(model, SEEN[None], "gradient", [[box(0), box(1, 0.2)]])


def test_layers_of_a_detector_are_found_with_an_image_that_has_the_box_and_its_mirror_image():
    model = wrapped()
    e = explain(model, torch.stack([DARK, SEEN]), "grad_cam")
    assert (e.layer, e.grid) == ("head", (4, 4))
    assert e.ok == [False, True]
    assert e.validity["approximations"] == []  # the layer is on the trunk
    assert divmod(int(e.raw[1].argmax()), 4) == (1, 2)


@pytest.mark.parametrize("target", [1, "cat", [0, 1], sw.target.output(1), sw.target.margin(0, 1)], ids=str)
def test_a_class_alone_on_a_detector_is_answered_with_the_recipe(target):
    model = wrapped(labels=["cat", "dog", "owl"])
    with pytest.raises(sw.UsageError, match=r"sw\.target\.box\(0\)"):
        explain(model, torch.stack([SEEN, SEEN]), "gradient", target)


def test_a_detector_that_was_not_called_one_says_how_to_wrap_it():
    with pytest.raises(sw.UsageError, match=r'task="detection".*box\(0\)'):
        explain(wrapped(task="multiclass"), SEEN[None], "gradient")


def test_a_detector_that_gives_nan_has_not_detected_nothing():
    class Poisoned(type(detector())):
        def forward(self, x):
            return [{**one, "scores": one["scores"] * torch.nan} for one in super().forward(x)]

    net = detector()
    net.__class__ = Poisoned
    e = explain(wrapped(net), torch.stack([SEEN, DARK]), "gradient")
    assert [str(s) for s in e.status] == ["non_finite", "no_detection"]
    assert not e.raw.any()


def test_layers_of_a_detector_are_listed_without_an_image():
    table = wrapped(detector(floor=0.0)).layers()
    assert [layer.name for layer in table if layer.usable] == ["conv1", "conv2", "head"]


def test_a_box_asked_of_a_classifier_says_what_a_detection_is():
    from nets import tiny_cnn

    with pytest.raises(sw.UsageError, match=r"boxes, labels and scores.*this network returns Tensor"):
        explain(wrapped(tiny_cnn()), images(1), "gradient")


def test_a_list_has_scores_and_no_logits():
    with pytest.raises(sw.UsageError, match="scores, not logits"):
        explain(wrapped(), SEEN[None], "gradient", sw.target.box(0).on("logit"))


def test_rows_of_settling_are_not_put_down_to_the_method():
    e = explain(wrapped(), torch.stack([SEEN, DARK, SEEN]), "gradient")
    assert e.evidence["gradient_rows"].tolist() == [1, 0, 1]
    assert e.evidence["forward_rows"].tolist() == [0, 0, 0]


def test_detectors_of_torchvision_with_random_weights():
    detection = pytest.importorskip("torchvision.models.detection")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        few = {"rpn_pre_nms_top_n_test": 30, "rpn_post_nms_top_n_test": 20, "box_detections_per_img": 10}
        faster = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=64, box_score_thresh=0.0, **few
        )
        single = detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3, topk_candidates=20, detections_per_img=10
        )
    x = images(2, size=(64, 64))
    for net, methods in ((faster, ("gradient", "grad_cam")), (single, ("gradient",))):
        model = wrapped(net, size=64)
        for method in methods:
            e = explain(model, x, method, sw.target.box(0, threshold=0))
            assert all(s in ("ok", "zero_gradient", "all_negative") for s in map(str, e.status))
            with torch.no_grad():
                clean = net.eval()(x)
            assert torch.allclose(e.scores, torch.stack([one["scores"].max() for one in clean]), atol=1e-6)
    assert str(e.status[0]) == "ok"
    assert explain(model, x[:1], "gradient", sw.target.box(0, threshold=1)).status == [sw.Status.NO_DETECTION]


def test_a_detr_of_transformers():
    transformers = pytest.importorskip("transformers")
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_labels=7,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = transformers.DetrForObjectDetection(config).eval()
    model, x = wrapped(net, size=64), images(2, size=(64, 64))
    with torch.no_grad():
        p = net(x).logits.softmax(2)[..., :-1]
    for method in ("gradient", "grad_cam"):
        e = explain(model, x, method, sw.target.box(0, threshold=0).on("probability"))
        assert torch.allclose(e.scores, p.amax((1, 2)), atol=1e-6)
        assert e.ok == [True, True] or method == "grad_cam"
        assert e.target_text[0].startswith("probability of box 0: class ")
    assert max(e.targets[0]["box"]) > 1  # in pixels of the input
