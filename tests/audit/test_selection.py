"""Which images are looked at, and which find and which confirm."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.audit.selection import explained_images, finding_half

STRATA = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(STRATA, st.integers(1, 12), st.integers(1, 50), st.integers(0, 5))
def test_at_most_so_many_of_each_and_the_rarest_whole(strata, each, most, seed):
    chosen = explained_images(strata, each, most, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, sum(min(each, n) for n in Counter(strata).values()))
    counts = Counter(strata[i] for i in chosen)
    assert max(counts.values()) <= each
    taken = [(min(each, n), counts[stratum]) for stratum, n in Counter(strata).items()]
    largest = max(got for _, got in taken)
    assert all(got == there or got >= largest - 1 for there, got in taken)  # where not all fit, each gives the same
    assert chosen == explained_images(strata, each, most, seed)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 5))
def test_no_scene_is_in_both_halves(data, seed):
    strata = data.draw(STRATA)
    scenes = [
        f"patient {k}" for k in data.draw(st.lists(st.integers(0, 9), min_size=len(strata), max_size=len(strata)))
    ]
    half = finding_half(scenes, strata, seed).tolist()
    finding, confirming = ({s for s, h in zip(scenes, half, strict=True) if h is which} for which in (True, False))
    assert not finding & confirming
    assert abs(len(finding) - len(confirming)) <= 1


def test_both_halves_hold_every_class():
    strata = [("abc"[i % 3], i % 5 > 0) for i in range(60)]
    half = finding_half([str(i) for i in range(60)], strata, 0).tolist()
    for stratum, n in Counter(strata).items():
        found = sum(h for h, own in zip(half, strata, strict=True) if own == stratum)
        assert abs(found - n / 2) <= 1


def test_another_seed_draws_and_deals_anew():
    strata = [("a", True)] * 40
    assert explained_images(strata, 10, 10, 0) != explained_images(strata, 10, 10, 1)
    names = [str(i) for i in range(40)]
    assert finding_half(names, strata, 0).tolist() != finding_half(names, strata, 1).tolist()
