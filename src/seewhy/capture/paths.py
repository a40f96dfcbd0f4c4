"""Which layers lie on every path of autograd's graph from the output back to the first of them."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.capture.gradients import Call, Site, start_graph
from seewhy.capture.outputs import tensors
from seewhy.capture.state import frozen
from seewhy.capture.tracing import look_at

Node = Any  # of autograd's graph


def on_every_path(module: nn.Module, call: Call, sites: Sequence[Site]) -> dict[str, bool]:
    """Per site whether every path from the output back to the first of them passes through it; one forward, no backward.

    A node lies on every path where the paths to it times the paths from it are all paths there are. Sites of which the graph
    does not tell (checkpointed, detached, beside the first one) are left out, all where nothing leads back. It starts at the
    first site, as class activation maps do: what comes before need not have a derivative.
    """
    if not sites:
        return {}
    start: list[Tensor | None] = [None]
    nodes: dict[str, Node] = {}

    def note(site: Site, tensor: Tensor) -> None:
        if tensor.grad_fn is not None:
            nodes[site.name] = tensor.grad_fn

    with frozen(module), torch.no_grad(), ExitStack() as hooks:
        hooks.callback(sites[0].module.register_forward_hook(start_graph(start, 0, sites[0])).remove)
        output = look_at(call, sites, note)
    ends = list(dict.fromkeys(t.grad_fn for t in tensors(output) if t.grad_fn is not None))
    order = _outputs_first(ends)
    after, before = _paths_from_output(order, ends), _paths_to(start[0], order)
    total = sum(before[end] for end in ends)
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


def _paths_to(start: Tensor | None, order: Sequence[Node]) -> dict[Node, int]:
    paths: dict[Node, int] = {}
    for node in reversed(order):
        own = int(start is not None and getattr(node, "variable", None) is start)
        paths[node] = own + sum(paths[given] for given, _ in node.next_functions if given is not None)
    return paths
