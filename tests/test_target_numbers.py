"""Outputs that are no classes: a regression up and down, one logit, an embedding, a function of the output."""

from dataclasses import dataclass

import pytest
import torch

import seewhy as sw
from nets import CLASSES, Cnn, images, seeded, tiny_cnn
from seewhy.registry import METHODS
from seewhy.target import scores
from small import REPRESENTATIVES, SMALL
from task_nets import embedding

sw.methods()
GRADIENT = [n for n in REPRESENTATIVES if n in METHODS and METHODS[n].needs_gradients and "attention" not in n]
ALL = [name for name in REPRESENTATIVES if name in METHODS and "attention" not in name]
NAMES = ["height", "weight", "age", "income", "iq"]


def wrapped(net=None, task="regression", **given):
    return sw.wrap(tiny_cnn() if net is None else net, **{"size": 32, "task": task, **given})


def explain(model, x, method="gradient", target=None, **given):
    return sw.explain(model, x, method, target, **{**SMALL.get(method, {}), **given})


def one_number():
    return seeded(Cnn)(classes=1)


# -- regression: up or down ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", GRADIENT)
def test_down_is_the_exact_negative_of_up(method):
    model, x = wrapped(one_number()), images(2)
    up, down = (explain(model, x, method, target) for target in ("up", "down"))
    assert torch.equal(up.raw, -down.raw)
    assert torch.equal(up.scores, -down.scores)
    assert torch.equal(up.raw, explain(model, x, method).raw)
    assert torch.equal(down.raw, explain(model, x, method, sw.target.output(direction="down")).raw)


@pytest.mark.parametrize(
    ("given", "column", "sign", "text"),
    [
        (2, 2, 1, "output 2 age"),
        ("age", 2, 1, "output 2 age"),
        ("up age", 2, 1, "output 2 age"),
        ("down 2", 2, -1, "minus output 2 age"),
        (sw.target.output(2, "down"), 2, -1, "minus output 2 age"),
        (sw.target.logit(2), 2, 1, "output 2 age"),
    ],
    ids=str,
)
def test_a_number_or_a_name_of_a_regression_network_is_that_output(given, column, sign, text, tmp_path):
    model, x = wrapped(labels=NAMES), images(2)
    for method in ("gradient", "rise"):
        e = explain(model, x, method, given)
        assert torch.allclose(e.scores, sign * model.predict(x)[:, column], atol=1e-6)
        assert e.target_text == [text] * 2
    e.save(tmp_path / "run")
    page = sw.report(tmp_path / "run").read_text("utf-8")
    assert f"What {'lowers' if sign < 0 else 'raises'} output 2 age?" in page
    assert f"Explained is {text} = " in page
    assert "class 2" not in page + repr(e) + str(e.targets)


def test_one_row_per_image_and_direction():
    model, x = wrapped(labels=NAMES), images(2)
    e = explain(model, x, "gradient", [["up age", "down age"], ["down iq"]])
    assert [t["direction"] for t in e.targets] == ["up", "down", "down"]
    assert torch.equal(e.raw[0], -e.raw[1])
    assert [t["index"] for t in e.targets] == [2, 2, 4]


def test_a_contrast_of_two_outputs_speaks_of_outputs():
    e = explain(wrapped(labels=NAMES), images(1), "rise", "age - iq")
    assert e.target_text == ["output 2 age minus output 4 iq"]


@pytest.mark.parametrize("given", [None, "up", "down", sw.target.output()], ids=str)
def test_several_outputs_want_to_know_which_and_are_listed(given):
    model = wrapped(labels=NAMES)
    with pytest.raises(sw.UsageError, match=r"this network has 5: output\(k\): 0 height, 1 weight, 2 age"):
        explain(model, images(1), "gradient", given)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_an_output_out_of_range_speaks_of_outputs():
    with pytest.raises(sw.UsageError, match=r"target 7 is out of range: this network has 5 outputs, 0 to 4"):
        explain(wrapped(), images(1), "gradient", 7)


