"""Weights from a user's file into a network: which part of the file they are, under which prefix, for how many classes.

Nothing is guessed: a part and a prefix are taken only if every entry of the network is found there in its shape.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seewhy.errors import MissingExtraError, UsageError, first_line, near_file
from seewhy.loading.extras import import_extra

Entries = Mapping[str, Tensor]
PARTS = (  # of a training file that may hold a network, in the order in which they are tried
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema"),
)
NOT_READ = "num_batches_tracked"  # of a BatchNorm: files from before PyTorch 0.4.1 lack it, evaluation never reads it


@dataclass(frozen=True)
class Checkpoint:
    """The tables of tensors by name in a weights file; the first that fits is taken."""

    path: Path
    parts: Mapping[str, Entries]  # by where they lie in the file: "", "state_dict", ...


@dataclass(frozen=True)
class Fit:
    """One part of a file under one prefix, held against a network."""

    part: str
    prefix: str
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    @property
    def whole(self) -> bool:
        """Whether every entry is there, and no other under the prefix."""
        return not (self.missing or self.unexpected or self.misshapen)


def read_checkpoint(path: Path) -> Checkpoint:
    """Tensors by name from a .pth/.pt/.ckpt/.safetensors file; never unpickles code (`weights_only=True`).

    UsageError for a missing, damaged or unsafe file, or one that holds no tensors by name.
    """
    loaded = _loaded(path)
    parts = dict(_tables(loaded, ""))
    if not parts:
        raise UsageError(f"{path} holds no tensors by name (found {type(loaded).__name__}): save model.state_dict().")
    return Checkpoint(path, parts)


def kind_of_file(path: Path) -> Literal["TorchScript", "torch.export", "other"]:
    """What a zip archive of PyTorch's is, by the names of its members."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # no archive, or a damaged one
        return "other"
    if "constants.pkl" in members:
        return "TorchScript"
    return "torch.export" if "archive_format" in members else "other"


def _loaded(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"no such weights file: {path}.{near_file(path)}")
    if (kind := kind_of_file(path)) != "other":
        raise UsageError(f"{path} is a whole network ({kind}), not weights: load it by itself, sw.load({str(path)!r}).")
    try:
        if path.suffix == ".safetensors":
            return import_extra("safetensors.torch", "timm", "a .safetensors file").load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except MissingExtraError:
        raise
    except Exception as error:  # torch raises many types on damaged or hostile files; the cause is kept and named
        raise UsageError(_unsafe(path, error)) from error


def _unsafe(path: Path, error: Exception) -> str:
    code = re.search(r"GLOBAL (\S+) was not", str(error))
    if code is None:
        return (
            f"{path} is not a weights file that can be loaded safely ({type(error).__name__}: "
            f"{first_line(error)}). Files that need code to run are refused: save "
            "model.state_dict() and load that."
        )
    return (
        f"{path} cannot be loaded safely: it holds {code[1]}, which needs code to run, and that is refused. Best save "
        "model.state_dict() alone; or, where you trust this file: torch.save(torch.load(path, weights_only=False)"
        "['state_dict'], 'weights.pth')."
    )


