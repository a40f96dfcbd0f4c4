"""The policy: what stops a release, read from a file that the user owns (seewhy.toml)."""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import seewhy.checks  # noqa: F401  # fills the registry
from seewhy.audit.candidate import KINDS
from seewhy.errors import UsageError, known_name, near_file, near_names, real_number, whole_number
from seewhy.registry import CHECKLIST, CHECKS
from seewhy.runfolder import write_file

SCHEMA = 1
FILE = "seewhy.toml"
SHIPPED = Path(__file__).with_name(FILE)
STATUSES = ("confirmed", "untested")  # that can block: what was refuted is none
UNITS = ("probability", "logit", "score")


@dataclass(frozen=True)
class Acceptance:
    """A finding that somebody answers for, until the end of a day."""

    id: str
    reason: str
    name: str
    until: date

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return {"id": self.id, "reason": self.reason, "name": self.name, "until": self.until.isoformat()}


@dataclass(frozen=True)
class Level:
    """What a score of a check has to reach, or must not exceed."""

    check: str
    score: str
    at_least: float | None
    at_most: float | None

    def __str__(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


@dataclass(frozen=True)
class Policy:
    """Which findings, checks and levels block, and what is accepted."""

    path: str | None  # None: the one that seewhy ships
    text: str
    statuses: tuple[str, ...]
    kinds: tuple[str, ...]
    must_be_tested: tuple[str, ...]
    min_effect: Mapping[str, float]  # unit -> level; 0: none
    fail: tuple[str, ...]  # checks that block where their verdict is "fail"
    levels: tuple[Level, ...]
    images: int  # at least
    accept: tuple[Acceptance, ...]

    @property
    def sha256(self) -> str:
        """Of the file, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def to_dict(self) -> dict[str, str | None]:
        """How a report names it."""
        return {"path": self.path, "sha256": self.sha256}


def read_policy(path: str | Path | None = None) -> Policy:
    """The policy in a file, or the one that seewhy ships; UsageError for what cannot be meant, with near names."""
    file = SHIPPED if path is None else Path(path)
    try:
        text = file.read_bytes().decode("utf-8")
        found = tomllib.loads(text.removeprefix("\ufeff"))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such policy file.{near_file(file)}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # no UTF-8, no TOML
        raise UsageError(f"{file} is no TOML file ({error}).") from error
    try:
        return _policy(None if path is None else str(path), text, found)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


def write_policy(policy: Policy, folder: Path) -> Path:
    """Copy the policy, as it was read, into a run folder."""
    write_file(folder / FILE, policy.text.encode())
    return folder / FILE


def refuse_expired(policy: Policy, today: date) -> None:
    """UsageError, before any work, for an acceptance that has ended."""
    for one in policy.accept:
        if one.until < today:
            raise UsageError(
                f"the acceptance of finding {one.id!r} by {one.name} ended on {one.until} ({one.reason}); today is {today}. "
                "Remove it, or give it a new reason and end date."
            )


def _policy(path: str | None, text: str, found: dict[str, Any]) -> Policy:
    _known_keys("the file", found, ("schema", "findings", "checks", "images", "accept"))
    if found.get("schema", SCHEMA) != SCHEMA:
        raise UsageError(f"schema = {found['schema']!r}; this version of seewhy reads schema {SCHEMA}.")
    findings = _table("findings", found, ("statuses", "kinds", "must_be_tested", "min_effect"))
    checks = _table("checks", found, ("fail", "levels"))
    images = _table("images", found, ("at_least",)).get("at_least", 1)
    whole_number("[images] at_least", images, at_least=1)
    return Policy(
        path=path,
        text=text,
        statuses=_names("[findings] statuses", findings.get("statuses", ["confirmed"]), STATUSES),
        kinds=_names("[findings] kinds", findings.get("kinds", [*KINDS]), KINDS),
        must_be_tested=_names("[findings] must_be_tested", findings.get("must_be_tested", []), KINDS),
        min_effect=_min_effect(findings),
        fail=_names("[checks] fail", checks.get("fail", []), _check_names()),
        levels=_levels(checks),
        images=images,
        accept=_acceptances(found.get("accept", [])),
    )


def _known_keys(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"{where} has an unknown key {key!r}: {near_names(key, known)}")


def _table(name: str, of: Mapping[str, Any], known: Iterable[str] | None = None, prefix: str = "") -> dict[str, Any]:
    """A table of the file, {} where there is none; `known`: the keys that it may have, None: any."""
    found = of.get(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"[{prefix}{name}] is a table; got {found!r}.")
    if known is not None:
        _known_keys(f"[{prefix}{name}]", found, known)
    return found


def _names(where: str, given: Any, known: Iterable[str]) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise UsageError(f'{where} is a list of names, such as ["{next(iter(known))}"]; got {given!r}.')
    for name in given:
        known_name(f"name in {where}", name, known)
    return tuple(dict.fromkeys(given))


def _min_effect(findings: Mapping[str, Any]) -> dict[str, float]:
    given = _table("min_effect", findings, UNITS, "findings.")
    for unit, level in given.items():
        real_number(f"[findings] min_effect.{unit}", level, at_least=0)
    return {unit: float(given.get(unit, 0)) for unit in UNITS}


def _check_names() -> list[str]:
    return list(dict.fromkeys([*CHECKLIST, *CHECKS]))


def _levels(checks: Mapping[str, Any]) -> tuple[Level, ...]:
    given = _table("levels", checks, _check_names(), "checks.")
    found = []
    for check in given:
        scores = _table(check, given, None, "checks.levels.")
        for score in scores:
            bounds = _table(score, scores, ("at_least", "at_most"), f"checks.levels.{check}.")
            for name, bound in bounds.items():
                real_number(f"[checks.levels.{check}] {score}.{name}", bound, at_least=float("-inf"))
            if not bounds:
                raise UsageError(f"[checks.levels.{check}] {score} has no level: give at_least or at_most.")
            found.append(Level(check, score, bounds.get("at_least"), bounds.get("at_most")))
    return tuple(found)


def _acceptances(given: Any) -> tuple[Acceptance, ...]:
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise UsageError("acceptances are tables of their own: write [[accept]] above each, with two brackets.")
    found = [_acceptance(number, one) for number, one in enumerate(given, 1)]
    ids = [one.id for one in found]
    for one in ids:
        if ids.count(one) > 1:
            raise UsageError(f"finding {one!r} is accepted {ids.count(one)} times: keep one [[accept]] of it.")
    return tuple(found)


def _acceptance(number: int, given: Mapping[str, Any]) -> Acceptance:
    where = f"[[accept]] number {number}"
    _known_keys(where, given, ("id", "reason", "name", "until"))
    for key in ("id", "reason", "name"):
        if not isinstance(given.get(key), str) or not given[key].strip():
            raise UsageError(f"{where} needs {key} as a text; got {given.get(key)!r}. It has id, reason, name, until.")
    until = given.get("until")
    if not isinstance(until, date) or isinstance(until, datetime):
        raise UsageError(f"{where} needs until as a date without quotes, such as 2030-01-31; got {until!r}.")
    return Acceptance(given["id"].strip(), given["reason"].strip(), given["name"].strip(), until)
