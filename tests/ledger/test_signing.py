import json
import shutil
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from raw_sql import sql
from tampering import Tampered, make_ledger

from seewhy.errors import MissingExtraError, UsageError
from seewhy.ledger import erase, make_key, open_ledger, sign, verify
from seewhy.ledger.keys import VARIABLE, default_key

RECORDS = 6


@pytest.fixture(autouse=True)
def _no_keys_of_the_users_own(tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def key(tmp_path):
    return make_key(tmp_path / "keys" / "mine.pem")[0]


@pytest.fixture
def run(tmp_path):
    make_ledger(tmp_path / "run", RECORDS)
    return tmp_path / "run"


def more(run, n=2):
    with open_ledger(run) as ledger:
        ledger.append_all("skip", [(f"more {i} {ledger.keys('skip')}", {"path": "x"}) for i in range(n)])


def opened(run, tmp_path):
    return Tampered(run, tmp_path / "tampered")


# -- signing ---------------------------------------------------------------------------------------------------------------


def test_a_signed_ledger_verifies_and_says_whom_it_trusted(run, key):
    path = sign(run, key)
    assert path == run / "checkpoints" / f"{RECORDS}.json"
    more(run)
    found = verify(run, key=f"{key}.pub")
    (one,) = found.checkpoints
    assert (found.ok, one.file, one.problem, one.checkpoint.number) == (True, "checkpoints/6.json", None, RECORDS)
    assert [(k.public_key, k.origin) for k in found.keys] == [(one.checkpoint.public_key, f"given: {key}.pub")]
    assert one.key_origin == f"given: {key}.pub"
    for given in (key, one.checkpoint.public_key, one.checkpoint.public_key.upper()):
        assert verify(run, key=given).keys[0].public_key == one.checkpoint.public_key


def test_the_signature_is_what_the_docs_say(run, key):
    given = json.loads(sign(run, key).read_text())
    signature = bytes.fromhex(given.pop("signature"))
    text = "seewhy ledger checkpoint\n" + json.dumps(given, sort_keys=True, separators=(",", ":"))
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(given["public_key"])).verify(signature, text.encode())
    with open_ledger(run, read_only=True) as ledger:
        assert (given["number"], given["hash"]) == (RECORDS, ledger.read()[-1].hash)


def test_a_key_that_only_the_checkpoint_names_is_trusted_by_nobody(run, key):
    sign(run, key)
    found = verify(run)
    assert (found.ok, found.keys, found.checkpoints[0].key_origin) == (True, (), None)


def test_signing_again_gives_the_checkpoint_that_is_there(run, key, tmp_path):
    first = sign(run, key).read_bytes()
    assert sign(run, key, copy_to=tmp_path).read_bytes() == first == (tmp_path / "run-6.json").read_bytes()
    other = make_key(tmp_path / "other.pem")[0]
    with pytest.raises(UsageError, match=r"6\.json is there, signed with another key"):
        sign(run, other)
    more(run)
    assert sign(run, other).name == "8.json"
    found = verify(run, key=[f"{key}.pub", f"{other}.pub"])  # a key is changed now and then
    assert (found.ok, len(found.checkpoints), len(found.keys)) == (True, 2, 2)


def test_a_ledger_that_does_not_verify_is_not_signed(run, key, tmp_path):
    tampered = opened(run, tmp_path)
    tampered.set_field(3, "content", b"{}")
    with pytest.raises(UsageError, match=r"is not signed, for it does not verify. record 3: it was changed"):
        sign(tampered.folder, key)
    assert not (tampered.folder / "checkpoints").exists()


def test_an_empty_ledger_is_not_signed(key, tmp_path):
    open_ledger(tmp_path / "run").close()
    with pytest.raises(UsageError, match="holds no record"):
        sign(tmp_path / "run", key)


def test_a_copy_is_written_elsewhere_and_over_nothing(run, key, tmp_path):
    with pytest.raises(UsageError, match="lies in the run folder"):
        sign(run, key, copy_to=run / "maps")
    (tmp_path / "taken.json").write_text("{}")
    with pytest.raises(UsageError, match="holds something else: it is not written over"):
        sign(run, key, copy_to=tmp_path / "taken.json")
    assert not (run / "checkpoints").exists()
    path = sign(run, key, copy_to=tmp_path / "new.json")
    assert path.read_bytes() == (tmp_path / "new.json").read_bytes()


# -- what hashes alone do not show -----------------------------------------------------------------------------------------


