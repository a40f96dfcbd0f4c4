"""Networks that end in softmax or sigmoid: asked for their logits, or it is said that these are out of reach."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

import seewhy as sw
from awkward_nets import ending, exported, traced
from nets import images, tiny_cnn
from seewhy.faces import words

SOFTMAXES = {
    "function": lambda z: functional.softmax(z, 1),
    "method": lambda z: z.softmax(-1),
    "torch": lambda z: torch.softmax(z, dim=1),
    "module": nn.Softmax(1),
    "special": lambda z: torch.special.softmax(z, 1),
    "with a type": lambda z: functional.softmax(z, 1, dtype=torch.float32),
    "squeezed": lambda z: functional.softmax(z[:, :, None, None], 1).flatten(1),
    "copied": lambda z: functional.softmax(z, 1).clone(),
    "in a dictionary": lambda z: {"logits": z.softmax(1), "other": z},
    "in a tuple": lambda z: (z.softmax(1), z),
    "log": lambda z: functional.log_softmax(z, 1),
    "log method": lambda z: z.log_softmax(1),
    "log module": nn.LogSoftmax(1),
}
OUT_OF_REACH = {
    "by hand": lambda z: z.exp() / z.exp().sum(1, keepdim=True),
    "with arithmetic": lambda z: z.softmax(1) * 1.000001,
}
SIGMOIDS = {
    "function": torch.sigmoid,
    "method": lambda z: z.sigmoid(),
    "module": nn.Sigmoid(),
    "in place": lambda z: z.sigmoid_(),
    "special": torch.special.expit,
    "of one axis": lambda z: torch.sigmoid(z).squeeze(1),
}
QUICK = {"rise": {"samples": 8}, "integrated_gradients": {"rule": "midpoint", "steps": 4}, "occlusion": {"patch": 12}}
METHODS = ["gradient", "grad_cam", "rise"]
TARGETS = {
    "a class": 1,
    "predicted": None,
    "probability": sw.target.probability(2),
    "log-probability": sw.target.logit(1).on("log_probability"),
    "margin": sw.target.margin(1, 2),
}


def explain(net, method="gradient", target=1, n=2, **given):
    return sw.explain(sw.wrap(net, **given), images(n), method, target, **QUICK.get(method, {}))


def logits_only(z):
    return z


def same(a, b, tolerance=1e-6):
    close = float((a.raw - b.raw).abs().max()) <= tolerance * float(b.raw.abs().max())
    return close and torch.allclose(a.scores, b.scores, atol=tolerance)


@pytest.mark.parametrize(("end", "sharp"), [("function", 1.0), *((end, 300.0) for end in SOFTMAXES)])
def test_a_softmax_at_the_end_changes_no_map_no_score_and_no_probability(end, sharp):
    net, plain = ending(SOFTMAXES[end], sharp), ending(logits_only, sharp)
    own = net(images(2))
    own = own["logits"] if isinstance(own, dict) else own[0] if isinstance(own, tuple) else own
    own = own.exp() if "log" in end else own
    for method in METHODS:
        e, wanted = explain(net, method), explain(plain, method)
        assert same(e, wanted)
        assert e.predictions == wanted.predictions
        assert torch.allclose(torch.tensor(e.validity["probability"]), own[:, 1], atol=1e-6)
    assert "in front of the network's own" in e.validity["logits"]
    assert e.validity["warning"] == ""


@pytest.mark.parametrize("question", TARGETS)
@pytest.mark.parametrize("end", ["function", "log"])
def test_every_question_to_a_softmax_is_the_one_to_its_logits(end, question):
    for method in ("gradient", "occlusion"):
        e, wanted = (explain(ending(f, 3.0), method, TARGETS[question]) for f in (SOFTMAXES[end], logits_only))
        assert same(e, wanted)
        assert e.target_text == wanted.target_text


def test_where_p_is_1_the_gradient_of_the_logit_does_not_vanish():
    net = ending(SOFTMAXES["module"], 300.0)
    sure = int(net(images(1)).argmax())
    e = explain(net, target=sure, n=1)
    assert e.validity["probability"] == [1.0]
    assert e.status[0] is sw.Status.OK
    swallowed = explain(net, target=sw.target.output(sure), n=1)
    assert swallowed.evidence["gradient_norm"] < 1e-6 * e.evidence["gradient_norm"]


@pytest.mark.parametrize("task", ["multilabel", "binary"])
@pytest.mark.parametrize("end", SIGMOIDS)
def test_a_sigmoid_at_the_end_changes_no_map_and_no_score(task, end):
    if end == "of one axis" and task == "multilabel":
        pytest.skip("one output is no multi-label network")
    classes = 1 if task == "binary" else 5
    net, plain = (ending(f, 3.0, classes) for f in (SIGMOIDS[end], logits_only))
    for method in ("gradient", "occlusion"):
        for target in (0, None):
            e, wanted = (explain(net_, method, target, task=task) for net_ in (net, plain))
            assert same(e, wanted)
            assert e.predictions == wanted.predictions
            assert e.target_text == wanted.target_text
    assert e.validity["logits"] == "logits were read in front of the network's own sigmoid"
    assert e.validity["warning"] == ""


# -- out of reach --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", OUT_OF_REACH)
def test_logits_out_of_reach_are_told_with_the_numbers_and_softmax_is_not_applied_twice(end):
    net, plain = ending(OUT_OF_REACH[end], 3.0), ending(logits_only, 3.0)
    own = net(images(2)).detach()
    e = explain(net)
    assert e.target_text == ["log probability of class 1"] * 2
    assert torch.allclose(e.scores, own[:, 1].log(), atol=1e-6)
    assert torch.allclose(torch.tensor(e.validity["probability"]), own[:, 1], atol=1e-6)
    assert "log-probabilities stand for its logits" in e.validity["logits"]
    assert f"p = {float(own.max()):.4f}, gradient norm " in e.validity["warning"]
    assert same(e, explain(plain, target=sw.target.logit(1).on("log_probability")), 1e-5)
    assert same(explain(net, "rise"), explain(plain, "rise"), 1e-5)
    assert same(explain(net, target=sw.target.margin(1, 2)), explain(plain, target=sw.target.margin(1, 2)), 1e-5)


def test_a_saturated_probability_out_of_reach_says_so():
    e = explain(ending(OUT_OF_REACH["with arithmetic"], 300.0), target=None, n=1)
    assert re.search(r"p = 1\.0000, gradient norm (0|\de-\d\d)\)", e.validity["warning"])


def test_the_logits_of_a_traced_softmax_are_out_of_reach_and_those_of_an_exported_one_are_not():
    net, x = nn.Sequential(tiny_cnn(), nn.Softmax(1)).eval(), images(2)
    assert "stand for its logits" in explain(traced(net, x)).validity["logits"]
    for rows in (1, 2, 3):
        assert same(explain(exported(net, images(rows))), explain(tiny_cnn()), 1e-6)


def test_a_sigmoid_out_of_reach_is_computed_back_where_the_task_says_that_it_is_one():
    def by_hand(z):
        return 1 / (1 + torch.exp(-z))

    e, wanted = (explain(ending(f, 3.0), task="multilabel") for f in (by_hand, logits_only))
    assert same(e, wanted, 1e-5)
    assert "computed back" in e.validity["logits"]
    assert explain(ending(by_hand)).validity["logits"] == ""


# -- what is no ending -----------------------------------------------------------------------------------------------------


def test_functions_and_raw_outputs_are_given_what_the_network_says():
    net, x = ending(SOFTMAXES["module"], 3.0), images(2)
    for target in (sw.target.output(1), lambda outputs: outputs[:, 1]):
        assert torch.allclose(explain(net, target=target).scores, net(x)[:, 1], atol=1e-7)


def test_a_regression_network_in_0_to_1_is_left_alone():
    net = ending(torch.sigmoid, 1.0, 1)
    e = explain(net, target=None, task="regression")
    assert torch.allclose(e.scores, net(images(2))[:, 0], atol=1e-7)
    assert e.validity["logits"] == ""


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z,
        lambda z: z.clamp(0, 1),
        lambda z: z.softmax(1) * 5,
        lambda z: z * z.softmax(1),
        lambda z: torch.zeros_like(z) + 0 * z,
    ],
    ids=["logits", "clamped", "scaled", "gated", "zeros"],
)
def test_scores_that_are_no_probabilities_are_left_alone(end):
    net = ending(end)
    e = explain(net, "occlusion", sw.target.logit(1))
    assert e.validity["logits"] == ""
    assert torch.allclose(e.scores, net(images(2))[:, 1], atol=1e-6)


def test_a_softmax_along_the_batch_is_no_ending_and_its_rows_are_run_alone():
    e = explain(ending(lambda z: functional.softmax(z, 0)), "occlusion", sw.target.logit(1))
    assert e.validity["logits"] == ""
    assert e.scores.tolist() == [1, 1]
    assert any("one image at a time" in note for note in e.validity["approximations"])


@pytest.mark.parametrize(
    ("end", "task", "fit"),
    [
        (torch.sigmoid, "multiclass", "task='multilabel' or task='binary'"),
        (nn.Softmax(1), "multilabel", "task='multiclass'"),
    ],
)
def test_a_task_that_does_not_fit_the_ending_is_told(end, task, fit):
    e = explain(ending(end), task=task)
    assert fit in e.validity["warning"]
    assert any(sentence.startswith("Careful: the network ends in") for sentence in words.evidence(e.rows()[0][0]))


def test_scores_that_sum_to_1_on_one_picture_only_are_no_probabilities():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_cnn()

        def forward(self, x):
            z = self.net(x).exp()
            return z / z.sum(1, keepdim=True) * (1 + (x.flatten(1).mean(1, keepdim=True) > 0.9))

    assert explain(Once()).validity["logits"] == ""


def test_a_network_that_ends_in_softmax_only_sometimes_is_refused():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny_cnn()

        def forward(self, x):
            z = self.net(x)
            return z.softmax(1) if float(x.detach().mean()) > 0.2 else z

    model = sw.wrap(Sometimes())
    sw.explain(model, images(1), "gradient", 1)
    with pytest.raises(sw.RefusalError, match="ended in softmax on its first images"):
        sw.explain(model, images(1) * 0.1, "gradient", 1)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_no_graph_and_no_tensor_of_the_run_is_kept(method):
    net = ending(nn.Softmax(1))
    model = sw.wrap(net)
    sw.explain(model, images(2), method, 1, **QUICK.get(method, {}))
    assert model.network._heard is None


def test_a_softmax_in_half_precision_is_reached_too():
    net = ending(nn.Softmax(1)).to(torch.bfloat16)
    assert "in front of" in explain(net).validity["logits"]


def test_the_sentence_on_the_page_says_where_the_logits_were_read():
    record = explain(ending(nn.Softmax(1))).rows()[0][0]
    assert "Logits were read in front of the network's own softmax." in words.evidence(record)


def test_rounding_that_grows_through_the_network_is_no_dependence_on_the_other_rows():
    class Chaotic(nn.Module):
        """Rounding at its first layer is a thousand times larger at its end, as in deep networks of random weights."""

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3 * 32 * 32, 5)

        def forward(self, x):
            z = self.fc(x.flatten(1))
            return (3e6 * (z + 1e-7 * (len(x) == 1))).sin()

    assert explain(Chaotic().eval(), "gradient").validity["approximations"] == []
