import numpy as np
import pytest
import torch

from seewhy import target as questions
from seewhy.errors import UsageError
from seewhy.target import PREDICTED, Target, probabilities, resolve, scores

LABELS = ["tabby", "tiger cat", "lynx", "Tabby", "cat - dog"]
ROWS = torch.arange(3)


def table(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def asked(given, labels=None, task="multiclass", outputs=None, scale=None):
    outputs = table(3, 5) if outputs is None else outputs
    question = resolve(given, labels, task)
    question = question.on(scale) if scale else question
    rows = torch.arange(len(outputs))
    return question.settle(outputs, rows)(outputs, rows)


@pytest.mark.parametrize(
    ("given", "index"),
    [
        (2, [2, 2, 2]),
        (np.int64(2), [2, 2, 2]),
        (np.array(2), [2, 2, 2]),
        (torch.tensor(2), [2, 2, 2]),
        (torch.tensor(2, dtype=torch.uint8), [2, 2, 2]),
        ("2", [2, 2, 2]),
        (" 2 ", [2, 2, 2]),
        ("lynx", [2, 2, 2]),
        ("LYNX", [2, 2, 2]),
        (" tiger cat ", [1, 1, 1]),
        ("cat - dog", [4, 4, 4]),  # a name that contains the minus of a contrast is still a name
        ([0, 4, 2], [0, 4, 2]),
        ((0, 4, 2), [0, 4, 2]),
        ([np.int32(0), torch.tensor(4), 2], [0, 4, 2]),
        (torch.tensor([0, 4, 2], dtype=torch.int32), [0, 4, 2]),
        (["lynx", "3", 0], [2, 3, 0]),
    ],
    ids=repr,
)
def test_every_way_to_write_a_class_reads_its_logit(given, index):
    outputs = table(3, 5)
    assert torch.equal(asked(given, LABELS, outputs=outputs), outputs[ROWS, torch.tensor(index)])


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        ("lynx - tiger cat", [2, 2, 2], [1, 1, 1]),
        ("2 - tiger cat", [2, 2, 2], [1, 1, 1]),
        (["lynx - 0", "0 - lynx", "1 - 3"], [2, 0, 1], [0, 2, 3]),
    ],
)
def test_a_minus_b_is_the_difference_of_two_logits(given, first, second):
    outputs = table(3, 5)
    expected = outputs[ROWS, torch.tensor(first)] - outputs[ROWS, torch.tensor(second)]
    assert torch.allclose(asked(given, LABELS, outputs=outputs), expected)


def test_nothing_given_is_the_predicted_class_of_each_image():
    outputs = table(3, 5)
    assert resolve(None, LABELS, "multiclass") == PREDICTED
    assert torch.equal(asked(None, outputs=outputs), outputs.max(1).values)


def test_nothing_given_is_the_one_output_of_a_regression_network():
    outputs = table(3, 1)
    assert torch.equal(asked(None, task="regression", outputs=outputs), outputs[:, 0])
    assert torch.equal(asked(None, task="regression", outputs=outputs[:, 0]), outputs[:, 0])


def test_a_function_of_the_outputs_is_a_target():
    outputs = table(3, 5)
    assert torch.equal(asked(lambda out: out[:, 0] * out[:, 1], outputs=outputs), outputs[:, 0] * outputs[:, 1])


def test_a_target_is_kept_and_takes_the_task_of_the_model():
    question = resolve(questions.probability(1), None, "binary")
    assert (question.kind, question.scale, question.task) == ("index", "probability", "binary")


NO_CLASS = [
    *(1.0, True, np.float32(1), np.bool_(True), float("nan"), b"tabby", {1}, range(2), {"a": 1}),
    *([], (), [1, 2.0], [1, True], [None], [[1, 2], [3, 4]], ["tabby", [1, 2]], ["tabby", None], ["tabby", 1.5]),
    *(torch.tensor([1.0]), torch.tensor([True]), torch.tensor([[1]]), [torch.tensor(1.5)], [torch.tensor(True)]),
    *(np.array([1.5, 2.5]), np.array([[1]])),
]


