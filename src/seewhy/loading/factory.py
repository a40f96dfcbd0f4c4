"""module.path:factory: a function, class or network in the user's own code."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from seewhy.errors import SeewhyError, UsageError, near_names
from seewhy.loading.checkpoint import fill, read_checkpoint
from seewhy.model import VisionModel


def load_own(specification: str, weights: str | Path | None) -> tuple[nn.Module | VisionModel, dict[str, Any], str]:
    """What `module.path:factory` gives, called without arguments; modules in the current folder are found, too."""
    path, _, name = specification.partition(":")
    with _current_folder_first():
        made = _made(_named(_imported(path, specification), name, specification), specification)
    if not isinstance(made, nn.Module | VisionModel):
        raise UsageError(
            f"{specification} gave {type(made).__name__}; expected a torch.nn.Module, or what sw.wrap makes of one."
        )
    return made, {}, fill_given(made.module if isinstance(made, VisionModel) else made, specification, weights)


def fill_given(module: nn.Module, specification: str, weights: str | Path | None) -> str:
    """A user's checkpoint into a network that comes with weights of its own; where they come from, in words."""
    if weights is None:
        return f"as {specification} gives it"
    if str(weights) == "random":
        raise UsageError(
            f"{specification} comes with its own weights: weights='random' is for timm:, torchvision:, hf:."
        )
    return fill(module, read_checkpoint(Path(weights)))


def _imported(path: str, specification: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except SeewhyError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{path}.".startswith(f"{error.name}."):
            here = [file.stem for file in Path.cwd().glob("*.py")]
            raise UsageError(
                f"{specification}: there is no module {error.name!r} in {Path.cwd()} or on Python's path; "
                f"{near_names(path, here)}"
            ) from None
        raise UsageError(f"{specification}: importing {path} fails: {type(error).__name__}: {error}") from error


def _named(module: ModuleType, name: str, specification: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [known for known, value in vars(found).items() if callable(value) and not known.startswith("_")]
            raise UsageError(f"{specification}: there is no {part!r} in {found.__name__}; {near_names(part, public)}")
        found = getattr(found, part)
    return found


def _made(factory: Any, specification: str) -> Any:
    if isinstance(factory, nn.Module | VisionModel) or not callable(factory):
        return factory
    try:
        return factory()
    except SeewhyError:
        raise
    except Exception as error:
        raise UsageError(f"{specification}() fails: {type(error).__name__}: {error}") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)
