"""Noisy linear imputation: equal to a sparse solver, exact where the answer is known."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve

from nets import images
from seewhy.imputation import impute


def twin(x, hidden):
    """Of one picture (C, h, w): every hidden pixel is the mean of its neighbors, direct 1/6 and diagonal 1/12."""
    place = {tuple(at): k for k, at in enumerate(np.argwhere(hidden.numpy()))}
    system, right = sparse.lil_matrix((len(place), len(place))), np.zeros((len(place), len(x)))
    for (i, j), k in place.items():
        around = [(i + a, j + b, 1 / 12 if a and b else 1 / 6) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        around = [(p, q, weight) for p, q, weight in around if 0 <= p < x.shape[1] and 0 <= q < x.shape[2]]
        total = sum(weight for _, _, weight in around)
        system[k, k] = 1
        for p, q, weight in around:
            if (p, q) in place:
                system[k, place[p, q]] = -weight / total
            else:
                right[k] += weight / total * x[:, p, q].numpy()
    found = x.clone()
    found[:, hidden] = torch.tensor(spsolve(system.tocsr(), right).reshape(len(place), -1).T, dtype=x.dtype)
    return found


def random_holes(n, size, share, seed=1):
    return torch.rand(n, 1, *size, generator=torch.Generator().manual_seed(seed)) < share


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_it_is_the_solution_of_a_sparse_solver(share):
    x, hidden = images(2, size=(20, 13)), random_holes(2, (20, 13), share)
    found = impute(x, hidden)
    for i in range(2):
        assert (found[i] - twin(x[i], hidden[i, 0])).abs().max() < 2e-4


def test_a_constant_picture_is_unchanged_and_so_is_what_is_known():
    x, hidden = torch.full((2, 3, 32, 32), 0.3), random_holes(2, (32, 32), 0.9)
    assert torch.allclose(impute(x, hidden), x, atol=1e-6)
    x = images(2)
    assert torch.equal(impute(x, hidden)[(~hidden).expand_as(x)], x[(~hidden).expand_as(x)])


def test_an_affine_ramp_comes_back_away_from_the_border():
    ramp = (0.01 * torch.arange(32)[:, None] + 0.02 * torch.arange(32) / 2).expand(1, 1, 32, 32).contiguous()
    hidden = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hidden[..., 4:28, 6:26] = True
    assert (impute(ramp, hidden) - ramp).abs().max() < 1e-4


def test_a_wholly_hidden_picture_becomes_its_mean_color_and_its_neighbors_in_the_batch_do_not_notice():
    x, hidden = images(3), random_holes(3, (32, 32), 0.5)
    hidden[1] = True
    found = impute(x, hidden)
    assert torch.allclose(found[1], x[1].mean((1, 2), keepdim=True).expand_as(x[1]), atol=1e-5)
    for i in range(3):
        assert torch.allclose(found[i], impute(x[i : i + 1], hidden[i : i + 1])[0], atol=1e-5)
