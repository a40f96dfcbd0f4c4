"""What a finding says of the data's own columns, and how findings that look alike are told apart."""

from types import SimpleNamespace

import pytest
import torch

from seewhy.audit.findings import facts_of_metadata, merged


def facts(shows, values, scenes=None, **columns):
    scenes = range(len(shows)) if scenes is None else scenes
    columns = {"site": values, **columns}
    rows = [{name: v[i] for name, v in columns.items() if v[i] is not None} for i in range(len(shows))]
    return facts_of_metadata(torch.tensor(shows, dtype=torch.bool), torch.tensor(scenes), rows)


# -- columns of the data -------------------------------------------------------------------------------------------------


def test_a_value_whose_images_show_it_is_a_fact_with_fishers_p():
    # 4 of 4 against 0 of 6: 1 / C(10, 4) = 1/210; two values of the column were tried
    [said] = facts([1] * 4 + [0] * 6, ["a"] * 4 + ["b"] * 6)
    assert "it goes with site = a: 4 of its 4 examined images show it, 0 of the 6 others" in said
    assert "p = 0.0095 after correction for 2 values" in said  # 2/210


def test_what_chance_explains_is_no_fact():
    # 3 of 3 against 0 of 3: 1 / C(6, 3) = 1/20 alone, 1/10 for two values
    assert facts([1] * 3 + [0] * 3, ["a"] * 3 + ["b"] * 3) == []


def test_every_value_that_is_tried_counts():
    shows, values = [1] * 4 + [0] * 6, ["a"] * 4 + ["b"] * 6
    other = [f"x{i % 5}" for i in range(10)]  # 5 values more: 7/210 = 0.033
    assert "p = 0.033 after correction for 7 values" in facts(shows, values, day=other)[0]
    assert facts(shows, values, day=[f"x{i}" for i in range(10)]) == []  # 12/210 = 0.057


def test_a_column_that_names_the_images_does_not_count():
    n = 32
    names = [f"file {i}" for i in range(n)]
    [said] = facts([1] * 16 + [0] * 16, ["a"] * 16 + ["b"] * 16, name=names)
    assert "correction for 2 values" in said


def test_a_value_that_nearly_all_images_have_is_no_fact_of_a_pattern_that_nearly_all_show():
    values = ["a"] * 39 + ["b"]
    assert facts([1] * 38 + [0] * 2, values) == []  # 38 of 39 against 0 of 1: 2/40 alone
    assert facts([1] * 40, ["a"] * 40) == []  # nothing to compare with


def test_a_value_whose_images_lack_it_is_no_fact_of_its_own():
    said = facts([1] * 4 + [0] * 6, ["b"] * 4 + ["a"] * 6)
    assert [one.split(":")[0] for one in said] == ["it goes with site = b"]


@pytest.mark.parametrize(("per_patient", "facts_found"), [(1, 1), (5, 0)])
def test_many_images_of_few_patients_are_few(per_patient, facts_found):
    shows, values = [1] * 10 + [0] * 10, ["a"] * 10 + ["b"] * 10
    found = facts(shows, values, scenes=[i // per_patient for i in range(20)])
    assert len(found) == facts_found  # 2 of 2 patients against 0 of 2: 1/6


def test_groups_are_counted_by_what_most_of_their_images_show():
    # 8 patients of 3 images each; two images of every patient of site a show it, one of every patient of site b
    shows = [1, 1, 0] * 4 + [1, 0, 0] * 4
    [said] = facts(shows, ["a"] * 12 + ["b"] * 12, scenes=[i // 3 for i in range(24)])
    assert "4 of its 4 examined groups show it, 0 of the 4 others" in said
    assert "p = 0.029" in said  # 2 / C(8, 4)


def test_images_without_a_value_are_others():
    [said] = facts([1] * 4 + [0] * 6, ["a"] * 4 + [None] * 6)
    assert "p = 0.0048 after correction for 1 values" in said


# -- ids -----------------------------------------------------------------------------------------------------------------


def mark(identifier, name, images, status="confirmed"):
    """A mark that moves, as a finding with its trial."""
    about = {"id": identifier, "kind": "local_pattern", "name": name, "status": status, "images": images}
    return {**about, "where": None, "effect": [], "outputs": ["dog"], "details": {}}, SimpleNamespace(of=images)


def ids(found):
    return {tuple(one["images"]): one["id"] for one, _ in merged(found)}


def test_findings_that_look_alike_have_ids_of_their_own_in_every_run():
    alike = [mark("abc", "a mark that moves", [f"{k}.png"]) for k in range(3)]
    alike.append(mark("abc", "a mark in the upper left corner", ["0.png"], "refuted"))
    again = [mark(one["id"], one["name"], one["images"], one["status"]) for one, _ in reversed(alike)]
    found = [one for one, _ in merged(alike)]
    assert len({one["id"] for one in found}) == 4
    known = {(one["name"], *one["images"]): one["id"] for one in found}
    assert known == {(one["name"], *one["images"]): one["id"] for one, _ in merged(again)}


def test_a_finding_that_nothing_looks_like_keeps_its_id():
    found = [mark("abc", "a mark that moves", ["0.png"]), mark("def", "a mark that moves", ["1.png"])]
    assert ids(found) == {("0.png",): "abc", ("1.png",): "def"}


def test_the_one_that_is_left_is_not_taken_for_the_one_that_was_accepted():
    both = ids([mark("abc", "a mark that moves", [name]) for name in ("0.png", "1.png")])
    left = ids([mark("abc", "a mark that moves", ["1.png"])])
    assert not set(both.values()) & set(left.values())


def test_an_id_among_look_alikes_depends_on_the_place_and_not_on_the_others():
    def found(moving):
        fixed = mark("abc", "a mark in the upper left corner", ["5.png"])
        return ids([fixed, *(mark("abc", "a mark that moves", [f"{k}.png"]) for k in range(moving))])

    assert found(1)[("5.png",)] == found(2)[("5.png",)]


def test_every_finding_comes_with_its_own_trial():
    found = merged([mark("abc", "a mark that moves", [name]) for name in ("0.png", "1.png")])
    assert all(one["images"] == trial.of for one, trial in found)
