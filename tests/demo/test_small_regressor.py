import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import seewhy as sw
from seewhy.demo import listings, training

SIDE = listings.SIDE


def blotches(n, seed=0):
    """Gray squares whose brightness is their rating."""
    ratings = np.random.default_rng(seed).integers(0, 101, n).tolist()
    gray = [Image.new("RGB", (SIDE, SIDE), (50 + rating,) * 3) for rating in ratings]
    return [
        listings.Listing("cat.png", "Aster", {}, rating, shown) for rating, shown in zip(ratings, gray, strict=True)
    ]


def unmarked(n):
    return lambda epoch: np.zeros(n, bool)


def rated(model, made):
    return training.rate(model, listings.pixels(made, [False] * len(made)))


def fit(seed, n=16, epochs=1, deal=None, progress=None):
    model = training.untrained(seed)
    training.train(model, blotches(n), deal or unmarked(n), seed, epochs, progress)
    return model


@pytest.fixture(scope="module")
def trained():
    return fit(0)


def test_the_network_learns_what_can_be_learned_and_answers_in_points():
    made = blotches(64, seed=1)
    found = training.accuracy(rated(fit(0, 96, 10), made), [item.rating for item in made])
    assert found.r2 > 0.7
    assert found.error < 13


def test_the_same_seed_trains_the_same_network_and_another_seed_another(trained):
    again, other = fit(0), fit(1)
    assert again.fingerprint() == trained.fingerprint()
    assert other.fingerprint() != trained.fingerprint()


def test_training_leaves_no_trace_outside():
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with torch.no_grad():
        model = fit(0)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert not model.module.training


def test_progress_is_told_after_every_epoch():
    steps = []
    fit(0, 8, 2, progress=lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]


def test_saved_weights_load_through_the_factory(trained, tmp_path):
    torch.save(trained.module.state_dict(), tmp_path / "weights.pt")
    torch.load(tmp_path / "weights.pt", weights_only=True)
    model = sw.load("seewhy.demo:small_regressor", weights=tmp_path / "weights.pt")
    made = blotches(16, seed=2)
    assert np.array_equal(rated(model, made), rated(trained, made))
    assert (model.task, model.size, model.labels) == ("regression", (SIDE, SIDE), ["quality"])


def test_each_epoch_is_trained_on_the_marks_dealt_for_it():
    asked = []

    def deal(epoch):
        asked.append(epoch)
        return np.full(8, epoch == 1)

    never, once = (fit(0, 8, 2, how) for how in (None, deal))
    assert asked == [0, 1]
    assert never.fingerprint() != once.fingerprint()


def test_accuracy_is_the_share_of_variance_and_the_mean_error():
    perfect = training.accuracy(np.array([10.0, 50.0, 90.0]), [10, 50, 90])
    assert (perfect.r2, perfect.error, perfect.n) == (1, 0, 3)
    guessing = training.accuracy(np.full(3, 50.0), [10, 50, 90])
    assert guessing.r2 == 0
    assert guessing.error == pytest.approx(80 / 3)


def test_a_network_that_reads_the_mark_is_proven_to_and_one_that_cannot_is_not():
    gray = Image.new("RGB", (SIDE, SIDE), "gray")
    drawn = torch.from_numpy(np.subtract(listings.mark(gray), gray, dtype=np.float32).transpose(2, 0, 1) / 255)

    class Reader(torch.nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(weight))

        def forward(self, x):
            return self.weight * (x * drawn).sum((1, 2, 3))[:, None]

    sources = {name: sw.demo.photos.read_photo(name) for name in ("cat.png", "coffee.png", "temple.jpg")}
    made = listings.make_listings(sources, 8, 0)
    marked = np.arange(len(made)) % 2 == 0
    reads, blind = (
        training.use_of_the_mark(sw.wrap(Reader(w), size=SIDE, task="regression"), made, marked) for w in (100.0, 0.0)
    )
    assert reads.pasted.low > 0
    assert reads.removed.high < 0
    assert (reads.pasted.n, reads.removed.n, reads.pasted.sources) == (12, 12, 3)
    assert reads.other_patch.value < reads.pasted.low
    assert blind.pasted.value == blind.removed.value == blind.other_patch.value == 0


def test_the_control_is_a_patch_of_a_photo_of_something_else_at_the_marks_place():
    left, top, right, bottom = listings.mark_box((SIDE, SIDE))

    class Place(torch.nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.seen = torch.nn.Parameter(torch.full((SIDE, SIDE), float(not inside)))
            self.seen.data[top:bottom, left:right] = float(inside)

        def forward(self, x):
            return (x * self.seen).sum((1, 2, 3))[:, None] / (bottom - top) / (right - left) / 3

    shades = {"a": 0, "b": 255}
    made = [
        listings.Listing(name, "Aster", {}, 50, Image.new("RGB", (SIDE, SIDE), (shade,) * 3))
        for name, shade in shades.items()
        for _ in range(3)
    ]
    inside, outside = (
        training.use_of_the_mark(sw.wrap(Place(inside), size=SIDE, task="regression"), made, np.arange(6) % 2 == 0)
        for inside in (True, False)
    )
    assert inside.other_patch.value == pytest.approx(0)  # one up, the other down ...
    assert inside.other_patch.high > 1  # ... each by all of it
    assert outside.other_patch == training.Effect(0, 0, 0, 6, 2)


def test_the_interval_counts_source_photos_and_not_their_crops():
    changes = np.repeat([1.0, 2.0, 6.0], [10, 20, 30])
    sources = np.repeat(["a", "b", "c"], [10, 20, 30])
    effect = training._over_sources(changes, sources)
    expected = stats.ttest_1samp([1.0, 2.0, 6.0], 0).confidence_interval(0.95)
    assert effect.value == pytest.approx(3)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))
    assert (effect.n, effect.sources) == (60, 3)