def test_a_rewritten_chain_is_caught_against_a_checkpoint(run, key, tmp_path):
    sign(run, key)
    more(run)
    sign(run, key)
    tampered = opened(run, tmp_path)
    tampered.rewrite(lambda number, content: content if number != 7 else {**content, "path": "another"})
    found = verify(tampered.folder, key=key)
    assert [(one.file, one.number) for one in found.problems] == [("checkpoints/8.json", 8)]
    assert "a record from 7 to 8 was changed and the chain written again" in found.problems[0].sentence
    shutil.rmtree(tampered.folder / "checkpoints")
    assert verify(tampered.folder, key=key).ok  # nothing is left to hold it against
    assert not verify(tampered.folder, key=key, checkpoints=[run / "checkpoints" / "8.json"]).ok
    assert verify(tampered.folder, key=key, checkpoints=[run / "checkpoints" / "6.json"]).ok


def test_a_cut_off_tail_is_caught_against_a_checkpoint(run, key, tmp_path):
    sign(run, key, copy_to=tmp_path / "copy.json")
    tampered = opened(run, tmp_path)
    tampered.run("DELETE FROM record WHERE number > 4")
    shutil.rmtree(tampered.folder / "checkpoints")
    assert verify(tampered.folder).ok
    found = verify(tampered.folder, checkpoints=[tmp_path / "copy.json"])
    assert "when there were 6 records, and there are 4: the newest were cut off" in found.problems[0].sentence


def test_a_ledger_on_a_server_is_signed_erased_from_and_verified(server, key, tmp_path):
    run = tmp_path / "on the server"
    names = make_ledger(run, RECORDS, server)
    sign(run, key)
    erase(run, names[0], reason="asked", by="me")
    found = verify(run, key=key)
    assert (found.ok, found.records, found.files, len(found.erased)) == (True, RECORDS + 1, 6, 1)
    with pytest.raises(UsageError, match="is a run folder"):
        make_key(run / "key.pem")
    with open_ledger(run) as ledger:
        sql(ledger, "ALTER TABLE record DISABLE TRIGGER ALL")
        sql(ledger, "UPDATE record SET image = 'other.png' WHERE number = 3")
        sql(ledger, "DELETE FROM record WHERE number > 4")
    assert [(one.number, one.file) for one in verify(run, key=key).problems] == [
        (2, names[0]),  # the record of its erasure was cut off
        (3, None),
        (RECORDS, "checkpoints/6.json"),
    ]


@pytest.mark.parametrize("field", ["number", "hash", "time", "public_key", "signature"])
def test_a_forged_checkpoint_is_caught(run, key, field, tmp_path):
    path = sign(run, key)
    given = json.loads(path.read_text())
    other = {"number": 5, "time": "2030-01-01T00:00:00+00:00", "public_key": make_key(tmp_path / "other.pem")[1]}
    other |= {name: given[name][::-1] for name in ("hash", "signature")}
    path.write_text(json.dumps({**given, field: other[field]}))
    for trusted in (None, key):
        found = verify(run, key=trusted)
        assert [one.file for one in found.problems] == ["checkpoints/6.json"]
        assert "its signature is forged, or it was changed" in found.problems[0].sentence


def test_a_chain_rewritten_and_signed_by_somebody_else_is_caught_by_the_trusted_key(run, key, tmp_path):
    sign(run, key)
    tampered = opened(run, tmp_path)
    shutil.rmtree(tampered.folder / "checkpoints")
    tampered.rewrite(lambda number, content: {**content, "score": 1})
    thief, public = make_key(tmp_path / "thief.pem")
    sign(tampered.folder, thief)
    found = verify(tampered.folder, key=key)
    assert f"it is signed by {public}, which is not trusted; trusted is" in found.problems[0].sentence
    assert (verify(tampered.folder).ok, verify(tampered.folder).keys) == (
        True,
        (),
    )  # and it says that nobody is trusted