@pytest.mark.parametrize("given", ["sideways", 1, None])
def test_a_direction_is_up_or_down(given):
    with pytest.raises(sw.UsageError, match="unknown direction"):
        sw.target.output(0, given)


def test_the_one_output_with_a_name_is_called_by_it():
    e = explain(wrapped(one_number(), labels=["age"]), images(1), "gradient", "down")
    assert e.target_text == ["minus output 0 age"]
    assert explain(wrapped(one_number()), images(1), "gradient", "down").target_text == ["minus the output"]


@pytest.mark.parametrize("scale", ["probability", "logit"])
def test_a_regression_has_no_other_scale(scale):
    with pytest.raises(sw.UsageError, match=f"no {scale}"):
        sw.target.output(0).on(scale)


# -- one output ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, 0, [0], sw.target.probability(0)], ids=str)
@pytest.mark.parametrize("flat", [False, True], ids=["(N, 1)", "(N,)"])
def test_one_output_called_multiclass_is_an_error_that_names_both_tasks(given, flat):
    class OneOutput(Cnn):
        def forward(self, x):
            return super().forward(x)[:, 0] if flat else super().forward(x)

    for model in (wrapped(seeded(OneOutput)(classes=1), task="multiclass"), seeded(OneOutput)(classes=1)):
        with pytest.raises(sw.UsageError, match=r'one output.*task="binary".*task="regression"'):
            explain(model, images(1), "gradient", given)


def test_one_output_may_be_asked_for_as_such_whatever_the_task():
    net, x = one_number(), images(2)
    assert torch.allclose(explain(net, x, "gradient", sw.target.output()).scores, net(x)[:, 0].detach())


# -- embeddings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["tensor", "clip", "dino"])
def test_an_embedding_is_explained_by_its_similarity_to_another(form):
    model, x, others = wrapped(embedding(form=form), "embedding"), images(2), images(2, seed=5)
    to = model.predict(others)
    assert to.shape == (2, 6)
    e = explain(model, x, "gradient", sw.target.similarity(to))
    wanted = torch.nn.functional.cosine_similarity(model.predict(x), to)
    assert torch.allclose(e.scores, wanted, atol=1e-6)
    assert e.target_text == ["cosine similarity to the given embedding"] * 2
    for method in ("gradient", "grad_cam", "rise"):
        shared = explain(model, x, method, sw.target.similarity(to[0]))
        single = explain(model, x[:1], method, sw.target.similarity(to[:1]))
        assert torch.allclose(shared.raw[0], single.raw[0], atol=1e-6)
    assert len({t["to"] for t in e.targets}) == 2  # two embeddings are two questions in the records


def test_the_similarity_to_itself_is_1_and_has_no_gradient():
    model, x = wrapped(embedding(), "embedding"), images(1)
    e = explain(model, x, "gradient", sw.target.similarity(model.predict(x)))
    assert e.scores.item() == pytest.approx(1, abs=1e-6)
    assert float(e.evidence["gradient_norm"][0]) < 1e-5


@pytest.mark.parametrize("given", [None, 1, "1", [1, 2], sw.target.output()], ids=str)
def test_an_embedding_has_no_classes(given):
    with pytest.raises(sw.UsageError, match=r"sw\.target\.similarity\(to\)"):
        explain(wrapped(embedding(), "embedding"), images(2), "gradient", given)


def test_an_embedding_of_another_width_or_count_names_both_numbers():
    model = wrapped(embedding(), "embedding")
    with pytest.raises(sw.UsageError, match="has 5 numbers, the network's has 6"):
        explain(model, images(2), "gradient", sw.target.similarity(torch.ones(5)))
    with pytest.raises(sw.UsageError, match="3 targets for 2 images"):
        explain(model, images(2), "gradient", sw.target.similarity(torch.ones(3, 6)))


