"""Functions with closed-form answers, as networks over pixels (N, 1, 1, features) -> (N, 1)."""

import torch
from torch import nn

import seewhy as sw


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x.flatten(1)).unsqueeze(1)


def model_of(function):
    """`function` maps (N, features) to (N,); pixels are not normalized, bounds are those of the function's domain."""
    model = sw.wrap(Function(function), task="regression")
    model.bounds = (-100.0, 100.0)
    return model


def pixels(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def explained(function, x, method, baseline=None, **params):
    if baseline is not None:
        params["baseline"] = baseline[0]
    return sw.explain(model_of(function), x, method, **params)


def saturation(x):
    return 1 - torch.relu(1 - x[:, 0])


def figure_7_f(x):
    return torch.relu(torch.relu(x[:, 0]) - 1 - torch.relu(x[:, 1]))


def figure_7_g(x):
    return torch.relu(torch.relu(x[:, 0] - 1) - torch.relu(x[:, 1]))
