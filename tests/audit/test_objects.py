"""What people marked as the object, in an audit: surroundings are all else, and what lies outside is said."""

import pytest
import torch
from PIL import Image
from planted_scenes import eighth, scenes

from seewhy.audit.association import labels_of
from seewhy.audit.background import HALF, around_objects, background_candidates, surroundings
from seewhy.audit.candidate import Candidate
from seewhy.audit.exchange import exchanged
from seewhy.audit.objects import mass_outside, outside_fact, outside_queue, read_marked
from seewhy.data.dataset import read_dataset
from seewhy.data.geometry import frame
from seewhy.errors import UsageError
from seewhy.wrapping import wrap

SIDE, N = 56, 96
LABELS = torch.arange(N) % 2


def boxes(n=N, seed=1):
    """(n, SIDE, SIDE) bool: an object of 24 x 24 pixels in one of the corners of each image."""
    masks = torch.zeros(n, SIDE, SIDE, dtype=torch.bool)
    corners = torch.randint(0, 2, (n, 2), generator=torch.Generator().manual_seed(seed)) * (SIDE - 24)
    for mask, (top, left) in zip(masks, corners.tolist(), strict=True):
        mask[top : top + 24, left : left + 24] = True
    return masks


def test_grass_around_objects_that_lie_in_corners_is_found_where_these_are_marked():
    objects, x = boxes(), scenes(N, SIDE)
    green = torch.rand(3 * SIDE, 3 * SIDE, generator=torch.Generator().manual_seed(3))
    for i in range(1, N, 2):
        field = green[7 * i % (2 * SIDE) :, 11 * i % (2 * SIDE) :][:SIDE, :SIDE]
        x[i] = torch.where(objects[i], x[i], torch.stack([0.2 * field, 0.3 + 0.6 * field, 0.2 * field]))
    asked = labels_of(LABELS, "class", ["dog", "cat"], 2)
    how = (eighth(x), torch.arange(N), torch.arange(N) % 4 < 2, asked, 0)
    assert background_candidates(*how) == []  # without boxes the middle counts as the object, and it is grass
    found = background_candidates(*how, objects)
    assert [one.details["goes_with"] for one in found] == ["cat"]
    assert "around the marked objects" in found[0].suspicion[0]
    index = torch.arange(0, 40, 2)
    pasted = found[0].paste(x[index], index)
    inner = torch.zeros_like(objects[index])
    inner[:, 8:16, 8:16] = inner[:, 8:16, -16:-8] = inner[:, -16:-8, 8:16] = inner[:, -16:-8, -16:-8] = True
    kept = (objects[index] & inner)[:, None].expand_as(pasted)  # away from the seam
    torch.testing.assert_close(pasted[kept], x[index][kept], atol=0.02, rtol=0)
    assert float((pasted - x[index]).abs().mean()) > 0.1


def test_where_nothing_is_marked_or_all_of_it_the_middle_counts_as_the_object():
    objects = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    objects[1] = True
    objects[2, :9] = True
    found = around_objects((SIDE, SIDE), HALF, objects, 3)
    assert torch.equal(found[0], surroundings((SIDE, SIDE)))
    assert torch.equal(found[1], surroundings((SIDE, SIDE)))
    assert torch.equal(found[2], ~objects[2])


def test_no_part_of_a_donors_object_comes_along():
    images = torch.zeros(4, 1, 40, 40, dtype=torch.uint8)
    outside = torch.ones(4, 40, 40, dtype=torch.bool)
    for i in range(4):
        outside[i, 10 * i : 10 * i + 10, 10:30] = False
        images[i, 0][~outside[i]] = 255
    x = torch.full((4, 1, 40, 40), 0.5)
    taken = exchanged(images, torch.arange(4), outside, torch.arange(4) % 2 == 1, 0)(x, torch.arange(4))
    for i in range(4):  # away from the seam, whoever is the donor
        assert float(taken[:, 0, 10 * i + 4 : 10 * i + 6, 14:26].amax()) <= 0.51
    assert float(taken[:, 0, :, :5].amax()) <= 0.01


