"""A network with more than one input: what is given beside the image is held fixed, whatever the method does."""

import pytest
import torch

import seewhy as sw
from nets import images, tiny_cnn
from seewhy.registry import METHODS
from small import REPRESENTATIVES, SMALL
from task_nets import image_and_table, two_images

sw.methods()
ALL = [name for name in REPRESENTATIVES if name in METHODS and "attention" not in name]
AGES = torch.tensor([[1.0, 2, 3], [0, 1, 0], [2, 0, 1]])


def wrapped(net=None, **given):
    return sw.wrap(
        image_and_table() if net is None else net, **{"size": 32, "mean": (0.4,) * 3, "std": (0.3,) * 3, **given}
    )


def explain(model, x, method="gradient", target=1, **given):
    return sw.explain(model, x, method, target, **{**SMALL.get(method, {}), **given})


class Fixed(torch.nn.Module):
    """The same network with one row of its table built in: what a map with that row beside it must equal."""

    def __init__(self, net, age):
        super().__init__()
        self.net, self.age = net, age

    def forward(self, x):
        return self.net(x, self.age.expand(len(x), -1))


@pytest.mark.parametrize("batch_size", [2, None])
@pytest.mark.parametrize("method", ALL)
def test_each_image_keeps_its_own_row_of_the_table(method, batch_size):
    model, x = wrapped(batch_size=batch_size), images(3)
    e = explain(model, x, method, beside={"age": AGES})
    for i in range(3):
        own = explain(wrapped(Fixed(image_and_table(), AGES[i : i + 1])), x[i : i + 1], method)
        assert torch.allclose(e.scores[i], own.scores[0], atol=1e-5)
        assert torch.allclose(e.raw[i], own.raw[0], atol=1e-5 * max(1.0, float(own.raw.abs().max())))


def test_either_of_two_images_is_explained_while_the_other_is_held():
    model, a, b = sw.wrap(two_images(), size=32), images(2), images(2, seed=7)
    first = explain(model, a, beside={"second": b})
    second = explain(model, b, beside={"first": a})
    assert torch.allclose(first.scores, second.scores, atol=1e-6)
    for e, x in ((first, a), (second, b)):
        leaf = x.clone().requires_grad_()
        inputs = (leaf, b) if x is a else (a, leaf)
        two_images()(*inputs)[:, 1].sum().backward()
        assert torch.allclose(e.raw, leaf.grad.sum(1), atol=1e-5)
    assert not torch.equal(first.raw, second.raw)


def test_one_row_serves_all_images_and_several_targets():
    model, x = wrapped(), images(2)
    e = explain(model, x, "grad_cam", [[0, 1], [2]], beside={"age": AGES[:1]})
    wanted = explain(model, x, "grad_cam", [[0, 1], [2]], beside={"age": AGES[:1].expand(2, -1)})
    assert torch.equal(e.raw, wanted.raw)
    assert e.image_index == [0, 0, 1]


def test_the_prediction_is_that_beside_the_given_rows():
    model, x = wrapped(), images(3)
    best = model.predict(x, beside={"age": AGES}).argmax(1)
    assert [t["index"] for t in explain(model, x, "gradient", None, beside={"age": AGES}).targets] == best.tolist()
    with torch.no_grad():
        assert torch.allclose(model.predict(x, {"age": AGES}), image_and_table()((x - 0.4) / 0.3, AGES), atol=1e-5)


def test_several_labels_are_found_beside_the_given_rows():
    model, x = wrapped(task="multilabel"), images(3)
    p = model.predict(x, {"age": AGES}).sigmoid()
    e = explain(model, x, "gradient", None, beside={"age": AGES})
    assert len(e) == sum(max(1, int((row >= 0.5).sum())) for row in p)


def test_the_layer_search_keeps_what_lies_beside():
    model, x = wrapped(), images(1)
    assert explain(model, x, "grad_cam", beside={"age": AGES[:1]}).layer == "relu2"
    other = explain(model, x, "grad_cam", beside={"age": 0 * AGES[:1] + 5})
    assert other.layer == "relu2"
    named = explain(model, x, "grad_cam", layer="bn1", beside={"age": 3 * AGES[1:2] + 1})
    assert named.layer == "bn1"
    assert named.validity["approximations"] == []  # on the trunk, whatever lay beside the image when layers were found


def test_another_row_beside_the_same_image_is_another_record(tmp_path):
    model, x = wrapped(), images(1)
    for i in range(2):
        explain(model, x, beside={"age": AGES[i : i + 1]}).save(tmp_path / "run")
    back = sw.read_explanation(tmp_path / "run")
    assert len(back) == 2
    assert back.targets[0]["beside"] != back.targets[1]["beside"]


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        ({"agee": AGES}, "no 'agee': did you mean 'age'"),
        ({"age": AGES[:2]}, "2 rows for 3 images: give one per image, or one for all"),
        ({"age": [1, 2, 3]}, "got list"),
        ({"age": torch.tensor(1.0)}, "got a single number"),
        (None, "also needs age: pass beside={'age'"),
        (AGES, "beside is a dict"),
        ({"x": images(3), "age": AGES, "scale": torch.ones(3)}, "none is left for the image"),
    ],
    ids=["name", "count", "list", "number", "nothing", "no dict", "everything"],
)
def test_what_cannot_be_given_beside_is_an_error_before_any_work(beside, said):
    model = wrapped()
    with pytest.raises(sw.UsageError, match=said):
        explain(model, images(3), beside=beside)
    assert (model.forward_rows, model.gradient_rows) == (0, 0)


def test_a_network_without_other_inputs_has_nothing_beside():
    with pytest.raises(sw.UsageError, match="no 'age'"):
        explain(sw.wrap(tiny_cnn()), images(1), beside={"age": AGES[:1]})


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_network_with_a_table_gives_the_same_map():
    model, x = wrapped(torch.jit.script(image_and_table())), images(2)
    e = explain(model, x, beside={"age": AGES[:2]})
    assert torch.allclose(e.raw, explain(wrapped(), x, beside={"age": AGES[:2]}).raw, atol=1e-5)


def test_the_tensors_of_the_user_stay_as_they_are():
    class Writing(type(image_and_table())):
        def forward(self, x, age, scale=1.0):
            age += 1
            return super().forward(x, age, scale)

    net = image_and_table()
    net.__class__ = Writing
    ages = AGES.clone().requires_grad_()
    explain(wrapped(net), images(3), beside={"age": ages})
    assert torch.equal(ages.detach(), AGES)
    assert ages.grad is None


def test_captum_takes_one_input():
    captum = pytest.importorskip("captum.attr")
    with pytest.raises(sw.UsageError, match="one input"):
        sw.explain(wrapped(), images(1), sw.from_captum(captum.Saliency), 1, beside={"age": AGES[:1]})
