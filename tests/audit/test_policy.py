"""The policy file: what it may say, and what is said where it says something else."""

import hashlib
import tomllib
from dataclasses import replace
from datetime import date

import pytest
from fabricated import TODAY, accept

from seewhy.audit.policy import KINDS, SHIPPED, read_policy, refuse_expired, write_policy
from seewhy.errors import UsageError


def test_the_shipped_policy_blocks_on_confirmed_findings_of_every_kind_and_sets_no_level(policy):
    shipped = policy()
    assert shipped.statuses == ("confirmed",)
    assert shipped.kinds == KINDS
    assert set(shipped.min_effect.values()) == {0.0}
    assert (shipped.must_be_tested, shipped.fail, shipped.levels, shipped.images, shipped.accept) == ((), (), (), 1, ())


def test_a_key_that_is_left_out_means_what_the_shipped_file_says(policy):
    shipped, empty = policy(), policy("")
    assert replace(empty, path=shipped.path, text=shipped.text) == shipped


def test_the_examples_in_the_shipped_file_are_ones_that_it_takes(policy):
    text = SHIPPED.read_text("utf-8")
    examples = ("[checks.levels.localization]", "energy_inside", "[[accept]]", "id", "reason", "name", "until")
    for line in examples:
        assert text.count(f"\n# {line}") == 1
        text = text.replace(f"\n# {line}", f"\n{line}")
    found = policy(text)
    assert str(found.levels[0]) == "at least 0.5"
    assert found.accept[0].until == date(2030, 1, 31)


def test_the_policy_is_copied_as_it_was_read_and_named_by_its_hash(policy, tmp_path):
    text = "# mine: é\r\n[images]\r\nat_least = 20\r\n"
    (tmp_path / "own.toml").write_bytes(text.encode())
    found = read_policy(tmp_path / "own.toml")
    (tmp_path / "run").mkdir()
    copied = write_policy(found, tmp_path / "run")
    assert copied.read_bytes() == text.encode()
    assert found.to_dict() == {
        "path": str(tmp_path / "own.toml"),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    assert policy().to_dict()["path"] is None
    assert policy().sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf[images]\nat_least = 3\n")
    assert read_policy(tmp_path / "bom.toml").images == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[finding]", "did you mean 'findings'"),
        ("[findings]\nstatus = []", "did you mean 'statuses'"),
        ('[findings]\nstatuses = ["confirm"]', "did you mean 'confirmed'"),
        ('[findings]\nstatuses = ["refuted"]', "unknown name"),
        ('[findings]\nstatuses = "confirmed"', "list of names"),
        ('[findings]\nkinds = ["localpattern"]', "did you mean 'local_pattern'"),
        ("[findings]\nkinds = [1]", "unknown name in [findings] kinds 1"),
        ('[findings]\nmust_be_tested = ["backgrund"]', "did you mean 'background'"),
        ("[findings]\nmin_effect = 0.1", "[findings.min_effect] is a table"),
        ("[findings]\nmin_effect = { probabilty = 0.1 }", "did you mean 'probability'"),
        ("[findings]\nmin_effect = { probability = -0.1 }", "at least 0"),
        ("[findings]\nmin_effect = { probability = true }", "is a number"),
        ("[findings]\nmin_effect = { score = nan }", "is a number"),
        ("[findings]\nmin_effect = { score = inf }", "is a number"),
        ('[findings]\nmin_effect = { score = "2" }', "got '2'"),
        ("findings = 3", "[findings] is a table"),
        ('[checks]\nfail = ["localisation"]', "did you mean 'localization'"),
        ("[checks.levels.localisation]\nenergy_inside = { at_least = 0.5 }", "did you mean 'localization'"),
        ("[checks.levels.localization]\nenergy_inside = 0.5", "is a table"),
        ("[checks.levels.localization]\nenergy_inside = {}", "at_least or at_most"),
        ("[checks.levels.localization]\nenergy_inside = { atleast = 0.5 }", "did you mean 'at_least'"),
        ("[checks.levels.localization]\nenergy_inside = { at_most = nan }", "is a number"),
        ("[images]\nat_least = 0", "at least 1"),
        ("[images]\nat_least = 1.5", "whole number"),
        ("[images]\nat_least = true", "whole number"),
        ("schema = 2", "schema 1"),
        ("[accept]\nid = 'a'", "two brackets"),
        ("[[accept]]\nid = 'a'\nreason = 'b'\nname = 'c'", "until as a date"),
        (accept(until='"2027-01-31"'), "without quotes"),
        (accept(until="2027-01-31T10:00:00"), "until as a date"),
        ("[[accept]]\nreason = 'b'\nname = 'c'\nuntil = 2027-01-31", "needs id"),
        ("[[accept]]\nid = 'a'\nreason = ' '\nname = 'c'\nuntil = 2027-01-31", "needs reason"),
        (accept() + "who = 'me'", "unknown key 'who'"),
        (accept() + accept(), "accepted 2 times"),
        ("[findings", "is no TOML file"),
    ],
)
def test_what_cannot_be_meant_is_said_with_the_file_and_near_names(policy, text, said):
    with pytest.raises(UsageError) as error:
        policy(text)
    assert said in str(error.value)
    assert "seewhy.toml" in str(error.value)


def test_a_file_that_is_not_there_or_no_text_is_said_so(tmp_path):
    (tmp_path / "seewhy.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"no such policy file\. Did you mean 'seewhy.toml'"):
        read_policy(tmp_path / "seewhi.toml")
    with pytest.raises(UsageError, match="no TOML"):
        read_policy(tmp_path / "seewhy.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_policy(tmp_path)


def test_an_acceptance_holds_until_the_end_of_its_last_day(policy):
    refuse_expired(policy(accept(until="2026-11-23")), TODAY)
    with pytest.raises(
        UsageError, match=r"'a{16}' by A\. Person ended on 2026-11-22 \(known ruler\); today is 2026-11-23"
    ):
        refuse_expired(policy(accept(until="2026-11-22")), TODAY)


def test_the_shipped_file_is_toml_with_a_comment_for_every_key():
    text = SHIPPED.read_text("utf-8")
    lines = text.splitlines()
    keys = [line for line in lines if line and line[0] not in "#["]
    assert len(keys) == sum(len(v) if isinstance(v, dict) else 1 for v in tomllib.loads(text).values())
    assert sum(line.startswith("#") for line in lines) > len(keys)
