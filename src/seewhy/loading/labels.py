"""Class names: from a file, and ImageNet's."""

import csv
import json
from pathlib import Path
from typing import Any

from seewhy.errors import UsageError
from seewhy.loading.extras import import_extra


def read_labels(path: Path) -> list[str]:
    """Class names in order, from a file: text with one a line, JSON, or CSV with the columns index and name.

    JSON: a list, or an object from index to name ({"0": "cat"}; of a list as name, such as ["n02123045", "tabby"], the
    last). UsageError for a file that cannot be read, holds no name, or skips or repeats an index.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels file {path} cannot be read ({error}).") from error
    if path.suffix.lower() == ".json":
        names = _from_json(text, path)
    elif path.suffix.lower() == ".csv":
        names = _from_csv(text, path)
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise UsageError(f"labels file {path} holds no class name.")
    return names


def _from_json(text: str, path: Path) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError as error:
        raise UsageError(f"labels file {path} is not JSON ({error}).") from error
    if isinstance(names, dict):
        return _in_order(
            [(index, name[-1] if isinstance(name, list) and name else name) for index, name in names.items()], path
        )
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f'labels file {path} must hold a JSON list of class names, or an object {{"0": "name", ...}}.')
    return names


def _from_csv(text: str, path: Path) -> list[str]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    columns = (header.index("index"), header.index("name")) if {"index", "name"} <= {*header} else (0, 1)
    body = rows[1:] if header and not header[columns[0]].isdecimal() else rows
    if any(len(row) <= max(columns) for row in body):
        raise UsageError(f"labels file {path} must have the columns index and name; its first row is {rows[0]}.")
    return _in_order([(row[columns[0]], row[columns[1]].strip()) for row in body], path)


def _in_order(pairs: list[tuple[str, Any]], path: Path) -> list[str]:
    """The names by their index; every index from 0 on must be there once."""
    wrong = [(index, name) for index, name in pairs if not index.strip().isdecimal() or not isinstance(name, str)]
    if wrong:
        raise UsageError(f"labels file {path} must give a name to every index (0, 1, ...); it holds {wrong[0]!r}.")
    indices = [int(index) for index, _ in pairs]
    names = dict(zip(indices, (name for _, name in pairs), strict=True))
    gaps = [i for i in range(len(names)) if i not in names]
    if gaps or len(names) < len(pairs):
        repeated = next((i for i in indices if indices.count(i) > 1), None)
        what = f"has no index {gaps[0]}" if gaps else f"has index {repeated} more than once"
        raise UsageError(f"labels file {path} {what}: {len(pairs)} names need the indices 0 to {len(pairs) - 1}.")
    return [names[i] for i in range(len(names))]


def imagenet_labels() -> list[str]:
    """The 1,000 ImageNet class names in their usual order, from torchvision's weight descriptions (no download)."""
    models = import_extra("torchvision.models", "torchvision", "the ImageNet class names")
    return list(models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
