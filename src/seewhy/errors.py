"""What seewhy says when it cannot go on: what was given, what was expected, what exists, one fix."""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class SeewhyError(Exception):
    """Base of every error that seewhy raises on purpose; its message is complete and fit for a user."""


class UsageError(SeewhyError):
    """An argument cannot be used: unknown name, value out of range, wrong count or shape."""


class ImageError(SeewhyError):
    """One image cannot be read; the others can go on, and this one is listed as skipped."""


class RefusalError(SeewhyError):
    """No honest map exists for this question; the message says why, with the numbers, and what to do instead."""


class MissingExtraError(SeewhyError):
    """An optional package is needed; the message carries the exact install line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed: "
            f"run  pip install 'seewhy[{extra}]'  (from a clone:  pip install '.[{extra}]')"
        )


def whole_number(name: str, value: object, *, at_least: int) -> None:
    """UsageError unless value is a whole number (no bool, no float, no text) of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise UsageError(f"{name} is a whole number of at least {at_least}; got {value!r}.")


def real_number(name: str, value: object, *, at_least: float, above: bool = False, at_most: float = math.inf) -> None:
    """UsageError unless value is a finite number >= at_least (> where `above`) and <= at_most."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or number < at_least or (above and number == at_least) or number > at_most:
        most = "" if at_most == math.inf else f" and at most {at_most:g}"
        raise UsageError(f"{name} is a number {'above' if above else 'of at least'} {at_least:g}{most}; got {value!r}.")


def known_name(name: str, value: object, known: Iterable[str]) -> None:
    """UsageError, with near names, unless value is one of the known ones."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise UsageError(f"unknown {name} {value!r}: {near_names(str(value), names)}")


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line of at most 200 characters; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")


def near_file(path: Path) -> str:
    """The tail of a 'no such file' message: near names in its folder, or that there is no such folder."""
    if not path.parent.is_dir():
        return f" The folder {path.parent} does not exist either."
    hint = near_names(path.name, [p.name for p in path.parent.iterdir()])
    return f" {hint[0].upper()}{hint[1:]}" if hint.startswith("did you mean") else ""


def near_names(given: str, known: Iterable[str]) -> str:
    """The tail of an 'unknown name' message: near names if there are any, else the (shortened) list of what exists."""
    names = [str(name) for name in known]
    folded = {name.lower(): name for name in names}
    near = [folded[match] for match in get_close_matches(given.lower(), folded, n=3, cutoff=0.6)]
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    if not names:
        return "there is none to choose from."
    shown = ", ".join(names[:12])
    return f"known: {shown}{f' and {len(names) - 12} more' if len(names) > 12 else ''}."