@pytest.mark.parametrize(
    "to",
    [None, [1.0, 2.0], torch.zeros(6), torch.ones(6).long(), torch.ones(1, 2, 6), torch.tensor([1, torch.nan])],
    ids=str,
)
def test_what_is_no_embedding_is_a_usage_error(to):
    with pytest.raises(sw.UsageError, match=r"similarity\(to\) takes"):
        sw.target.similarity(to)


@pytest.mark.parametrize("task", ["embedding", "multiclass"])
def test_tokens_alone_name_the_fields_and_the_way_out(task):
    model = wrapped(embedding(form="tokens"), task)
    with pytest.raises(sw.UsageError, match=r"\(2, 5, 6\) \(it holds last_hidden_state.*target=a function"):
        model.predict(images(2))
    with pytest.raises(sw.UsageError, match="target=a function"):
        explain(model, images(2), "gradient", sw.target.output(0))
    e = explain(model, images(2), "gradient", lambda out: out["last_hidden_state"][:, 0, 2])
    assert e.ok == [True, True]


# -- what networks return, and functions of it -----------------------------------------------------------------------------


@dataclass
class Output:
    loss: object
    logits: torch.Tensor


TABLE = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "outputs",
    [
        Output(None, TABLE),
        {"loss": torch.tensor(1.0), "head": {"aux": None, "logits": TABLE}},
        {"aux": TABLE * 2, "out": TABLE},
        {"features": torch.zeros(2, 9, 4, 4), "logits": TABLE},
        (torch.tensor(0.5), [TABLE]),
        {"pooler_output": TABLE, "last_hidden_state": torch.zeros(2, 7, 5)},
    ],
    ids=[
        "dataclass",
        "nested dict",
        "out before aux",
        "logits before features",
        "tuple of a loss and a list",
        "pooled",
    ],
)
def test_the_table_is_found_wherever_it_lies(outputs):
    assert torch.equal(scores(outputs), TABLE)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda out: out[:, :1], r"returned \(2, 1\): values\[:, 0\]"),
        (lambda out: out.sum(), r"returned \(\): sum or average within a row"),
        (lambda out: out[:, 0] > 0, "float type; it returned torch.bool"),
        (lambda out: out.argmax(1), "float type; it returned torch.int64"),
        (lambda out: 3.0, "returned float"),
    ],
    ids=["(N, 1)", "scalar", "bool", "int", "no tensor"],
)
@pytest.mark.parametrize("method", ["gradient", "grad_cam", "rise"])
def test_a_function_that_gives_no_number_a_row_is_told_what_it_gave(method, function, said):
    with pytest.raises(sw.UsageError, match=said):
        explain(wrapped(), images(2), method, function)


# -- in words --------------------------------------------------------------------------------------------------------------


def test_the_default_target_is_stated_with_its_probability():
    model, x = sw.wrap(tiny_cnn(), size=32, labels=NAMES), images(1)
    p, k = (float(v) for v in model.predict(x).softmax(1)[0].max(0))
    e = explain(model, x)
    assert e.target_text == [f"logit of {int(k)} {NAMES[int(k)]}"]
    assert f"explains logit of {int(k)} {NAMES[int(k)]}, predicted with p = {p:.3g}; score " in repr(e)
    other = (int(k) + 1) % CLASSES
    assert f"explains logit of {other} {NAMES[other]}, p = " in repr(explain(model, x, target=other))


def test_a_list_of_targets_of_several_kinds_is_refused():
    model = sw.wrap(tiny_cnn(), size=32)
    with pytest.raises(sw.UsageError, match="kind here is index and output"):
        explain(model, images(2), "gradient", [sw.target.logit(1), sw.target.output(1)])
    with pytest.raises(sw.UsageError, match="scale here is logit and probability"):
        explain(model, images(2), "gradient", [sw.target.logit(1), sw.target.probability(1)])
    with pytest.raises(sw.UsageError, match="one target per image"):
        explain(model, images(2), "gradient", [sw.target.logit([1, 2]), sw.target.logit([1, 2])])
    e = explain(model, images(2), "gradient", [sw.target.probability(1), sw.target.probability(2)])
    assert e.target_text == ["probability of class 1", "probability of class 2"]