def candidate(shows, where=None, moving=None):
    return Candidate("local_pattern", "a mark", where, shows, None, {}, None, (), b"", boxes=moving)


def test_a_mark_says_how_much_of_it_lies_outside_of_the_object():
    objects = torch.zeros(4, 20, 20, dtype=torch.bool)
    objects[:3, :, :10] = True
    shows = torch.tensor([True, True, False, True])
    [fact] = outside_fact(candidate(shows, (5, 8, 9, 12)), objects)
    assert fact == "50 % of it lies outside of the marked object, in the 2 images that show it and have one"
    moving = torch.tensor([[0, 0, 4, 4], [0, 12, 4, 16], [0, 0, 4, 4], [0, 0, 4, 4]])
    [fact] = outside_fact(candidate(shows, moving=moving), objects)
    assert fact.startswith("50 %")
    assert outside_fact(candidate(shows), objects) == []
    assert outside_fact(candidate(shows, (5, 8, 9, 12)), None) == []
    assert outside_fact(candidate(torch.tensor([False, False, False, True]), (5, 8, 9, 12)), objects) == []


def test_the_mass_of_a_map_outside_is_beside_what_chance_leaves_there():
    objects = torch.zeros(4, 8, 8, dtype=torch.bool)
    objects[:3, :4] = True
    maps = torch.zeros(4, 2, 2)
    maps[0] = 1.0
    maps[1, 1] = -2.0
    maps[2] = torch.nan
    maps[3] = 1.0
    share, area = mass_outside(maps, objects)
    assert float(share[0]) == pytest.approx(0.5)
    assert float(share[1]) > 0.85  # all but what the resizing takes across the border
    assert area[:2].tolist() == [0.5, 0.5]
    assert share[2:].isnan().all()
    [worst] = outside_queue({"grad_cam": maps}, objects, ["a", "b", "c", "d"], 10)
    assert worst["path"] == "b"
    assert "leaves 50 % of the picture" in worst["reason"]


def folder(tmp_path, n=4):
    for i in range(n):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    return tmp_path


def test_boxes_of_files_lie_in_the_input_and_what_cannot_be_placed_is_listed(tmp_path):
    data = read_dataset(folder(tmp_path / "data"))
    table = tmp_path / "boxes.csv"
    table.write_text("file,x0,y0,x1,y1\n0.png,0,0,32,64\n1.png,500,500,600,600\nelsewhere.png,0,0,9,9\n")
    model = wrap(torch.nn.Conv2d(3, 2, 3), mean=(0.5,) * 3, std=(0.5,) * 3, size=32, crop=1.0)
    marked = read_marked(table, data, model)
    names = [sample.name for sample in data.samples]
    geometry = frame((64, 64), (32, 32))
    mask = marked.mask_of(data, names.index("a/0.png"), geometry)
    assert mask[:, :16].all()
    assert not mask[:, 16:].any()
    assert not marked.mask_of(data, names.index("b/1.png"), geometry).any()
    assert [one["path"] for one in marked.unused] == ["b/1.png"]
    assert not marked.mask_of(data, names.index("a/2.png"), geometry).any()
    assert read_marked(None, data, model) is None


def test_boxes_that_fit_no_image_are_an_error_before_any_work(tmp_path):
    data = read_dataset(folder(tmp_path / "data"))
    table = tmp_path / "boxes.csv"
    table.write_text("file,x0,y0,x1,y1\nnine.png,0,0,32,64\n")
    model = wrap(torch.nn.Conv2d(3, 2, 3), mean=(0.5,) * 3, std=(0.5,) * 3, size=32)
    with pytest.raises(UsageError, match=r"none of 1 annotations is of one of the 4 images: 'nine.png'"):
        read_marked(table, data, model)
    pictures = read_dataset([(Image.new("RGB", (8, 8)), "a"), (Image.new("RGB", (8, 8)), "b")])
    with pytest.raises(UsageError, match="this data set has none"):
        read_marked(table, pictures, model)