def test_a_checkpoint_of_another_ledger_is_caught(run, key, tmp_path):
    make_ledger(tmp_path / "other", RECORDS - 1)
    sign(tmp_path / "other", key)
    found = verify(run, key=key, checkpoints=[tmp_path / "other" / "checkpoints" / "5.json"])
    assert "or it is a checkpoint of another ledger" in found.problems[0].sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "it is damaged"),
        (b"\xff", "it is damaged"),
        (b"[" * 9000, "it is damaged"),
        (b" " * 20_000, "it is no checkpoint"),
        (b"[]", "it is no checkpoint"),
        ({"number": "6"}, "it is no checkpoint"),
        ({"number": True}, "it is no checkpoint"),
        ({"signature": "x" * 128}, "it is no checkpoint"),
        ({"more": 1}, "it is no checkpoint"),
        ({"schema": 2}, "it has schema 2; this version of seewhy reads schema 1"),
    ],
)
def test_what_is_no_checkpoint_is_a_problem_that_is_named(run, key, content, said):
    path = sign(run, key)
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content}).encode()
    path.write_bytes(content)
    found = verify(run)
    assert [(one.number, one.file) for one in found.problems] == [(None, "checkpoints/6.json")]
    assert said in found.problems[0].sentence


def test_a_folder_in_the_place_of_a_checkpoint_is_a_problem(run):
    (run / "checkpoints" / "1.json").mkdir(parents=True)
    assert verify(run).problems[0].sentence == "it is no file."


def test_a_checkpoint_that_is_not_there_is_an_error(run):
    with pytest.raises(UsageError, match="there is no checkpoint file"):
        verify(run, checkpoints=["nowhere.json"])


# -- keys ------------------------------------------------------------------------------------------------------------------


def test_a_key_is_for_its_owner_only_and_never_overwritten(tmp_path):
    path, public = make_key(tmp_path / "new" / "key.pem")
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"BEGIN PRIVATE KEY" in path.read_bytes()
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"key\.pem exists: a key is never overwritten"):
        make_key(path)
    path.unlink()
    with pytest.raises(UsageError, match=r"key\.pem\.pub exists: a key is never overwritten"):
        make_key(path)
    assert not path.exists()
    assert make_key(tmp_path / "two.pem")[1] != public
    assert before.count(b"\n") == 3


def test_where_a_key_is_looked_for(run, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"there is no private key .*make one with"):
        sign(run)
    path, public = make_key()
    assert path == default_key()
    assert path.is_relative_to(tmp_path / "home")
    sign(run)
    assert verify(run).keys[0].origin == f"the configuration folder: {path}.pub"
    path.with_name("ledger-key.pem.pub").unlink()
    assert (verify(run).keys[0].public_key, verify(run).keys[0].origin.split(": ")[1]) == (public, str(path))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named.pem"))
    with pytest.raises(UsageError, match=r"SEEWHY_LEDGER_KEY names .*named\.pem, and there is no such file"):
        verify(run)
    assert make_key()[0] == tmp_path / "named.pem"
    assert verify(run).keys[0].origin == f"SEEWHY_LEDGER_KEY: {tmp_path / 'named.pem'}.pub"
    assert not verify(run).ok


@pytest.mark.parametrize("place", ["key.pem", "maps/deep/key.pem"])
def test_a_private_key_does_not_lie_in_a_run_folder(run, key, place):
    with pytest.raises(UsageError, match="is a run folder: a private key in it would protect it from nobody"):
        make_key(run / place)
    shutil.copy(key, run / "key.pem")
    with pytest.raises(UsageError, match="lies in the run folder: whoever may change the ledger could sign it"):
        sign(run, run / "key.pem")


def test_a_public_key_from_the_run_folder_is_said_to_prove_little(run, key):
    sign(run, key)
    shutil.copy(f"{key}.pub", run / "key.pub")
    assert "in the run folder itself" in verify(run, key=run / "key.pub").keys[0].origin


def test_files_that_hold_no_key_that_can_be_used(run, tmp_path):
    path = tmp_path / "key.pem"
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    elliptic = generate_private_key(SECP256R1())
    other = elliptic.private_bytes(pem, form, serialization.NoEncryption())
    locked = elliptic.private_bytes(pem, form, serialization.BestAvailableEncryption(b"secret"))
    for content, said in ((b"nothing", "holds no"), (other, "not of the kind Ed25519"), (locked, "holds no")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            sign(run, path)
        with pytest.raises(UsageError, match=said):
            verify(run, key=path)
    with pytest.raises(UsageError, match=r"the key .*none\.pub cannot be read: No such file"):
        verify(run, key="none.pub")


def test_without_the_package_a_signed_ledger_says_what_to_install(run, key, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert verify(run).ok
    for work in (lambda: sign(run, key), make_key, lambda: verify(run, key=key)):
        with pytest.raises(MissingExtraError, match=r"pip install 'seewhy\[sign\]'"):
            work()
