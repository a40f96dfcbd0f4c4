import math

import pytest

from seewhy.errors import (
    ImageError,
    MissingExtraError,
    RefusalError,
    SeewhyError,
    UsageError,
    near_names,
    real_number,
    whole_number,
)


@pytest.mark.parametrize("kind", [UsageError, ImageError, RefusalError, MissingExtraError])
def test_one_except_clause_catches_every_error_of_ours(kind):
    assert issubclass(kind, SeewhyError)


def test_a_missing_package_comes_with_the_line_that_installs_it():
    text = str(MissingExtraError("timm", "demo", "the model 'lite0'"))
    assert "the model 'lite0' needs the package 'timm'" in text
    assert "pip install 'seewhy[demo]'" in text


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ("grad_cma", ["grad_cam", "gradient", "smooth_grad"], "did you mean 'grad_cam'"),
        ("TABBY", ["tabby", "lynx"], "did you mean 'tabby'"),
        ("Tabby", ["TABBY"], "did you mean 'TABBY'"),
        ("zzz", ["tabby", "lynx"], "known: tabby, lynx."),
        ("", ["tabby"], "known: tabby."),
        ("a", [], "none to choose from"),
        (("zzz"), [1, 22], "known: 1, 22."),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones_or_with_what_exists(given, known, expected):
    assert expected in near_names(given, known)


def test_at_most_three_near_names_are_given():
    assert near_names("resnet5", [f"resnet{i}" for i in range(10, 60)]).count("resnet") == 3


def test_a_long_list_of_what_exists_is_cut_and_counted():
    text = near_names("zzz", [f"name{i}" for i in range(30)])
    assert "name11" in text
    assert "name12" not in text
    assert "and 18 more" in text


@pytest.mark.parametrize("bad", [True, 1.0, "3", None, 0, -1, math.nan])
def test_a_count_that_is_no_whole_number_is_a_usage_error_with_the_value(bad):
    with pytest.raises(UsageError, match="steps is a whole number of at least 1") as caught:
        whole_number("steps", bad, at_least=1)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", [True, "3", None, -0.1, math.nan, math.inf])
def test_a_number_that_is_not_finite_or_too_small_is_a_usage_error_with_the_value(bad):
    with pytest.raises(UsageError, match="noise is a number of at least 0") as caught:
        real_number("noise", bad, at_least=0)
    assert repr(bad) in str(caught.value)


def test_the_lower_end_is_allowed_unless_the_number_must_lie_above_it():
    whole_number("steps", 1, at_least=1)
    real_number("noise", 0, at_least=0)
    real_number("noise", 0.1, at_least=0, above=True)
    with pytest.raises(UsageError, match="above 0"):
        real_number("noise", 0, at_least=0, above=True)