@pytest.mark.parametrize("given", NO_CLASS, ids=repr)
def test_what_is_no_class_is_a_usage_error(given):
    with pytest.raises(UsageError, match=r"target|class"):
        resolve(given, LABELS, "multiclass")


def test_a_numpy_array_of_indices_is_one_per_image_or_a_usage_error():
    try:
        question = resolve(np.array([0, 4, 2]), None, "multiclass")
    except UsageError:
        return
    assert question.index.tolist() == [0, 4, 2]


@pytest.mark.parametrize("given", [2**70, -(2**70), [2**70], "9" * 30], ids=["large", "small", "list", "text"])
def test_an_index_beyond_64_bits_is_a_usage_error(given):
    with pytest.raises(UsageError):
        resolve(given, LABELS, "multiclass").check(1, (1, 5))


def test_a_misspelled_class_is_a_usage_error_with_the_near_name():
    with pytest.raises(UsageError, match="unknown class 'tigre cat': did you mean 'tiger cat'"):
        resolve("tigre cat", LABELS, "multiclass")
    with pytest.raises(UsageError, match="unknown class 'lnyx': did you mean 'lynx'"):
        resolve("tiger cat - lnyx", LABELS, "multiclass")


@pytest.mark.parametrize("given", ["-1", "", " - ", "tiger cat - ", "1.5"])
def test_a_text_that_is_no_class_is_a_usage_error(given):
    with pytest.raises(UsageError, match="unknown class"):
        resolve(given, LABELS, "multiclass")


def test_a_name_that_two_classes_have_is_a_usage_error_with_both():
    with pytest.raises(UsageError, match=r"'TABBY' is ambiguous.*\[0, 3\]"):
        resolve("TABBY", LABELS, "multiclass")


def test_a_name_of_which_only_one_spelling_fits_exactly_is_that_class_or_refused():
    try:
        question = resolve("Tabby", LABELS, "multiclass")
    except UsageError:
        return
    assert int(question.index) == 3


def test_a_label_that_is_a_number_is_never_read_as_another_classs_index():
    try:
        question = resolve("0", ["2", "1", "0"], "multiclass")
    except UsageError:
        return
    assert int(question.index) == 2


def test_a_name_for_a_model_without_labels_is_a_usage_error_that_says_so():
    with pytest.raises(UsageError, match="no labels"):
        resolve("lynx", None, "multiclass")


def test_a_list_that_mixes_classes_and_contrasts_is_a_usage_error():
    with pytest.raises(UsageError, match="all classes or all contrasts"):
        resolve(["lynx", "lynx - 0"], LABELS, "multiclass")


@pytest.mark.parametrize(("index", "bad"), [(10, 10), (-1, -1), ([0, 11, 3], 11), ([0, -2, 3], -2)])
def test_a_class_out_of_range_is_a_usage_error_with_the_range(index, bad):
    with pytest.raises(UsageError, match=f"target {bad} is out of range.*10 classes, 0 to 9"):
        resolve(index, None, "multiclass").check(3, (3, 10))


def test_both_classes_of_a_contrast_are_held_against_the_range():
    with pytest.raises(UsageError, match="target 10 is out of range"):
        questions.margin(3, 10).check(1, (1, 10))


def test_the_last_class_is_in_range():
    resolve(9, None, "multiclass").check(3, (3, 10))
    resolve([9, 0, 9], None, "multiclass").check(3, (3, 10))
    resolve(1, None, "binary").check(3, (3, 1))
    resolve(1, None, "binary").check(3, (3,))


def test_a_binary_network_has_two_classes():
    with pytest.raises(UsageError, match="2 classes, 0 to 1"):
        resolve(2, None, "binary").check(3, (3, 1))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_list_that_is_not_one_per_image_is_a_usage_error_with_both_counts(n):
    with pytest.raises(UsageError, match=f"3 targets for {n} images"):
        resolve([0, 1, 2], None, "multiclass").check(n, (n, 5))


