"""What a label says: one class, several labels, or a score; from text, numbers, lists and tensors."""

import ast
import json
import math
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

Kind = Literal["class", "labels", "score"]
KINDS: tuple[str, ...] = get_args(Kind)
KIND_OF_TASK: dict[str, Kind] = {
    "multiclass": "class",
    "binary": "class",
    "multilabel": "labels",
    "regression": "score",
}
MOST_CLASSES = 1000  # of a column of whole numbers, as in ImageNet; more distinct ones are scores
NOTHING = ("", "nan", "NaN")  # how tables write that there is no value
SCORE_COLUMNS = ("score", "quality", "rating", "value")
Label = int | str | float | tuple[int | str, ...]
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|[+-]?inf", re.IGNORECASE)
_INDEX = re.compile(r"(0|[1-9][0-9]*)(\.0+)?")  # 3.0: how a table with gaps writes the class index 3
_SEPARATORS = re.compile("[;|]")


def plain(value: Any) -> Any:
    """A label without its wrapping: text stripped, one number of an array or tensor as such, a 0/1 vector as its indices.

    None where nothing is said: an empty text, nan, None.
    """
    if isinstance(value, str):
        return None if value.strip() in NOTHING else value.strip()
    if isinstance(value, Tensor):
        value = np.asarray(value.detach().cpu().tolist())
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
        return value.item()
    if isinstance(value, np.ndarray):
        zeros_and_ones = value.ndim == 1 and bool(((value == 0) | (value == 1)).all())
        return tuple(int(k) for k in value.nonzero()[0]) if zeros_and_ones else tuple(value.tolist())
    if isinstance(value, set | frozenset):
        return tuple(sorted(value, key=str))
    return tuple(value) if isinstance(value, list) else value


def infer_kind(labels: Iterable[Any], column: str = "") -> Kind:
    """The kind of plain labels. Where one is a list, or a text with ; or |: "labels".

    Where all are numbers, and one is not whole or below 0, or more than 1,000 differ, or their column is called score,
    quality, rating or value: "score". Else "class".
    """
    numbers: set[float] = set()
    words = False
    for label in labels:
        if isinstance(label, tuple) or (isinstance(label, str) and _several(label) is not None):
            return "labels"
        number = None if isinstance(label, bool) else _number(label)
        if number is None:
            words = True
        elif not math.isnan(number):
            numbers.add(number)
    whole = all(number >= 0 and number.is_integer() for number in numbers)
    indices = whole and len(numbers) <= MOST_CLASSES and column.lower() not in SCORE_COLUMNS
    return "class" if words or not numbers or indices else "score"


def as_kind(label: Any, kind: Kind) -> Label:
    """A plain label as a class (int or str), several (tuple of these) or a score (float); ValueError with the reason."""
    if label is None:
        raise ValueError("no label")
    if kind == "score":
        return _score(label)
    if kind == "class":
        if isinstance(label, tuple):
            if len(label) != 1:
                raise ValueError(f"{len(label)} labels where one class is expected")
            label = plain(label[0])
        return _class(label)
    several = _several(label) if isinstance(label, str) else None
    parts = several if several is not None else label if isinstance(label, tuple) else (label,)
    found = [_class(part) for part in map(plain, parts) if part is not None]
    if parts and not found:
        raise ValueError("no label")
    return tuple(dict.fromkeys(found))


def _class(value: Any) -> int | str:
    if isinstance(value, str):
        return int(value.partition(".")[0]) if _INDEX.fullmatch(value) else value
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value):
        return int(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("no label")
    raise ValueError(f"{reprlib.repr(value)} is no class")


def _score(value: Any) -> float:
    number = None if isinstance(value, bool) else _number(value)
    if number is None:
        raise ValueError(f"{reprlib.repr(value)} is no number")
    if not math.isfinite(number):
        raise ValueError(f"the score is {number}")
    return number


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # a whole number that no float holds
        return math.inf


def _several(text: str) -> Sequence[Any] | None:
    """The parts of a text that lists labels: a list of JSON (or of Python, as pandas writes it), or a;b, or a|b."""
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
    return _SEPARATORS.split(text) if _SEPARATORS.search(text) else None
