"""Which images are explained, and which of them find and which confirm: drawn by the seed, whole scenes together."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor


def explained_images(strata: Sequence[tuple[str, bool]], per_stratum: int, at_most: int, seed: int) -> list[int]:
    """Indices of the images to explain: so many of each (class, right or wrong), the rarest strata first kept whole.

    strata: of each image what it counts as. Where all strata together pass `at_most`, each gives the same share.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for i, stratum in enumerate(strata):
        groups.setdefault(stratum, []).append(i)
    generator = np.random.default_rng(seed)
    drawn = {name: generator.permutation(found)[:per_stratum].tolist() for name, found in sorted(groups.items())}
    turn = sorted((place, name, i) for name, found in drawn.items() for place, i in enumerate(found))
    return sorted(i for _, _, i in turn[:at_most])


def searched_images(explained: Collection[int], count: int, at_most: int, seed: int) -> list[int]:
    """Indices of the images that are searched: the explained ones, and others of `count` up to `at_most`.

    What an image shows is seen without a map, so the search takes all that it may.
    """
    others = [i for i in np.random.default_rng([seed, 1]).permutation(count).tolist() if i not in explained]
    return sorted([*explained, *others[: at_most - len(explained)]])


def finding_half(scenes: Sequence[str], strata: Sequence[tuple[str, bool]], seed: int) -> Tensor:
    """(N,) bool: the images that may be used to find something; the others confirm. A scene is never split.

    Scenes are dealt alternately within what most of their images count as, so that both halves hold every class.
    """
    of: dict[str, list[int]] = {}
    for i, scene in enumerate(scenes):
        of.setdefault(scene, []).append(i)

    def place(scene: str) -> tuple[tuple[str, bool], str]:
        counts: dict[tuple[str, bool], int] = {}
        for i in of[scene]:
            counts[strata[i]] = counts.get(strata[i], 0) + 1
        most = max(sorted(counts), key=lambda name: counts[name])
        return most, hashlib.sha256(f"{seed} {scene}".encode()).hexdigest()

    half = torch.zeros(len(scenes), dtype=torch.bool)
    for k, scene in enumerate(sorted(of, key=place)):
        if k % 2 == 0:
            half[of[scene]] = True
    return half