def _tables(loaded: Any, part: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping that holds tensors by name: the whole file, and what lies under one of the usual names."""
    if not isinstance(loaded, Mapping):
        return
    table = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if table:
        yield part, table
    for name in PARTS:
        if name in loaded and part.count(".") < 2:
            yield from _tables(loaded[name], f"{part}.{name}" if part else name)


def fill(module: nn.Module, checkpoint: Checkpoint) -> str:
    """Every entry into its place; returns in words where in the file they were.

    UsageError where names or shapes do not all fit, where several networks do, or for values that are not finite.
    """
    fits = _fits(checkpoint, module.state_dict())
    whole = [fit for fit in fits if fit.whole]
    if not whole:
        raise UsageError(misfit(checkpoint, min(fits, key=lambda fit: len(fit.missing) + len(fit.misshapen))))
    chosen = whole[0]
    rivals = [fit.prefix for fit in whole if fit.part == chosen.part]
    if len(rivals) > 1 and "" not in rivals:
        raise UsageError(
            f"{checkpoint.path} holds {len(rivals)} networks that fit, under {rivals}: save the one that is meant, "
            "{name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}."
        )
    entries = checkpoint.parts[chosen.part]
    own = {name: entries[chosen.prefix + name] for name in module.state_dict() if chosen.prefix + name in entries}
    check_finite(own, checkpoint.path)
    module.load_state_dict(own, strict=False)
    return in_words(checkpoint, chosen, whole)


def check_finite(entries: Entries, path: Path) -> None:
    """UsageError for weights that are not finite."""
    broken = [
        name for name, tensor in entries.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if broken:
        raise UsageError(f"{path} holds values that are not finite (NaN or infinity) in {broken[:3]}.")


def _fits(checkpoint: Checkpoint, own: Mapping[str, Any]) -> list[Fit]:
    """Every part under every prefix that is worth a look; no prefix comes first."""
    wanted = {name: value.shape for name, value in own.items() if isinstance(value, Tensor)}
    fits = []
    for part, entries in checkpoint.parts.items():
        for prefix in prefixes(entries, wanted):
            found = {name.removeprefix(prefix): tensor for name, tensor in entries.items() if name.startswith(prefix)}
            missing = [name for name in wanted if name not in found and not name.endswith(NOT_READ)]
            unexpected = [name for name in found if name not in wanted]
            misshapen = [
                f"{name} is {tuple(found[name].shape)}, expected {tuple(shape)}"
                for name, shape in wanted.items()
                if name in found and found[name].shape != shape
            ]
            fits.append(Fit(part, prefix, missing, unexpected, misshapen))
    return fits


def prefixes(entries: Iterable[str], wanted: Collection[str]) -> list[str]:
    """Nothing, and what stands before the network's own names in the file: "module.", "model.", "model._orig_mod.", ..."""
    found: Counter[str] = Counter()
    for entry in entries:
        dots = [i + 1 for i, character in enumerate(entry) if character == "."]
        found.update(entry[:dot] for dot in dots if entry[dot:] in wanted)
    likely = [prefix for prefix, count in found.most_common(8) if 2 * count >= len(wanted)]
    return ["", *likely]


def misfit(checkpoint: Checkpoint, fit: Fit) -> str:
    """What is said where a file does not fit."""
    where = "" if not fit.prefix else f" (names without their prefix {fit.prefix!r})"
    return (
        f"{checkpoint.path} does not fit this architecture{where}: {len(fit.missing)} entries missing {fit.missing[:3]}, "
        f"{len(fit.unexpected)} unexpected {fit.unexpected[:3]}, {len(fit.misshapen)} of the wrong shape "
        f"{fit.misshapen[:3]}."
    )


def in_words(checkpoint: Checkpoint, fit: Fit, whole: list[Fit]) -> str:
    """Where in a file the weights were, and what of it was left out."""
    words = [str(checkpoint.path)]
    if fit.part:
        words.append(f"its part {fit.part!r}")
    if fit.prefix:
        words.append(f"names without their prefix {fit.prefix!r}")
    beside = [name for name in checkpoint.parts[fit.part] if not name.startswith(fit.prefix)]
    if beside:
        words.append(f"left out: {len(beside)} entries without it {beside[:3]}")
    others = list(dict.fromkeys(other.part for other in whole if other.part != fit.part))
    if others:
        words.append(f"not taken, but fits as well: {', '.join(map(repr, others))}")
    return ", ".join(words)


def build_and_fill(
    build: Callable[[int | None], nn.Module], default: int, weights: str | Path, unused: tuple[str, ...] = ()
) -> tuple[nn.Module, int, str]:
    """The network that `build(classes)` makes with a file's weights in it, its classes, and where in the file they were.

    build(None) has the architecture's `default` number of classes; a file with another number brings its own. weights
    "random": as it is built. unused: modules that only training has; the file may hold them.
    """
    module = build(None)
    if str(weights) == "random":
        return module, default, "random"
    checkpoint = _without(read_checkpoint(Path(weights)), unused)
    if not any(fit.whole for fit in _fits(checkpoint, module.state_dict())):
        classes = _classes(checkpoint, module.state_dict(), build(default + 1).state_dict(), default)
        if classes is not None:
            module, default = build(classes), classes
    return module, default, fill(module, checkpoint)


def _without(checkpoint: Checkpoint, unused: tuple[str, ...]) -> Checkpoint:
    parts = {
        part: {
            name: tensor for name, tensor in entries.items() if not any(f".{stem}." in f".{name}" for stem in unused)
        }
        for part, entries in checkpoint.parts.items()
    }
    return Checkpoint(checkpoint.path, parts)


def _classes(checkpoint: Checkpoint, own: Entries, larger: Entries, default: int) -> int | None:
    """For how many classes a file's classifier is made: the entries that grow with a class more tell it.

    own, larger: the network's entries for `default` classes and for one more. None where the file does not say one number.
    """
    grows = {name: len(larger[name]) - len(own[name]) for name in own if own[name].shape != larger[name].shape}
    for entries in checkpoint.parts.values():
        for prefix in prefixes(entries, own):
            told = set()
            for name, each in grows.items():
                if prefix + name in entries and each > 0:
                    more, rest = divmod(len(entries[prefix + name]) - len(own[name]), each)
                    told.add(default + more if not rest else None)
            if len(told) == 1 and (number := told.pop()) is not None and number not in (0, default):
                return number
    return None
