"""The labelled images that are audited, from whatever holds them; no image is decoded before it is asked for."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from seewhy.data.images import file_trouble, folder_images
from seewhy.data.kinds import KINDS, SCORE_COLUMNS, Kind, as_kind, infer_kind, plain
from seewhy.data.layouts import split_folder, sub_folders, table_of
from seewhy.data.tables import OF_THE_CLASS, OF_THE_FILE, OF_THE_NAME, Table, find_column, guess_column
from seewhy.errors import ImageError, SeewhyError, UsageError, first_line, known_name

EXPECTED = (
    "a data set is a folder with a sub-folder per class, a table (CSV, Parquet) of paths and labels, a Hugging Face data set "
    "on disk, or a Dataset or list of (image, label[, {group, ...}])"
)
Picture = Path | Image.Image | Tensor
Skipped = dict[str, str]


@dataclass(frozen=True)
class Sample:
    """One image and what is known of it; `source` is the image, its path, or a function that gives one of them."""

    name: str  # the path below the data set's root, or "item 3"
    label: Any  # int, str, float or tuple of the first two, once the data set is read
    source: Picture | Callable[[], Any] = field(compare=False)
    group: str | None = None  # what it shares with others: a patient, a session
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class DataSet:
    """Images with their labels; what could not be used is listed with its reason."""

    samples: tuple[Sample, ...]
    kind: Kind
    root: Path | None
    skipped: tuple[Skipped, ...] = ()  # {path, reason} each
    classes: tuple[str, ...] = ()  # the names of labels that are indices, where the data set knows them

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"DataSet({len(self)} images, kind={self.kind!r}, root={self.root}, {len(self.skipped)} skipped)"


def read_dataset(
    source: Any,
    *,
    label: str | None = None,
    path: str | None = None,
    group: str | None = None,
    metadata: Sequence[str] | None = None,
    kind: Kind | None = None,
    root: str | Path | None = None,
    split: str | None = None,
) -> DataSet:
    """Labelled images from a folder with a sub-folder per class, a CSV or Parquet table, a Hugging Face folder or a Dataset.

    label, path, group: columns of a table (default: the first known name, e.g. label, file, group); metadata: more columns
    (default: all others of text and numbers). Paths are relative to the table's folder, or to `root`; an image outside of
    it is skipped. split: of a data set that holds several, e.g. "test". A list of (image, label[, {group, ...}]) is read
    as a Dataset: once, for its labels (torchvision's own tell theirs without). A DataSet stays what it is.

    kind: "class", "labels" (several an image: a;b, a|b or a JSON list) or "score"; KIND_OF_TASK has the one of a model's
    task. Default: what `infer_kind` says of a table's labels; sub-folders are classes. Listed as skipped: a missing or empty
    file, no label, a score that is not finite, an image named twice. UsageError for what is no data set, an unknown column,
    an image with two different labels, and where nothing is left.
    """
    if kind is not None:
        known_name("kind of label", kind, KINDS)
    columns = {"label": label, "path": path, "group": group, "metadata": metadata, "root": root}
    if isinstance(source, str | Path):
        folder = split_folder(Path(source), split)
        table = table_of(folder, split if folder == Path(source) else None)
        if table is not None:
            return _from_table(table, columns, kind, folders=folder.is_dir())
        _only_for_tables(columns, folder)
        return _from_folder(folder, kind)
    _only_for_tables({**columns, "split": split}, f"a {type(source).__name__}")
    if isinstance(source, DataSet):
        if kind in (None, source.kind):
            return source
        return _settled(source.samples, source.skipped, kind, source.root, "the data set", source.classes)
    return _from_items(source, kind)


def open_image(sample: Sample) -> Picture:
    """The image of a sample, or the path of its file; ImageError, with its name, where it cannot be had."""
    try:
        found = sample.source() if callable(sample.source) else sample.source
        if isinstance(found, np.ndarray):
            found = Image.fromarray(found)
    except SeewhyError:
        raise
    except Exception as error:  # a user's Dataset can raise anything; one broken image is a listed skip
        raise ImageError(f"{sample.name}: {type(error).__name__}: {first_line(error)}.") from error
    if isinstance(found, str):
        return Path(found)
    if not isinstance(found, Path | Image.Image | Tensor):
        raise ImageError(
            f"{sample.name}: a {type(found).__name__}; expected a path, a PIL image, a tensor or 8-bit array."
        )
    return found


def _only_for_tables(given: Mapping[str, Any], source: object) -> None:
    named = [name for name, value in given.items() if value is not None]
    if named:
        raise UsageError(f"{named[0]}= is about a table of paths and labels; {source} is none.")


def _from_folder(folder: Path, kind: Kind | None) -> DataSet:
    """A sub-folder per class: the name of the first folder below is the label."""
    try:
        images = folder_images(folder)
    except ImageError as error:
        raise UsageError(f"{error} Expected: {EXPECTED}.") from None
    strays = [image.name for image in images if image.parent == folder]
    if strays:
        raise UsageError(
            f"{folder}: {len(strays)} images lie in no sub-folder of a class, e.g. {strays[0]}. Move them into one, or give "
            "a CSV table of file,label."
        )
    names = [image.relative_to(folder) for image in images]
    empty = sorted({*sub_folders(folder)} - {name.parts[0] for name in names})
    skipped = [{"path": _text(name), "reason": "a class folder without an image"} for name in empty]
    samples = []
    for name, image in zip(names, images, strict=True):
        if reason := file_trouble(image):
            skipped.append({"path": _text(str(name)), "reason": reason})
        else:
            samples.append(Sample(_text(str(name)), _text(name.parts[0]), image))
    return _settled(samples, skipped, kind or "class", folder, str(folder))


def _from_table(table: Table, given: Mapping[str, Any], kind: Kind | None, *, folders: bool) -> DataSet:
    """A row per image: its file is named, or it is stored in the table itself.

    folders: where no column tells the label (metadata.csv of a folder of images), the first folder of the file does.
    """
    folder = table.path if table.path.is_dir() else table.path.parent
    root = os.path.abspath(folder if given["root"] is None else given["root"])
    image, label, group, more = _columns(table, given, kind, folders=folders)
    files = [f"item {i}" for i in range(table.rows)] if image in table.images else list(map(plain, table.column(image)))
    labels = [_first_folder(file) for file in files] if label is None else table.column(label)
    groups = [None] * table.rows if group is None else list(map(plain, table.column(group)))
    facts = {
        name: [None if _missing(value) else str(value) for value in map(plain, table.column(name))] for name in more
    }
    skipped = list(table.skipped)
    samples = []
    for i, (file, one) in enumerate(zip(files, labels, strict=True)):
        own = {name: value for name, values in facts.items() if (value := values[i]) is not None}
        shared = None if _missing(groups[i]) else str(groups[i])
        if image in table.images:
            samples.append(Sample(str(file), one, table.images[image](i), shared, own))
            continue
        full = "" if file is None else os.path.abspath(os.path.join(root, str(file)))
        if reason := _trouble(root, full):
            skipped.append({"path": _text(str(file)) if full else f"row {i + 1}", "reason": reason})
        else:
            samples.append(Sample(_text(full[len(root) :].lstrip(os.sep)), one, Path(full), shared, own))
    names = () if label is None else table.classes.get(label, ())
    return _settled(samples, skipped, kind, Path(root), str(table.path), names, label or "")


def _columns(
    table: Table, given: Mapping[str, Any], kind: Kind | None, *, folders: bool
) -> tuple[str, str | None, str | None, list[str]]:
    """The columns of the image, of its label (None: its folder tells it), of its group, and all others that are wanted."""
    named = [name for name in table.images if name.lower() in OF_THE_FILE]
    image = find_column(table, given["path"], (*named, *OF_THE_FILE, *table.images), "path")
    known = (*SCORE_COLUMNS, *OF_THE_CLASS) if kind == "score" else (*OF_THE_CLASS, *SCORE_COLUMNS)
    known = tuple(name for name in (*known, *OF_THE_NAME) if guess_column(table, [name]) != image)
    nothing_said = given["label"] is None and guess_column(table, known) is None
    label = None if folders and nothing_said else find_column(table, given["label"], known, "label")
    said = given["group"] is not None
    group = find_column(table, given["group"], (), "group") if said else guess_column(table, ["group"])
    if given["metadata"] is None:
        more = [name for name in table.names if name in table.scalar and name not in (image, label, group)]
    elif isinstance(given["metadata"], str):
        raise UsageError(f"metadata is a list of columns, e.g. [{given['metadata']!r}]; got {given['metadata']!r}.")
    else:
        more = [find_column(table, name, (), "metadata") for name in given["metadata"]]
    return image, label, group, more


def _first_folder(file: Any) -> str | None:
    parts = Path(str(file)).parts
    return parts[0] if len(parts) > 1 else None


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _trouble(root: str, full: str) -> str:
    """Why no image can be in this file of a data set's folder; "" where nothing speaks against it."""
    if not full:
        return "no path"
    if not full.startswith(root.rstrip(os.sep) + os.sep):
        return f"lies outside of the data set's folder {root} (root= names another one)"
    return file_trouble(full)


def _from_items(items: Any, kind: Kind | None) -> DataSet:
    """A Dataset or sequence of (image, label[, {group, ...}]); each item is asked for once, for its label."""
    if isinstance(items, str | bytes | Mapping) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise UsageError(f"a {type(items).__name__} is no data set: {EXPECTED}.")
    in_memory = isinstance(items, list | tuple)
    told = None if in_memory else _told_labels(items)
    samples, skipped = [], []
    for i in range(len(items)):
        name, later = f"item {i}", partial(_item_image, items, i)
        if told is not None:
            samples.append(Sample(name, told[i], later))
            continue
        try:
            image, label, known = _parts(items[i])
        except Exception as error:  # a user's Dataset can raise anything; one broken item is a listed skip
            said = str(error) if isinstance(error, SeewhyError) else f"{type(error).__name__}: {first_line(error)}"
            skipped.append({"path": name, "reason": said})
            continue
        if isinstance(image, str | Path):
            name, image = _text(str(image)), Path(image)
            if reason := file_trouble(image):
                skipped.append({"path": name, "reason": reason})
                continue
        kept = image if isinstance(image, Path) or (in_memory and isinstance(image, Image.Image | Tensor)) else later
        group = plain(known.pop("group", None))
        facts = {str(key): str(value) for key, raw in known.items() if not _missing(value := plain(raw))}
        samples.append(Sample(name, label, kept, None if _missing(group) else str(group), facts))
    return _settled(samples, skipped, kind, None, f"the {type(items).__name__}", _class_names(items))


def _parts(item: Any) -> tuple[Any, Any, dict[Any, Any]]:
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        raise UsageError(f"expected (image, label[, {{group, ...}}]); got {type(item).__name__}")
    known = dict(item[2]) if len(item) == 3 else {}
    return item[0], item[1], known


def _class_names(items: Any) -> tuple[str, ...]:
    """The class names that torchvision's data sets, and whoever follows them, tell in the order of their indices."""
    if isinstance(items, Subset):
        return _class_names(items.dataset)
    names = getattr(items, "classes", None)
    named = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if named and names else ()


def _item_image(items: Any, i: int) -> Any:
    return items[i][0]


def _told_labels(items: Any) -> Sequence[Any] | None:
    """The labels of one of torchvision's own data sets (or a Subset of it), which tells them without decoding an image."""
    if isinstance(items, Subset):
        told = _told_labels(items.dataset)
        return None if told is None else [told[i] for i in items.indices]
    reads = getattr(type(items), "__getitem__", None)
    own = str(getattr(reads, "__module__", "")).startswith("torchvision.datasets.")
    targets = getattr(items, "targets", None)
    if not own or getattr(items, "target_transform", None) is not None:
        return None  # what __getitem__ gives may be another label
    if not isinstance(targets, list | Tensor | np.ndarray) or len(targets) != len(items):
        return None
    return targets


def _settled(
    samples: Iterable[Sample],
    skipped: Sequence[Skipped],
    kind: Kind | None,
    root: Path | None,
    source: str,
    classes: tuple[str, ...] = (),
    column: str = "",
) -> DataSet:
    """The samples with their labels read as one kind; what has none, or is there twice, is skipped with its reason."""
    given = [(sample, plain(sample.label)) for sample in samples]
    if not given and not skipped:
        raise UsageError(f"{source}: a table without a row, or an empty list. Expected: {EXPECTED}.")
    if kind is None:
        inferred = infer_kind((label for _, label in given if label is not None), column)
        kind = "class" if classes and inferred == "score" else inferred  # -1 beside class names is no score
    found: dict[str, Sample] = {}
    left_out = list(skipped)
    contradictions = {}
    for sample, label in given:
        try:
            read = as_kind(label, kind)
        except ValueError as error:
            left_out.append({"path": sample.name, "reason": str(error)})
            continue
        first = found.setdefault(sample.name, sample)
        if first is sample:
            found[sample.name] = replace(sample, label=read)
        elif first.label == read:
            left_out.append({"path": sample.name, "reason": f"named more than once, always as {read!r}"})
        else:
            contradictions[sample.name] = f"{sample.name} is {first.label!r} and {read!r}"
    if contradictions:
        raise UsageError(
            f"{source}: {len(contradictions)} images have two different labels, e.g. {next(iter(contradictions.values()))}. "
            "Keep one; several labels of one image go into one cell: a;b."
        )
    if not found:
        first_one = left_out[0]
        raise UsageError(
            f"{source}: none of {len(left_out)} images can be used; the first, {first_one['path']}: {first_one['reason']}."
        )
    return DataSet(tuple(found.values()), kind, root, tuple(left_out), classes)


def _text(name: str) -> str:
    r"""A file's name as text that can be written anywhere; a byte of it that is no UTF-8 as \udcff."""
    return name.replace(os.sep, "/").encode("utf-8", "backslashreplace").decode("utf-8")