@pytest.mark.parametrize("given", [None, 0, 1])
def test_a_binary_task_with_two_outputs_is_refused_and_not_read_as_one_logit(given):
    with pytest.raises(UsageError, match=r"one logit.*2 outputs"):
        resolve(given, None, "binary").check(3, (3, 2))


def test_rows_name_the_image_whatever_their_order():
    question = resolve([0, 1, 2], None, "multiclass")
    outputs, rows = table(6, 5), torch.tensor([2, 0, 0, 1, 2, 1])
    assert torch.equal(question(outputs, rows), outputs[torch.arange(6), rows])


def test_a_settled_prediction_stays_when_the_outputs_change():
    clean, damaged = table(3, 5), -table(3, 5)
    question = PREDICTED.settle(clean, ROWS)
    assert torch.equal(question(damaged, ROWS), damaged[ROWS, clean.argmax(1)])
    assert question.settle(damaged, ROWS) is question


def test_select_takes_the_questions_of_some_images_only():
    question = questions.margin([0, 1, 2], [3, 4, 0]).select(torch.tensor([2, 0]))
    assert question.index.tolist() == [2, 0]
    assert question.other.tolist() == [0, 3]
    assert questions.logit(4).select(torch.tensor([2, 0])).index.tolist() == 4


def test_select_takes_the_masks_of_some_images_only():
    masks = torch.arange(3).view(3, 1, 1).expand(3, 2, 2) > 0
    assert torch.equal(questions.region(masks).select(torch.tensor([2, 0])).mask, masks[[2, 0]])
    assert torch.equal(questions.region(masks[0]).select(torch.tensor([2, 0])).mask, masks[0])


def test_join_undoes_select():
    masks = torch.rand(3, 2, 2) > 0.5
    for question in (questions.margin([0, 1, 2], [3, 4, 0]), questions.logit(4), questions.region(masks, 1)):
        parts = [question.select(torch.tensor([0, 1])), question.select(torch.tensor([2]))]
        joined = Target.join(parts)
        for name in ("index", "other", "mask"):
            ours, theirs = getattr(joined, name), getattr(question, name)
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_predictions_settled_in_groups_join_to_those_of_the_whole():
    outputs = table(3, 5)
    parts = [PREDICTED.settle(outputs[:2], torch.arange(2)), PREDICTED.settle(outputs[2:], torch.arange(1))]
    assert Target.join(parts).index.tolist() == outputs.argmax(1).tolist()


def jacobian(scale: str, task: str, index: int, outputs: torch.Tensor) -> torch.Tensor:
    leaf = outputs.clone().requires_grad_()
    asked(index, task=task, outputs=leaf, scale=scale).sum().backward()
    return leaf.grad


def test_the_gradient_of_a_softmax_probability_is_its_closed_form():
    outputs, p = table(3, 5), table(3, 5).softmax(1)
    eye = torch.eye(5, dtype=torch.float64)[2]
    assert torch.allclose(jacobian("logit", "multiclass", 2, outputs), eye.expand(3, 5))
    assert torch.allclose(jacobian("log_probability", "multiclass", 2, outputs), eye - p)
    assert torch.allclose(jacobian("probability", "multiclass", 2, outputs), p[:, 2:3] * (eye - p))


def test_the_gradient_of_a_multilabel_probability_touches_its_own_output_only():
    outputs, p = table(3, 5), table(3, 5).sigmoid()
    expected = torch.zeros(3, 5, dtype=torch.float64)
    expected[:, 2] = p[:, 2] * (1 - p[:, 2])
    assert torch.allclose(jacobian("probability", "multilabel", 2, outputs), expected)
    expected[:, 2] = 1 - p[:, 2]
    assert torch.allclose(jacobian("log_probability", "multilabel", 2, outputs), expected)


