"""file.pt2 (torch.export) and file.pt, .ts, .jit (TorchScript): programs without layers to look into."""

import json
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.errors import UsageError, first_line, near_file
from seewhy.loading.checkpoint import kind_of_file
from seewhy.loading.factory import fill_given

PROGRAMS = (".pt2", ".pt", ".ts", ".jit")
CHECKPOINTS = (".pth", ".ckpt", ".safetensors", ".bin", ".tar")
IN_TRAINING = {"dropout": 2, "batch_norm": 5}  # operators that training changes, and which argument says so


def load_file(path: Path, weights: str | Path | None) -> tuple[nn.Module, dict[str, Any], str]:
    """The network in a file. UsageError for weights without a network, and for pickled code: it is never run.

    Such a file is a program, and running it is what it is for: take it from those you trust.
    """
    if not path.is_file():
        raise UsageError(f"no such model file: {path}.{near_file(path)}")
    kind = kind_of_file(path)
    if kind == "other":
        raise UsageError(
            f"{path} holds no network that can be loaded safely. If it holds weights, name their architecture: "
            f"sw.load('timm:NAME', weights={path.name!r}) (command line: --model timm:NAME --weights {path.name}), also "
            "torchvision:, hf: or module.path:factory. A pickled nn.Module is refused, since that runs code: save its "
            "state_dict(), or the whole by torch.export.save(torch.export.export(module, (x,)), 'file.pt2')."
        )
    with _cautious():
        try:
            module, settings = _scripted(path) if kind == "TorchScript" else _exported(path)
        except UsageError:
            raise
        except Exception as error:  # torch raises many types on damaged files
            raise UsageError(
                f"{path} cannot be loaded as {kind} ({type(error).__name__}: {first_line(error)})."
            ) from error
    return module, settings, fill_given(module, str(path), weights)


@contextmanager
def _cautious() -> Iterator[None]:
    """torch.export unpickles tensors only; what goes wrong is raised, not logged; torch.jit's deprecation is no news."""
    logger, force = logging.getLogger("torch.export"), "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    level, before = logger.level, os.environ.get(force)
    logger.setLevel(logging.CRITICAL)
    os.environ[force] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if before is None:
            del os.environ[force]
        else:
            os.environ[force] = before


def _scripted(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    module: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]  # torch's own gap
    return module.eval(), {}


def _exported(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The program's module, and of its input what the file says: channels, size, a fixed number of rows."""
    _refuse_code(path)
    program = torch.export.load(path)
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1 or len(inputs[0].meta["val"].shape) < 3:
        shapes = [tuple(node.meta["val"].shape) for node in inputs]
        raise UsageError(f"{path} takes {len(inputs)} inputs {shapes}; expected one batch of images (N, C, H, W).")
    rows, channels, *size = [n if isinstance(n, int) else None for n in inputs[0].meta["val"].shape]
    if rows not in (None, 1):
        raise UsageError(
            f"{path} was exported for exactly {rows} images at once: export it for any number, with dynamic_shapes="
            "({0: torch.export.Dim('batch')},), or for one."
        )
    for node in program.graph.nodes:
        for name, place in IN_TRAINING.items():
            if f"aten.{name}." in str(node.target) and len(node.args) > place and node.args[place] is True:
                raise UsageError(f"{path} was exported in training mode ({name} is active): export module.eval().")
    settings: dict[str, Any] = {"batch_size": rows}
    if len(size) == 2 and None not in size:
        settings["size"] = tuple(size)
    if channels is not None and channels != 3:
        settings |= {"mean": (0.0,) * channels, "std": (1.0,) * channels}  # no normalization, of so many channels
    return program.module(), settings


def _refuse_code(path: Path) -> None:
    """UsageError for compiled code and pickled objects, which torch.export.load would run and unpickle."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            code = "/data/aotinductor/" in name
            if name.endswith("_constants_config.json"):
                held = json.loads(archive.read(name))["config"].values()
                code = any(not one["path_name"].startswith("tensor_") for one in held)
            if code:
                raise UsageError(
                    f"{path} holds objects that need code to run ({name}): refused. Export it without them."
                )
