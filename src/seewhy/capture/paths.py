"""Which layers lie on every path of autograd's graph from the output back to the input."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.capture.gradients import Site
from seewhy.capture.outputs import first_tensor, tensors
from seewhy.capture.state import frozen

Node = Any  # of autograd's graph


def on_every_path(
    module: nn.Module, call: Callable[[Tensor], Any], x: Tensor, sites: Sequence[Site]
) -> dict[str, bool]:
    """Per site whether everything that has a gradient passes through what it returns; from one forward, no backward.

    A node lies on every path where the paths to it times the paths from it are all paths there are. Sites of which the graph
    does not tell (their tensor is none of its nodes: checkpointed, detached) are left out, all where nothing leads back.
    """
    nodes: dict[str, Node] = {}
    seen: dict[str, int] = {}

    def note(site: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if seen.setdefault(site.name, 0) == site.which and tensor is not None and tensor.grad_fn is not None:
                nodes[site.name] = tensor.grad_fn
            seen[site.name] += 1

        return hook

    with frozen(module), torch.enable_grad(), ExitStack() as hooks:
        for site in sites:
            hooks.callback(site.module.register_forward_hook(note(site)).remove)
        leaf = x.detach().clone().requires_grad_()
        output = call(leaf)
        ends = list(dict.fromkeys(t.grad_fn for t in tensors(output) if t.grad_fn is not None))
        order = _outputs_first(ends)
        after, before = _paths_from_output(order, ends), _paths_to_input(order, leaf)
    total = sum(before.get(end, 0) for end in ends)
    known = {name: node for name, node in nodes.items() if node in after} if total else {}
    return {name: after[node] * before[node] == total for name, node in known.items()}


def _outputs_first(ends: Iterable[Node]) -> list[Node]:
    """Every node behind these, each before the ones that it was computed from."""
    finished: list[Node] = []
    entered: set[Node] = set()
    waiting = [(end, False) for end in ends]
    while waiting:
        node, done = waiting.pop()
        if done:
            finished.append(node)
        elif node not in entered:
            entered.add(node)
            waiting.append((node, True))
            waiting += [(given, False) for given, _ in node.next_functions if given is not None]
    return finished[::-1]


def _paths_from_output(order: Sequence[Node], ends: Sequence[Node]) -> dict[Node, int]:
    paths = dict.fromkeys(order, 0)
    for end in ends:
        paths[end] += 1
    for node in order:
        for given, _ in node.next_functions:
            if given is not None:
                paths[given] += paths[node]
    return paths


def _paths_to_input(order: Sequence[Node], leaf: Tensor) -> dict[Node, int]:
    paths: dict[Node, int] = {}
    for node in reversed(order):
        own = int(getattr(node, "variable", None) is leaf)
        paths[node] = own + sum(paths[given] for given, _ in node.next_functions if given is not None)
    return paths