@pytest.mark.parametrize("shape", [(3, 1), (3,)])
def test_class_0_of_a_binary_network_is_minus_class_1(shape):
    outputs = table(*shape)
    s = outputs.flatten()
    assert torch.equal(asked(1, task="binary", outputs=outputs), s)
    assert torch.equal(asked(0, task="binary", outputs=outputs), -s)
    assert torch.allclose(asked(1, task="binary", outputs=outputs, scale="probability"), s.sigmoid())
    assert torch.allclose(asked(0, task="binary", outputs=outputs, scale="probability"), 1 - s.sigmoid())
    assert torch.equal(asked(None, task="binary", outputs=outputs), s.abs())


def test_a_contrast_on_the_probability_scale_is_the_difference_of_probabilities():
    outputs, p = table(3, 5), table(3, 5).softmax(1)
    assert torch.allclose(asked("2 - 1", outputs=outputs, scale="probability"), p[:, 2] - p[:, 1])


def test_a_log_probability_of_a_hopeless_class_is_finite():
    outputs = torch.tensor([[0.0, 2000.0]])
    assert asked(0, outputs=outputs, scale="log_probability").item() == -2000
    assert asked(0, task="multilabel", outputs=-outputs, scale="log_probability").isfinite().all()


def test_an_unknown_scale_is_a_usage_error_with_the_near_name():
    with pytest.raises(UsageError, match="unknown scale 'probabilty': did you mean 'probability'"):
        questions.logit(1).on("probabilty")


@pytest.mark.parametrize("scale", ["probability", "log_probability"])
def test_a_regression_network_has_no_probability(scale):
    with pytest.raises(UsageError, match="regression network has no"):
        asked(0, task="regression", outputs=table(3, 2), scale=scale)


def test_probabilities_of_every_classifier_and_of_no_other_task():
    outputs = table(3, 5)
    assert torch.allclose(probabilities(outputs, "multiclass"), outputs.float().softmax(1))
    assert torch.allclose(probabilities(outputs, "multilabel"), outputs.float().sigmoid())
    binary = probabilities(outputs[:, :1], "binary")
    assert binary.shape == (3, 2)
    assert torch.allclose(binary.sum(1), torch.ones(3))
    assert torch.allclose(binary[:, 1], outputs[:, 0].float().sigmoid())
    assert probabilities(outputs, "regression") is None
    assert probabilities(table(3, 5, 4, 4), "segmentation") is None


def test_output_of_one_column_and_of_a_named_one():
    outputs = table(3, 4)
    assert torch.equal(asked(questions.output(2), task="regression", outputs=outputs), outputs[:, 2])
    with pytest.raises(UsageError, match=r"this network has 4: output\(k\)"):
        asked(questions.output(), task="regression", outputs=outputs)


def test_a_region_is_the_sum_of_one_channel_over_the_mask():
    outputs = table(3, 4, 5, 6)
    shared = torch.zeros(5, 6)
    shared[1:3, 4:] = 1
    expected = outputs[:, 2, 1:3, 4:].sum((1, 2))
    assert torch.allclose(asked(questions.region(shared, 2), task="segmentation", outputs=outputs), expected)
    own = torch.rand(3, 5, 6) > 0.5
    expected = (outputs[:, 1] * own).sum((1, 2))
    assert torch.allclose(asked(questions.region(own, 1), task="segmentation", outputs=outputs), expected)


def test_a_region_of_a_one_channel_output_needs_no_class():
    outputs, mask = table(3, 1, 5, 6), torch.ones(5, 6)
    assert torch.allclose(asked(questions.region(mask), task="regression", outputs=outputs), outputs.sum((1, 2, 3)))


def test_a_region_without_a_mask_is_where_the_clean_prediction_is_that_class_also_while_damaged():
    clean, damaged = table(3, 4, 5, 6), -table(3, 4, 5, 6)
    question = questions.region(None, 2).settle(clean, ROWS)
    where = clean.argmax(1) == 2
    assert torch.equal(question.mask, where)
    assert torch.allclose(question(damaged, ROWS), (damaged[:, 2] * where).sum((1, 2)))


def test_a_region_mask_of_another_size_is_a_usage_error_with_both():
    with pytest.raises(UsageError, match=r"\(4, 4\).*\(3, 4, 5, 6\)"):
        asked(questions.region(torch.ones(4, 4)), task="segmentation", outputs=table(3, 4, 5, 6))


