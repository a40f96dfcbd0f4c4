"""Curves as a picture: every point that there is, gaps where there is none, names that are no markup."""

import re
import xml.etree.ElementTree as ElementTree

from seewhy.faces.plot import legend, plot


def curve(name, values, x=None, control=False):
    points = [
        {"value": v, "low": None if v is None else v - 0.1, "high": None if v is None else v + 0.1} for v in values
    ]
    return {
        "name": name,
        "x_name": "share",
        "y_name": "score_of",
        "x": list(range(len(values))) if x is None else x,
        "points": points,
        "control": control,
    }


def lines(svg):
    return re.findall(r'class="sw-line (\S+)" d="M([^"]*)"', svg)


def test_a_higher_value_lies_higher_and_a_later_one_more_to_the_right():
    ((kind, path),) = lines(plot([curve("a", [0.0, 1.0])]))
    (x0, y0), (x1, y1) = (map(float, point.split()) for point in path.split("L"))
    assert kind == "sw-line-0"
    assert x1 > x0
    assert y1 < y0


def test_a_point_without_a_value_is_left_out():
    ((_, path),) = lines(plot([curve("a", [0.0, None, 1.0])]))
    assert len(path.split("L")) == 2


def test_controls_are_drawn_apart_and_named():
    curves = [curve("a", [1, 2]), curve("random_map", [0, 0], control=True), curve("edge_map", [1, 1], control=True)]
    assert [kind for kind, _ in lines(plot(curves))] == ["sw-line-0", "sw-line-control-0", "sw-line-control-1"]
    assert [name for _, name in legend(curves)] == ["a", "random map", "edge map"]


def test_names_are_text_and_not_markup():
    svg = plot([curve("a", [1, 2, 3], ["<b>", "a & b", "a very long name of a stage"])])
    ElementTree.fromstring(svg)
    assert "<b>" not in svg
    assert "…" in svg


def test_a_flat_curve_a_single_point_and_none_at_all_are_drawn():
    for values in ([0.5, 0.5], [0.0], [None, None], [1e-9, 2e-9], [-1e6, 1e6]):
        ElementTree.fromstring(plot([curve("a", values)]))
