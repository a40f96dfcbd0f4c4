"""Localization: the perfect map is best, random is chance, and every hidden choice of the field is a named number."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.checks.objects import box_maps, median_boxes, overlap_of_boxes, read_annotations
from seewhy.checks.overlap import at_best_threshold, score_maps
from seewhy.maps import Maps
from seewhy.target import PREDICTED, logit

MODEL = sw.wrap(tiny_cnn(), size=32)
N, SIZE = 6, 32


def given(raw):
    """A method that gives these maps."""

    def maps(model, x, target):
        return Maps(torch.as_tensor(raw).float().clone(), logit(0), torch.zeros(len(x)), None)

    return maps


def localization(raw, x=None, thresholds=(0.3, 0.7), **keywords):
    x = images(len(raw)) if x is None else x
    return sw.checks.localization(MODEL, x, PREDICTED, given(raw), thresholds=thresholds, **keywords)


def some_boxes(n=N, seed=0):
    """One box an image, anywhere."""
    numbers = np.random.default_rng(seed)
    corner, size = numbers.integers(0, 16, (n, 2)), numbers.integers(6, 14, (n, 2))
    return np.concatenate([corner, corner + size], 1)[:, None].tolist()


def masks_of(boxes, size=SIZE):
    mask = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for i, several in enumerate(boxes):
        for x0, y0, x1, y1 in several:
            mask[i, y0:y1, x0:x1] = True
    return mask


def value(found, name):
    return found[name].interval.value


# -- perfect is best, random is chance, the opposite is worst


def test_the_object_itself_scores_one_everywhere():
    boxes = some_boxes()
    found = localization(masks_of(boxes).float(), boxes=boxes)
    for score in found.scores:
        if not score.name.startswith(("auprc_above", "peak_in_plausible")):
            assert score.per_image == pytest.approx([1.0] * N), score.name
    assert found.verdict == "pass"
    assert not found.excluded


def test_random_maps_score_the_share_of_the_object():
    boxes = [[[4, 6, 20, 28]]] * 40
    found = localization(torch.rand(40, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), boxes=boxes)
    share = 16 * 22 / SIZE**2
    for name in ("energy_inside", "relevance_rank", "auprc"):
        assert value(found, name) == pytest.approx(share, abs=0.02), name
        assert found[name].controls["chance"].value == pytest.approx(share)
        assert found[name].controls["random_map"].value == pytest.approx(share, abs=0.02)
    assert value(found, "pointing_game") == pytest.approx(share, abs=0.2)
    assert value(found, "iou_at_0.50") == pytest.approx(found["iou_at_0.50"].controls["chance"].value, abs=0.01)
    assert found.verdict == "fail"  # this object lies about the middle


def test_a_map_of_everything_but_the_object_scores_nothing():
    boxes = some_boxes()
    found = localization(1.0 - masks_of(boxes).float(), boxes=boxes)
    for name in ("energy_inside", "relevance_rank", "pointing_game", "iou_at_0.15", "iou_at_0.50"):
        assert value(found, name) == 0
    assert found.verdict in ("fail", "unclear")


def test_the_middle_of_the_picture_is_as_good_as_itself():
    boxes = some_boxes()
    found = localization(sw.explain(MODEL, images(N), "center_map").raw, boxes=boxes)
    assert found["auprc_above_center_prior"].per_image == (0.0,) * N
    assert found.verdict == "unclear"


def test_a_constant_map_scores_chance():
    boxes = [[[4, 6, 20, 28]]] * N
    found = localization(torch.full((N, 8, 8), 3.0), boxes=boxes)
    for name in ("energy_inside", "relevance_rank", "auprc", "pointing_game", "iou_at_0.50"):
        assert value(found, name) == pytest.approx(16 * 22 / SIZE**2), name
    assert found.details["tied_share"] == 1


# -- against slow twins written from the papers, and scikit-learn


def twin_iou(values, mask, q):
    marked = values >= q * values.max()
    return (marked & mask).sum() / (marked | mask).sum()


def twin_box_iou(values, box, q):
    labels, n = ndimage.label(values >= q * values.max(), np.ones((3, 3)))
    sizes = [(labels == k).sum() for k in range(1, n + 1)]
    overlaps = []
    for k in [k for k in range(n) if sizes[k] == max(sizes)]:
        rows, columns = np.nonzero(labels == k + 1)
        x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        shared = max(0, min(x1, box[2]) - max(x0, box[0])) * max(0, min(y1, box[3]) - max(y0, box[1]))
        overlaps.append(shared / ((x1 - x0) * (y1 - y0) + (box[2] - box[0]) * (box[3] - box[1]) - shared))
    return np.mean(overlaps)


@pytest.mark.parametrize("ties", [False, True])
def test_every_number_equals_its_slow_twin(ties):
    boxes = some_boxes(4)
    noise = torch.randn(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    raw = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[:, 0]
    raw = (raw * 4).round() / 4 if ties else raw
    masks = masks_of(boxes)
    found = localization(raw, boxes=boxes)
    for i in range(4):
        values, mask = raw[i].double().numpy(), masks[i].numpy()
        of = {score.name: score.per_image[i] for score in found.scores}
        assert of["auprc"] == pytest.approx(average_precision_score(mask.ravel(), values.ravel()))
        positive = values.clip(0)
        assert of["energy_inside"] == pytest.approx(positive[mask].sum() / positive.sum())
        assert of["pointing_game"] == pytest.approx(mask[values == values.max()].mean())
        near = ndimage.distance_transform_edt(~mask)[values == values.max()] <= 15
        assert of["pointing_game_tolerant"] == pytest.approx(near.mean())
        k, numbers = mask.sum(), np.random.default_rng(0)
        orders = [np.lexsort((numbers.random(values.size), -values.ravel()))[:k] for _ in range(400 if ties else 1)]
        top = np.mean([mask.ravel()[order].mean() for order in orders])
        assert of["relevance_rank"] == pytest.approx(top, abs=0.01 if ties else 1e-9)
        for q in (0.15, 0.5):
            assert of[f"iou_at_{q:.2f}"] == pytest.approx(twin_iou(values, mask, q))
            assert of[f"box_iou_at_{q:.2f}"] == pytest.approx(twin_box_iou(values, boxes[i][0], q))
    assert (found.details["tied_share"] > 0.5) == ties


def test_the_best_threshold_of_the_set_of_others_and_of_each_image_are_three_numbers():
    overlap = torch.tensor([[0.9, 0.1], [0.5, 0.6], [0.2, 0.4]], dtype=torch.float64)  # sums 1.6, 1.1
    best = at_best_threshold(overlap, range(3))
    assert best["best_q_of_set"].tolist() == [0.9, 0.5, 0.2]
    assert best["best_q_per_image"].tolist() == [0.9, 0.6, 0.4]
    assert best["best_q_of_other_images"].tolist() == [0.1, 0.5, 0.2]  # the others of image 0 prefer the second
    grouped = at_best_threshold(overlap, ["a", "a", "b"])
    assert grouped["best_q_of_other_images"].tolist() == [0.1, 0.6, 0.2]
    alone = at_best_threshold(overlap[:1], ["a"])
    assert alone["best_q_of_other_images"].isnan().all()


def test_the_upper_bounds_are_never_below_what_they_bound():
    found = localization(torch.rand(N, 8, 8), boxes=some_boxes())
    for sweep in ("iou", "box_iou"):
        curve = next(c for c in found.curves if c.name == sweep)
        best = value(found, f"{sweep}_at_best_q_of_set")
        assert best == pytest.approx(max(point.value for point in curve.points))
        assert value(found, f"{sweep}_at_best_q_of_other_images") <= best
        assert best <= value(found, f"{sweep}_at_best_q_per_image")
        assert "upper bound" in found[f"{sweep}_at_best_q_of_set"].unit


# -- what is marked


def test_masks_and_boxes_of_the_same_object_give_the_same_numbers():
    boxes, raw = some_boxes(), torch.rand(N, 8, 8)
    a, b = localization(raw, boxes=boxes), localization(raw, masks=masks_of(boxes))
    assert [s.per_image for s in a.scores] == [s.per_image for s in b.scores]


def test_a_peak_in_the_second_box_of_the_class_is_a_hit():
    raw = torch.zeros(2, SIZE, SIZE)
    raw[:, 25, 25] = 1
    found = localization(raw, boxes=[[[0, 0, 8, 8], [22, 22, 30, 30]]] * 2, tolerance=0)
    assert value(found, "pointing_game") == value(found, "pointing_game_tolerant") == value(found, "energy_inside") == 1
    assert value(found, "box_iou_at_0.50") == pytest.approx(1 / 64)


def test_two_largest_parts_of_one_size_count_with_their_mean():
    raw = torch.zeros(2, SIZE, SIZE)
    raw[:, 2:6, 2:6] = raw[:, 20:24, 20:24] = 1
    raw[:, 10:12, 28:30] = 1  # smaller: of no account
    found = localization(raw, boxes=[[[20, 20, 24, 24]]] * 2)
    assert value(found, "box_iou_at_0.50") == 0.5
    assert value(found, "iou_at_0.50") == pytest.approx(16 / 36)


def test_the_tolerance_of_the_pointing_game_is_a_circle():
    raw = torch.zeros(2, SIZE, SIZE)
    raw[0, 10, 13] = raw[1, 11, 14] = 1  # 3 to the right of the object; 2 down and 4 to the right: 4.47
    boxes = [[[2, 2, 11, 11]], [[2, 2, 11, 10]]]
    assert localization(raw, boxes=boxes, tolerance=3)["pointing_game_tolerant"].per_image == (1, 0)
    assert localization(raw, boxes=boxes, tolerance=4.5)["pointing_game_tolerant"].per_image == (1, 1)
    assert localization(raw, boxes=boxes, tolerance=4.4)["pointing_game_tolerant"].per_image == (1, 0)


def test_a_signed_map_is_judged_by_its_positive_part_and_absolute_values_are_asked_for():
    boxes = some_boxes()
    raw = 2.0 * masks_of(boxes).float() - 1
    assert value(localization(raw, boxes=boxes), "energy_inside") == 1
    share = masks_of(boxes).double().mean((1, 2)).mean()
    assert value(localization(raw, boxes=boxes, sign="absolute"), "energy_inside") == pytest.approx(float(share))


def test_a_map_without_a_positive_value_scores_zero_and_is_counted():
    boxes = some_boxes()
    raw = masks_of(boxes).float()
    raw[0], raw[1] = -torch.rand(SIZE, SIZE) - 0.1, 0
    found = localization(raw, boxes=boxes)
    assert not found.excluded
    assert found.details["empty"] == 2
    for score in found.scores:
        assert not np.isnan(score.per_image).any()
        if not score.name.startswith(("auprc_above", "peak_in_plausible")):
            assert score.per_image == (0, 0, 1, 1, 1, 1), score.name
    assert found["peak_in_plausible_region"].per_image[:2] == (0, 0)


def test_maps_without_numbers_and_images_without_objects_are_told_apart():
    boxes = some_boxes(12)
    raw = masks_of(boxes).float()
    raw[0, 3, 3] = torch.inf
    boxes[1] = []
    found = localization(raw, boxes=boxes)
    assert found.excluded == {0: "not finite", 1: "no object is marked"}
    assert found["auprc"].interval.n == found["auprc"].controls["random_map"].n == 10
    assert found.verdict == "pass"  # 1 of 11
    raw[2] = torch.nan
    again = localization(raw, boxes=boxes)
    assert again.verdict == "not valid"
    assert "9 of 11" in again.sentence


def test_a_map_on_a_grid_is_resized_without_a_shift():
    raw = torch.zeros(2, 4, 4)
    raw[:, 1, 2] = 1
    found = localization(raw, boxes=[[[16, 8, 24, 16]]] * 2)
    assert value(found, "pointing_game") == 1
    mirrored = localization(raw.flip(1, 2), boxes=[[[8, 16, 16, 24]]] * 2)
    assert value(mirrored, "auprc") == pytest.approx(value(found, "auprc"))


def test_rows_and_columns_of_oblong_images_are_not_exchanged():
    boxes = [[[50, 4, 90, 30]]] * 2
    raw = torch.zeros(2, 64, 96)
    raw[:, 4:30, 50:90] = 1
    found = localization(raw, x=images(2, size=(64, 96)), boxes=boxes)
    assert value(found, "iou_at_0.50") == value(found, "box_iou_at_0.50") == 1


# -- what looks at no picture


def test_the_median_box_of_the_other_images_of_the_class():
    corners = [(0, 0, 2, 2), (1, 1, 4, 4), (3, 3, 8, 8), (9, 9, 10, 10)]
    boxes = [torch.tensor([one], dtype=torch.float64) for one in corners]
    found = median_boxes(boxes, range(4), ["a", "a", "a", "b"])
    assert found[:3].tolist() == [[2, 2, 6, 6], [1.5, 1.5, 5, 5], [0.5, 0.5, 3, 3]]
    assert found[3].isnan().all()
    clustered = median_boxes(boxes, ["p", "p", "q", "r"], ["a", "a", "a", "b"])
    assert clustered[:2].tolist() == [[3, 3, 8, 8]] * 2


def test_the_median_is_that_of_corner_and_size():
    corners = [(0, 0, 10, 10), (1, 1, 2, 2), (5, 5, 6, 6), (7, 7, 9, 9)]
    found = median_boxes([torch.tensor([one], dtype=torch.float64) for one in corners], range(4), [0] * 4)
    assert found[3].tolist() == [1, 1, 2, 2]  # of the four corners it would be 1, 1, 6, 6


def test_a_prior_that_is_always_right_is_not_beaten():
    boxes = [[[4, 6, 20, 28]]] * N
    found = localization(masks_of(boxes).float(), boxes=boxes)
    assert found["iou_at_0.50"].controls["median_box_prior"].value == 1
    assert found["pointing_game"].controls["median_box_prior"].value == 1
    assert found["auprc"].controls["median_box_prior"].value == pytest.approx(1)
    assert found["auprc_above_center_prior"].interval.low > 0
    assert found.verdict == "unclear"  # a box that never saw a picture is as good


def test_a_class_of_its_own_has_no_median_box():
    boxes = some_boxes()
    found = localization(masks_of(boxes).float(), boxes=boxes, classes=[0, 0, 0, 0, 0, 1])
    assert found["auprc"].controls["median_box_prior"].n == N - 1
    assert found["auprc_above_median_box_prior"].interval.n == N - 1
    alone = localization(masks_of(boxes).float(), boxes=boxes, classes=range(N))
    assert alone["auprc"].controls["median_box_prior"].n == 0
    assert alone.verdict == "pass"
    assert "median box" not in alone.sentence


def test_the_map_of_a_box_has_its_middle_highest():
    shown = box_maps(torch.tensor([[2.0, 4, 9, 11], [torch.nan] * 4]), (16, 12))
    assert shown[0].argmax() == 7 * 12 + 5
    assert ((shown[0] > 0).nonzero().amin(0).tolist(), (shown[0] > 0).sum()) == ([4, 2], 49)
    assert shown[1].isnan().all()


def test_overlap_of_boxes_is_exact():
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 1, 1], [0.5, 0, 1.5, 1]])
    b = torch.tensor([[2.0, 2, 6, 6], [3, 3, 4, 4], [0.5, 0, 1.5, 1]])
    assert overlap_of_boxes(a, b).tolist() == pytest.approx([4 / 28, 0, 1])


# -- several annotators


def test_a_score_is_its_mean_over_annotators_and_they_are_compared_with_one_another():
    boxes, wider = [[[4, 4, 12, 12]]] * 4, [[[4, 4, 20, 12]]] * 4
    raw = masks_of(boxes).float()
    found = localization(raw, annotators=[boxes, masks_of(wider)])
    assert value(found, "annotators_iou") == 0.5
    assert value(found, "iou_at_0.50") == 0.75
    assert [value(found, f"iou_at_0.50 with annotator {k}") for k in (1, 2)] == [1, 0.5]


def test_an_annotator_who_marked_nothing_agrees_with_nobody_and_is_no_truth():
    boxes = [[[4, 4, 12, 12]]] * 4
    found = localization(masks_of(boxes).float(), annotators=[boxes, [*boxes[:2], [], []]])
    assert found["annotators_iou"].per_image == (1, 1, 0, 0)
    assert value(found, "iou_at_0.50") == 1


def test_an_annotator_who_did_not_look_at_an_image_disagrees_with_nobody():
    boxes = [[[4, 4, 12, 12]]] * 4
    shape = (4, 3, SIZE, SIZE)
    one, other = (read_annotations(given, None, None, shape)[0] for given in (boxes, [*boxes[:2], [], []]))
    looked = torch.tensor([True, True, True, False])
    found = localization(masks_of(boxes).float(), annotators=[one, replace(other, looked=looked, annotator="Ann")])
    assert found["annotators_iou"].per_image == pytest.approx((1, 1, 0, np.nan), nan_ok=True)
    assert found["iou_at_0.50 with Ann"].per_image == pytest.approx((1, 1, np.nan, np.nan), nan_ok=True)
    with pytest.raises(sw.UsageError, match=r"images are \(2, 32, 32\)"):
        read_annotations(None, None, [one], (2, 3, SIZE, SIZE))


# -- the plausible region


def at(*peaks):
    raw = torch.zeros(len(peaks), SIZE, SIZE)
    for i, (x, y) in enumerate(peaks):
        raw[i, y, x] = 1
    return raw


def test_a_map_that_peaks_where_no_other_source_has_it_is_queued_farthest_first():
    boxes = [[[0, 0, 8, 8]], [[4, 4, 12, 12]], [[4, 4, 12, 12]], [[20, 20, 28, 28]]]
    found = localization(at((9, 9), (2, 2), (31, 11), (24, 24)), boxes=boxes, clusters=["p", "p", "q", "r"])
    score = found["peak_in_plausible_region"]
    assert score.per_image == (1, 0, 0, 0)  # image 0 has 2, 2 as well, but is of the same patient
    assert score.interval.clusters == 3
    queue = found.details["review_queue"]
    assert [one["image"] for one in queue] == [3, 2, 1]
    assert [one["score"] for one in queue] == pytest.approx([np.hypot(13, 13), np.hypot(4, 9), np.hypot(2, 2)])
    assert "x = 31, y = 11" in queue[1]["reason"]


def test_the_chance_of_a_plausible_peak_is_the_area_that_others_reach():
    boxes = [[[0, 0, 8, 8]], [[16, 16, 32, 32]]]
    found = localization(at((20, 20), (4, 4)), boxes=boxes)["peak_in_plausible_region"]
    assert found.per_image == (1, 1)
    assert found.controls["chance"].value == pytest.approx((256 + 64) / 2 / SIZE**2)
    assert found.controls["median_box_prior"].value == 1


def test_another_class_and_one_source_alone_tell_nothing_of_where_it_can_be():
    boxes = [[[0, 0, 8, 8]]] * 4
    found = localization(at(*[(4, 4)] * 4), boxes=boxes, classes=["a", "a", "b", "c"])
    assert found["peak_in_plausible_region"].per_image == pytest.approx((1, 1, np.nan, np.nan), nan_ok=True)
    alone = localization(at((20, 20), (4, 4)), boxes=boxes[:2], clusters=["p", "p"])
    assert alone["peak_in_plausible_region"].interval.n == 0
    assert alone.details["review_queue"] == []


def test_several_peaks_count_with_their_share_and_a_map_that_marks_nothing_is_queued_last():
    boxes = [[[0, 0, 8, 8]]] * 4
    raw = at((4, 4), (20, 20), (4, 4), (4, 4))
    raw[0, 30, 30] = 1
    raw[2] = 0
    raw[3, 3, 3] = torch.nan
    found = localization(raw, boxes=boxes)
    assert found["peak_in_plausible_region"].per_image == pytest.approx((0.5, 0, 0, np.nan), nan_ok=True)
    assert [one["image"] for one in found.details["review_queue"]] == [1, 2]
    assert found["peak_in_plausible_region"].controls["random_map"].n == 3  # where the method is scored
    assert "marks nothing" in found.details["review_queue"][1]["reason"]


def test_images_of_one_source_are_resampled_together():
    boxes = some_boxes()
    found = localization(torch.rand(N, 8, 8), boxes=boxes, clusters=[0, 0, 1, 1, 2, 2])
    assert found["auprc"].interval.clusters == 3


# -- nonsense raises


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({}, "one of boxes=, masks=, annotators=; got none"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "masks": torch.ones(2, 32, 32, dtype=torch.bool)}, "got boxes and masks"),
        ({"boxes": [[[0, 0, 4, 4]]]}, "got 1 for 2 images"),
        ({"boxes": [[[0, 0, 4]]] * 2}, "expected .K, 4."),
        ({"boxes": [[[0, 0, 40, 4]]] * 2}, "x1 <= 32"),
        ({"boxes": [[[10, 10, 5, 5]]] * 2}, "x, y, x . w, y . h"),
        ({"boxes": [[[float("nan"), 0, 4, 4]]] * 2}, "is none"),
        ({"boxes": [["left"]] * 2}, "no numbers"),
        ({"boxes": [[[3.6, 3.6, 4.4, 4.4]]] * 2}, "no pixel's center"),
        ({"masks": torch.ones(2, 32, 32)}, "masks > 0"),
        ({"masks": torch.ones(2, 16, 32, dtype=torch.bool)}, "2, 32, 32"),
        ({"annotators": []}, "each annotator"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "thresholds": [1.5]}, "at most 1"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "thresholds": []}, "thresholds"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "classes": [1]}, "classes has an entry per image"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "clusters": [1, 2, 3]}, "clusters has an entry per image"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "sign": "abs"}, "sign"),
        ({"boxes": [[[0, 0, 4, 4]]] * 2, "tolerance": -1}, "tolerance"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_map(keywords, said):
    def never(model, x, target):
        raise AssertionError

    with pytest.raises(sw.UsageError, match=said):
        sw.checks.localization(MODEL, images(2), PREDICTED, never, **keywords)


def test_boxes_are_for_pictures():
    with pytest.raises(sw.UsageError, match="pictures"):
        read_annotations([[]], None, None, (1, 3, 32))


def test_boxes_may_be_one_array_with_a_box_an_image():
    one = read_annotations(np.array([[0, 0, 4, 4], [2, 2, 8, 8.0]]), None, None, (2, 3, 32, 32))[0]
    assert one.mask.flatten(1).sum(1).tolist() == [16, 36]


def test_groups_of_images_are_scored_as_each_alone():
    boxes = some_boxes(20)
    raw = torch.rand(20, SIZE, SIZE)
    objects = read_annotations(boxes, None, None, (20, 3, SIZE, SIZE))[0]
    together = score_maps(raw, objects, (0.15, 0.5), 15)
    alone = read_annotations(boxes[17:18], None, None, (1, 3, SIZE, SIZE))[0]
    for name, numbers in score_maps(raw[17:18], alone, (0.15, 0.5), 15).items():
        assert torch.equal(numbers[0], together[name][17]), name