@pytest.mark.parametrize("shape", [(2, 5, 6), (6,), (3, 1, 5, 6)])
def test_region_masks_that_are_not_one_or_one_per_image_are_a_usage_error(shape):
    with pytest.raises(UsageError, match="region mask"):
        questions.region(torch.ones(shape), 1).check(3, (3, 4, 5, 6))


def test_a_region_channel_out_of_range_is_a_usage_error_with_the_range():
    with pytest.raises(UsageError, match="0 to 3"):
        questions.region(torch.ones(5, 6), 4).check(3, (3, 4, 5, 6))


def test_a_region_mask_that_is_no_tensor_is_a_usage_error():
    with pytest.raises(UsageError, match="ndarray"):
        questions.region(np.ones((5, 6)))


@pytest.mark.parametrize("given", [1, None])
def test_a_class_alone_on_a_segmentation_network_is_answered_with_the_recipe(given):
    with pytest.raises(UsageError, match=r"region\(mask, k\)"):
        asked(given, task="segmentation", outputs=table(3, 4, 5, 6))


@pytest.mark.parametrize("returned", [1.0, torch.zeros(()), torch.zeros(2), torch.zeros(3, 1)], ids=repr)
def test_a_function_that_does_not_return_one_number_a_row_is_a_usage_error(returned):
    with pytest.raises(UsageError, match=r"one number per row, shape \(3,\)"):
        asked(lambda out: returned)


def test_of_takes_a_function_only():
    with pytest.raises(UsageError, match="not int"):
        questions.of(3)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda t: t,
        lambda t: {"logits": t, "loss": 0},
        lambda t: {"loss": 0, "out": t},
        lambda t: (None, t),
        lambda t: [t],
    ],
    ids=["tensor", "logits", "mapping", "tuple", "list"],
)
def test_the_scores_are_found_in_every_kind_of_output(wrapped):
    assert torch.equal(scores(wrapped(table(3, 5))), table(3, 5))


def test_the_scores_are_found_in_an_output_object():
    class Output:
        logits = table(3, 5)

    assert torch.equal(scores(Output()), table(3, 5))


@pytest.mark.parametrize("outputs", [None, {}, (), {"loss": 0}, "text"], ids=repr)
def test_an_output_without_scores_is_a_usage_error(outputs):
    with pytest.raises(UsageError, match="no score tensor"):
        scores(outputs)


@pytest.mark.parametrize(
    ("given", "scale", "text"),
    [
        (0, None, "logit of 0 tabby"),
        ([2, 1], None, "logit of 1 tiger cat"),
        (0, "probability", "probability of 0 tabby"),
        (0, "log_probability", "log probability of 0 tabby"),
        (7, None, "logit of class 7"),
        ("lynx - tiger cat", None, "logit of 2 lynx minus 1 tiger cat"),
        (None, None, "logit of the predicted class"),
        (None, "log_probability", "log probability of the predicted class"),
        (questions.output(), None, "the output"),
        (questions.output(1), None, "output 1 tiger cat"),
        (questions.region(torch.ones(2, 2), 2), None, "sum of 2 lynx over a region"),
    ],
)
def test_the_question_in_words(given, scale, text):
    question = resolve(given, LABELS, "multiclass")
    assert (question.on(scale) if scale else question).text(1, LABELS) == text


def test_the_question_in_words_without_labels_and_for_a_function():
    def brightness(outputs):
        return outputs.mean(1)

    assert resolve(3, None, "multiclass").text(0, None) == "logit of class 3"
    assert resolve(brightness, None, "multiclass").text(0, None) == "value of brightness"


def test_a_label_is_written_as_the_user_wrote_it():
    assert resolve(0, None, "multiclass").text(0, ["great_white_shark"]) == "logit of 0 great_white_shark"


def test_a_target_keeps_its_own_copy_of_the_users_tensor():
    given = torch.tensor([0, 1, 2])
    question = resolve(given, None, "multiclass")
    given += 1
    assert question.index.tolist() == [0, 1, 2]
