import json

import pytest

from seewhy import registry
from seewhy.errors import UsageError
from seewhy.registry import MethodTable, check_parameters, find_method, list_methods, method


@pytest.fixture
def entered(monkeypatch):
    monkeypatch.setattr(registry, "METHODS", {})

    @method(
        title="Toy-CAM",
        family="cam",
        resolution="layer",
        picture="positive",
        cost="1 + steps",
        rows=lambda p: (0, 1 + p["steps"]),
        paper="A. Author, Toys, 2020",
        good_for="play",
        not_for="work",
        randomization="not tested",
    )
    def toy_cam(model, images, target, *, steps: int = 5, seed: int = 0):
        """Toy-CAM: the first line.

        The second line is no summary.
        """
        return "maps"

    @method(
        title="Plain",
        family="control",
        resolution="input",
        picture="signed",
        cost="0",
        rows=lambda p: (0, 0),
        paper="",
        good_for="",
        not_for="",
        randomization="",
        scale="probability",
        uses_target=False,
        needs_gradients=False,
    )
    def plain(model, images, target):
        return None

    return {"toy_cam": toy_cam, "plain": plain}


def test_a_decorated_function_is_entered_under_its_own_name_and_stays_itself(entered):
    info = find_method("toy_cam")
    assert info.function is entered["toy_cam"]
    assert entered["toy_cam"](None, None, None) == "maps"
    assert (info.name, info.title, info.family) == ("toy_cam", "Toy-CAM", "cam")
    assert info.summary == "Toy-CAM: the first line."
    assert info.parameters == {"steps": 5, "seed": 0}
    assert info.rows({"steps": 5}) == (0, 6)


def test_what_is_not_declared_has_the_cautious_default(entered):
    info = find_method("toy_cam")
    assert (info.scale, info.uses_target, info.complete, info.needs_gradients) == ("logit", True, False, True)


def test_a_method_is_seeded_exactly_if_it_takes_a_seed(entered):
    assert find_method("toy_cam").seeded
    assert not find_method("plain").seeded


def test_a_function_without_docstring_or_parameters_is_entered_too(entered):
    info = find_method("plain")
    assert info.summary == ""
    assert info.parameters == {}


def test_methods_are_listed_in_the_order_of_their_entry(entered):
    assert [info.name for info in list_methods()] == ["toy_cam", "plain"]


def test_a_declaration_is_plain_json(entered):
    records = list_methods().to_dicts()
    assert json.loads(json.dumps(records)) == records
    assert records[0]["parameters"] == {"steps": "5", "seed": "0"}
    assert records[1]["uses_target"] is False


def test_the_list_prints_as_an_aligned_table(entered):
    lines = str(list_methods()).splitlines()
    assert lines[0].split()[0] == "method"
    assert [line.split()[0] for line in lines[1:]] == ["toy_cam", "plain"]
    assert len({line.index(word) for line, word in zip(lines, ("resolution", "layer", "input"), strict=True)}) == 1
    assert repr(list_methods()) == str(list_methods())


def test_an_empty_list_prints_only_its_head():
    assert str(MethodTable()).split()[0] == "method"


def test_an_unknown_method_is_a_usage_error_with_the_near_name(entered):
    with pytest.raises(UsageError, match=r"unknown method 'toy_cma': did you mean 'toy_cam'"):
        find_method("toy_cma")


@pytest.mark.parametrize("given", [3, None, ["toy_cam"], b"toy_cam"])
def test_a_method_that_is_no_name_is_a_usage_error(entered, given):
    with pytest.raises(UsageError, match="unknown method"):
        find_method(given)


def test_an_unknown_parameter_is_a_usage_error_with_the_near_name(entered):
    with pytest.raises(UsageError, match=r"'toy_cam' has no parameter 'step': did you mean 'steps'"):
        check_parameters(find_method("toy_cam"), ["seed", "step"])


def test_a_parameter_of_a_method_that_has_none_is_a_usage_error(entered):
    with pytest.raises(UsageError, match="no parameter 'steps': there is none to choose from"):
        check_parameters(find_method("plain"), ["steps"])


def test_known_parameters_pass(entered):
    check_parameters(find_method("toy_cam"), ["seed", "steps"])
    check_parameters(find_method("plain"), [])
