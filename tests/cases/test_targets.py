"""What is explained: one logit, many labels, regions, several inputs, embeddings; and what cannot be meant."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from cases.nets import QUICK, dense, embedding, ended, image_and_table, loss_first, one_logit, two_images
from nets import CLASSES, MEAN, STD, images, linear, returning, tiny_cnn, tiny_unet

GRADIENT = ["gradient", "gradient_x_input", "smooth_grad", "integrated_gradients", "grad_cam", "hires_cam"]


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**QUICK.get(method, {}), **given})


def wrapped(net=None, **given):
    return sw.wrap(tiny_cnn() if net is None else net, **{"mean": MEAN, "std": STD, "size": 32, **given})


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max()) + 1e-9


# row 21


@pytest.mark.parametrize("flat", [False, True], ids=["(N, 1)", "(N,)"])
@pytest.mark.parametrize("method", GRADIENT)
def test_the_two_classes_of_a_binary_network_are_exact_negatives(flat, method):
    model, x = wrapped(one_logit(flat), task="binary", labels=["benign", "malignant"]), images(2)
    no, yes = (explain(model, x, method, k) for k in (0, 1))
    assert torch.equal(no.raw, -yes.raw)
    assert torch.equal(no.scores, -yes.scores)
    assert yes.raw.abs().max() > 0
    logit = model.predict(x)[:, 0]
    assert torch.allclose(yes.scores, logit, atol=1e-6)
    assert torch.equal(explain(model, x, method, "benign").raw, no.raw)
    mixed = explain(model, x, method, [0, 1])
    assert close(mixed.raw, torch.stack([no.raw[0], yes.raw[1]]))
    predicted = explain(model, x, method)
    assert [t["index"] for t in predicted.targets] == (logit > 0).long().tolist()
    for bad in (2, -1, [0, 2]):
        with pytest.raises(sw.UsageError, match="2 classes, 0 to 1"):
            explain(model, x, method, bad)


@pytest.mark.parametrize("flat", [False, True], ids=["(N, 1)", "(N,)"])
def test_the_probabilities_of_the_two_classes_of_a_binary_network_sum_to_one(flat):
    model, x = wrapped(one_logit(flat), task="binary"), images(2)
    no, yes = (explain(model, x, "occlusion", sw.target.probability(k)) for k in (0, 1))
    assert torch.allclose(no.scores + yes.scores, torch.ones(2))
    assert close(no.raw, -yes.raw, 1e-4)
    no, yes = (explain(model, x, "gradient", sw.target.probability(k)) for k in (0, 1))
    assert close(no.raw, -yes.raw, 1e-4)


@pytest.mark.parametrize("flat", [False, True], ids=["(N, 1)", "(N,)"])
def test_one_output_column_without_a_task_is_an_error_that_names_the_tasks(flat):
    for target in (None, 0):
        with pytest.raises(sw.UsageError, match=r"binary.*regression"):
            explain(wrapped(one_logit(flat)), images(2), "gradient", target)


def test_a_binary_task_on_two_outputs_is_an_error_and_not_half_a_network():
    with pytest.raises(sw.UsageError, match=r"5 outputs.*multiclass"):
        explain(wrapped(task="binary"), images(1), "gradient", 1)


# row 23


def fourteen(bias):
    net = tiny_cnn(classes=14)
    net.fc.weight.data.mul_(0.01)
    net.fc.bias.data.copy_(torch.tensor(bias))
    return net


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_multi_label_network_with_two_positives_of_14_has_a_row_for_each_and_says_so(method):
    bias = [-3.0] * 14
    bias[2] = bias[11] = 3.0
    labels = [f"finding {k}" for k in range(14)]
    model, x = wrapped(fourteen(bias), task="multilabel", labels=labels), images(2)
    e = explain(model, x, method)
    assert e.image_index == [0, 0, 1, 1]
    assert [target["index"] for target in e.targets] == [2, 11, 2, 11]
    assert all(f"finding {k}" in text for k, text in zip((2, 11, 2, 11), e.target_text, strict=True))
    assert len(e.raw) == len(e.maps) == len(e.scores) == 4
    for row, (i, k) in enumerate([(0, 2), (0, 11), (1, 2), (1, 11)]):
        assert close(e.raw[row], explain(model, x[i : i + 1], method, k).raw[0])
    asked = explain(model, x, method, [["finding 2", "finding 11"]] * 2)
    assert asked.image_index == e.image_index
    assert close(asked.raw, e.raw)


def test_every_label_of_a_multi_label_network_in_one_call():
    model, x = wrapped(fourteen([0.0] * 14), task="multilabel"), images(2)
    e = explain(model, x, "grad_cam", [list(range(14))] * 2)
    assert e.raw.view(2, 14, *e.grid).shape == (2, 14, 8, 8)
    assert torch.unique(e.raw.flatten(1), dim=0).shape[0] == 28
    p = explain(model, x, "gradient", sw.target.probability(3))
    assert torch.allclose(p.scores, model.predict(x)[:, 3].sigmoid())  # and no softmax over labels


def test_a_multi_label_network_that_sees_nothing_is_explained_by_its_best_label_at_its_true_probability():
    e = explain(wrapped(fourteen([-4.0] * 13 + [-2.0]), task="multilabel"), images(1), "gradient")
    assert [target["index"] for target in e.targets] == [13]
    assert e.validity["probability"][0] < 0.2


# rows 24 and 25


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "edge_map", "occlusion"])
@pytest.mark.parametrize("target", [1, None, [1, 1], "1", "road"])
def test_a_class_asked_of_a_segmentation_network_shows_the_recipe(method, target):
    model = sw.wrap(tiny_unet(), task="segmentation", labels=["sky", "road", "car", "tree", "man"])
    with pytest.raises(sw.UsageError, match=r"sw\.target\.region\("):
        explain(model, images(2), method, target)


def a_region():
    mask = torch.zeros(32, 32)
    mask[8:20, 4:30] = 1
    return mask


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
@pytest.mark.parametrize("form", ["one mask", "boolean", "integers", "a mask per image"])
def test_a_region_of_a_segmentation_network_is_the_sum_over_its_mask(method, form):
    model, x, mask, k = sw.wrap(tiny_unet(), task="segmentation", batch_size=3), images(2), a_region(), 2
    given = {"one mask": mask, "boolean": mask.bool(), "integers": mask.long()}.get(form, torch.stack([mask, 1 - mask]))
    e = explain(model, x, method, sw.target.region(given, k))
    assert torch.allclose(e.scores, (tiny_unet()(x)[:, k] * given).flatten(1).sum(1).detach(), rtol=1e-4)
    alone = explain(model, x[1:], method, sw.target.region(given if given.ndim == 2 else given[1:], k))
    assert close(e.raw[1], alone.raw[0], 1e-4)


@pytest.mark.parametrize("method", ["occlusion", "rise", "ablation_cam", "integrated_gradients"])
def test_the_region_of_the_clean_prediction_stays_while_the_image_is_ablated(method):
    model, x = sw.wrap(tiny_unet(), task="segmentation"), images(2)
    predicted = tiny_unet()(x).argmax(1)
    k = int(predicted.flatten().mode().values)
    free = explain(model, x, method, sw.target.region(None, k))
    fixed = explain(model, x, method, sw.target.region(predicted == k, k))
    assert torch.equal(free.raw, fixed.raw)
    assert torch.equal(free.scores, fixed.scores)


@pytest.mark.parametrize("task", ["segmentation", "regression"])
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_one_channel_mask_or_depth_map_is_explained_over_a_region_without_a_class(task, method):
    net, x, mask = dense(channels=1), images(2), a_region()
    e = explain(sw.wrap(net, task=task), x, method, sw.target.region(mask))
    assert torch.allclose(e.scores, (net(x)[:, 0] * mask).flatten(1).sum(1).detach(), rtol=1e-4)
    assert set(e.status) <= {sw.Status.OK, sw.Status.ALL_NEGATIVE}


def test_a_region_of_a_depth_map_is_no_class():
    e = explain(sw.wrap(dense(channels=1), task="regression"), images(1), "gradient", sw.target.region(a_region()))
    assert "class" not in e.target_text[0]


@pytest.mark.parametrize("size", [(16, 16), (32, 30), (8, 8)])
def test_a_mask_of_another_size_names_both_sizes(size):
    with pytest.raises(sw.UsageError, match=rf"{size[0]}, {size[1]}.*32, 32"):
        explain(sw.wrap(tiny_unet(), task="segmentation"), images(1), "gradient", sw.target.region(torch.ones(size), 1))


# row 27


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "grad_cam"])
def test_each_image_of_a_two_image_network_is_explained_while_the_other_is_held_fixed(method):
    net, first, second = two_images(), images(2), images(2, size=(24, 24), seed=4)
    given = {"baseline": "mean"} if method == "integrated_gradients" else {}
    for asked, beside in ((first, {"second": second}), (second, {"first": first})):
        e = explain(net, asked, method, 1, beside=beside, **given)
        assert torch.allclose(e.scores, net(first, second)[:, 1].detach(), atol=1e-5)
        assert e.maps.shape == (2, *asked.shape[2:])
        assert e.raw.abs().max() > 0


@pytest.mark.parametrize("method", ["gradient", "occlusion", "grad_cam"])
def test_the_gradient_of_an_image_beside_a_table_is_that_of_autograd_row_by_row(method):
    net, x, table = image_and_table(), images(3), torch.rand(3, 4, generator=torch.Generator().manual_seed(2)) * 4
    e = explain(sw.wrap(net, batch_size=2), x, method, 1, beside={"table": table})
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(net(leaf, table)[:, 1].sum(), leaf)
    if method == "gradient":
        assert close(e.raw, wanted.sum(1))
    for i in range(3):
        alone = explain(sw.wrap(net), x[i : i + 1], method, 1, beside={"table": table[i : i + 1]})
        assert close(e.raw[i], alone.raw[0], 1e-4)
    one_for_all = explain(sw.wrap(net), x, method, 1, beside={"table": table[:1]})
    assert close(one_for_all.raw[0], e.raw[0], 1e-4)


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"tabel": torch.rand(2, 4)}, "tabel.*'table'"),
        ({"table": torch.rand(5, 4)}, "5.*2"),
        ({"table": "no tensor"}, "table"),
        ({"table": torch.rand(2, 4), "more": torch.rand(2)}, "more"),
    ],
    ids=["typo", "count", "text", "unknown"],
)
def test_what_cannot_stand_beside_an_image_is_a_usage_error(beside, said):
    with pytest.raises(sw.UsageError, match=said):
        explain(sw.wrap(image_and_table()), images(2), "gradient", 1, beside=beside)


def test_a_network_that_needs_a_second_input_and_gets_none_is_a_usage_error_that_names_it():
    with pytest.raises(sw.UsageError, match="table"):
        explain(sw.wrap(image_and_table()), images(2), "gradient", 1)


# row 28


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "grad_cam", "occlusion"])
def test_the_cosine_similarity_of_two_images_is_explained_by_a_function(method):
    net, x = embedding(), images(2)
    other = net(images(1, seed=8)).detach()
    e = explain(sw.wrap(net), x, method, lambda out: functional.cosine_similarity(out, other))
    assert torch.allclose(e.scores, functional.cosine_similarity(net(x), other).detach(), atol=1e-6)
    assert set(e.status) <= {sw.Status.OK, sw.Status.ALL_NEGATIVE}
    same = explain(sw.wrap(net), images(1, seed=8), "gradient", lambda out: functional.cosine_similarity(out, other))
    assert float(same.scores) == pytest.approx(1, abs=1e-5)
    assert float(same.raw.abs().max()) < 1e-4  # at its maximum


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_similarity_target_is_the_function_that_it_replaces(method, per_image):
    net, x = embedding(), images(2)
    model = sw.wrap(net, task="embedding")
    others = model.predict(images(2, seed=8))
    e = explain(model, x, method, sw.target.similarity(others if per_image else others[0]))
    for i in range(2):
        other = others[i if per_image else 0][None]
        alone = explain(model, x[i : i + 1], method, lambda out, other=other: functional.cosine_similarity(out, other))
        assert close(e.raw[i], alone.raw[0], 1e-4)
        assert float(e.scores[i]) == pytest.approx(float(alone.scores), abs=1e-5)
        assert "similarity" in e.target_text[i]


@pytest.mark.parametrize(
    "to", [torch.rand(7), torch.rand(3, 5), torch.zeros(5), "text", torch.rand(2, 2, 5)], ids=range(5)
)
def test_an_embedding_that_does_not_fit_is_a_usage_error(to):
    model = sw.wrap(embedding(), task="embedding")
    with pytest.raises(sw.UsageError):
        explain(model, images(2), "gradient", sw.target.similarity(to))


def test_an_embedding_network_without_a_target_names_the_similarity():
    model = sw.wrap(embedding(), task="embedding")
    with pytest.raises(sw.UsageError, match=r"sw\.target\.similarity"):
        explain(model, images(1))


# row 29

OUT_OF_RANGE = [10, -1, "10", [0, 10], np.int64(10), torch.tensor(10), torch.tensor([0, -3]), sw.target.margin(0, 12)]
NO_TARGETS = [1.0, np.float64(2), True, torch.tensor([1.0, 2.0]), torch.tensor([True, False]), {"a": 1}, b"1", {1, 2}]
NO_TARGETS += [torch.tensor([[1], [2]]), [1, None], [1.5, 2], "", "1.0", range(2), torch.tensor([1j, 2])]


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "score_cam"])
@pytest.mark.parametrize("target", OUT_OF_RANGE, ids=str)
def test_class_10_of_ten_is_an_error_with_the_range_before_a_row_is_computed(method, target):
    model = wrapped(tiny_cnn(classes=10))
    with pytest.raises(sw.UsageError, match=r"10 classes, 0 to 9"):
        explain(model, images(2), method, target)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


@pytest.mark.parametrize("target", NO_TARGETS, ids=lambda t: str(t).replace("\n", ""))
def test_a_target_of_another_type_is_an_error_before_a_row_is_computed(target):
    model = wrapped(tiny_cnn(classes=10))
    with pytest.raises(sw.UsageError):
        explain(model, images(2), "gradient", target)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


@pytest.mark.parametrize("target", [sw.target.logit, sw.target.of], ids=["logit", "of"])
def test_a_maker_of_targets_instead_of_a_target_is_a_usage_error(target):
    with pytest.raises(sw.UsageError):
        explain(wrapped(), images(2), "gradient", target)


@pytest.mark.parametrize("labels", [[1, 2, 3, 4, 5], [None] * 5, [b"a"] * 5, ["a", 2, "c", "d", "e"]], ids=str)
def test_labels_that_are_no_text_are_a_usage_error(labels):
    with pytest.raises(sw.UsageError, match="label"):
        explain(wrapped(labels=labels), images(1), "gradient", "2")


@pytest.mark.parametrize(
    ("given", "index"),
    [("Straße, naß", 0), ("日本 - 東京", 1), ("a - b", 2), ("😀", 3), ("  😀 ", 3), ("[red]x[/red]", 4)],
)
def test_labels_with_commas_dashes_and_any_script_name_their_class(given, index):
    labels = ["Straße, naß", "日本 - 東京", "a - b", "😀", "[red]x[/red]"]
    e = explain(wrapped(labels=labels), images(1), "gradient", given)
    assert e.targets[0]["index"] == index
    assert labels[index] in e.target_text[0]
    assert labels[index] in repr(e)


# row 31


@pytest.mark.parametrize("target", [1, "3", [0, 1], sw.target.logit(1), sw.target.margin(0, 1)], ids=str)
def test_a_class_asked_of_eigen_cam_is_an_error_unless_its_user_knows_and_the_result_says_so(target):
    x = images(2)
    with pytest.raises(sw.UsageError, match="ignore_target"):
        explain(wrapped(), x, "eigen_cam", target)
    e = explain(wrapped(), x, "eigen_cam", target, ignore_target=True)
    assert e.validity["target_used"] is False
    assert "class-agnostic" in e.validity["target_used_reason"]
    assert torch.equal(e.raw, explain(wrapped(), x, "eigen_cam").raw)


def test_the_flag_that_a_target_was_not_used_survives_the_disk(tmp_path):
    e = explain(wrapped(), images(1), "eigen_cam")
    assert sw.read_explanation(e.save(tmp_path / "run")).validity["target_used"] is False
    assert "target" in str(sw.methods()).splitlines()[0]


# outputs of other forms (themes 1 and 17)


@pytest.mark.parametrize("form", ["tuple", "list", "dict"])
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_network_that_returns_a_container_has_the_maps_of_the_plain_one(form, method):
    e, plain = (explain(sw.wrap(net), images(2), method) for net in (returning(form), tiny_cnn()))
    assert torch.equal(e.raw, plain.raw)


@pytest.mark.parametrize("target", [None, 1])
def test_the_logits_of_a_network_that_returns_its_loss_before_them_are_asked(target):
    x, plain = images(2), sw.wrap(tiny_cnn())
    e = explain(sw.wrap(loss_first()), x, "gradient", target)
    assert e.raw.abs().sum() > 0
    assert close(e.raw, explain(plain, x, "gradient", target).raw)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_a_target_function_that_changes_the_outputs_in_place_changes_no_prediction(method):
    x = images(1)
    e = explain(sw.wrap(tiny_cnn()), x, method, lambda out: out.mul_(3)[:, 1])
    assert e.predictions == explain(sw.wrap(tiny_cnn()), x, method, 1).predictions


def test_a_normalization_for_pixels_up_to_255_is_a_usage_error_that_says_so():
    with pytest.raises(sw.UsageError, match="255"):
        sw.wrap(tiny_cnn(), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


@pytest.mark.parametrize(("end", "task"), [("softmax", "multiclass"), ("sigmoid", "multilabel")])
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion", "integrated_gradients"])
def test_a_network_that_ends_in_probabilities_has_the_maps_of_its_logits(end, task, method):
    x = images(2)
    e, plain = (explain(sw.wrap(ended(how), task=task), x, method, 1) for how in (end, ""))
    assert close(e.raw, plain.raw, 1e-4)
    assert torch.allclose(e.scores, plain.scores, atol=1e-5)
    assert e.predictions[0][0]["probability"] == pytest.approx(plain.predictions[0][0]["probability"], abs=1e-5)


def test_a_network_that_is_sure_has_no_vanishing_gradient_behind_its_softmax():
    e = explain(sw.wrap(ended("softmax", scale=300.0)), images(1), "gradient")
    plain = explain(sw.wrap(ended("", scale=300.0)), images(1), "gradient")
    assert e.ok == [True]
    assert close(e.raw, plain.raw, 1e-4)


# regression


@pytest.mark.parametrize("method", GRADIENT)
def test_what_lowers_a_regression_output_is_the_exact_negative_of_what_raises_it(method):
    model, x = wrapped(tiny_cnn(classes=1), task="regression"), images(2)
    up, down = explain(model, x, method), explain(model, x, method, "down")
    assert torch.equal(up.raw, -down.raw)
    assert torch.equal(explain(model, x, method, "up").raw, up.raw)
    assert up.target_text != down.target_text


@pytest.mark.parametrize("scale", ["probability", "log_probability"])
def test_a_regression_network_has_no_probability_and_no_class(scale):
    model, x = wrapped(tiny_cnn(classes=1), task="regression"), images(2)
    e = explain(model, x, "gradient")
    assert e.predictions == [[], []]
    assert not any("class" in text for text in e.target_text)
    with pytest.raises(sw.UsageError, match="regression"):
        explain(model, x, "gradient", sw.target.logit(0).on(scale))


def test_a_scale_that_an_output_does_not_have_is_an_error_and_not_ignored():
    with pytest.raises(sw.UsageError, match="regression"):
        explain(
            wrapped(tiny_cnn(classes=1), task="regression"), images(1), "gradient", sw.target.output().on("probability")
        )


def test_a_probability_is_never_taken_for_a_logit():
    model, x = sw.wrap(linear()), images(1)
    logit, probability = (explain(model, x, "gradient", make(2)) for make in (sw.target.logit, sw.target.probability))
    assert not torch.allclose(logit.raw, probability.raw)
    assert ("logit" in logit.target_text[0], "probability" in probability.target_text[0]) == (True, True)
    assert model.predict(x).shape[1] == CLASSES


@pytest.mark.parametrize("method", ["gradient", "occlusion", "grad_cam"])
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.complex64], ids=str)
def test_an_output_that_is_no_real_number_with_a_fraction_is_an_error_that_names_its_type(method, kind):
    class Ends(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_cnn()

        def forward(self, x):
            return self.net(x).to(kind)

    with pytest.raises(sw.UsageError, match=str(kind).removeprefix("torch.")):
        sw.explain(sw.wrap(Ends()), images(1), method, 1)
