"""A small ledger, and what somebody who may write its file can do to it."""

import json
import os
import shutil
import sqlite3

import numpy as np
from PIL import Image

from seewhy.errors import SeewhyError
from seewhy.ledger import FIRST, NAME, chain_hash, make_key, open_ledger, sign, verify
from seewhy.ledger.schema import lifted

NOBODY = 65534
COLUMNS = ("number", "time", "kind", "key", "content", "previous", "hash", "image", "model", "method")


def make_ledger(folder, records=6, database=None):
    """Predictions and explanations with a map each, the first one with a picture too; the names of the files."""
    names = []
    with open_ledger(folder, database=database) as ledger:
        ledger.append("run", "run", {"model": "net", "model_sha256": "m", "note": 'say "maps/x"'})
        picture = ledger.keep_picture(Image.new("RGB", (8, 8), "red"))
        for i in range(records - 1):
            names.append(ledger.keep(np.full((3, 3), i, dtype=np.float32)))
            content = {"image": f"caf\u00e9 {i}.png", "method": "grad_cam", "map": {"file": names[-1]}, "score": i / 7}
            ledger.append("explanation", f"e{i}", content | ({} if i else {"pictures": {"before": picture}}))
    return [*names, picture]


class Tampered:
    """A copy of a ledger's folder that anybody may write."""

    def __init__(self, original, folder):
        self.original, self.folder = original, folder
        shutil.copytree(original, folder)
        self.run("DROP TRIGGER record_is_never_changed")
        self.run("DROP TRIGGER record_is_never_deleted")
        self.run("DROP TRIGGER record_is_appended")
        self._whole = (folder / NAME).read_bytes()

    def restore(self):
        (self.folder / NAME).write_bytes(self._whole)

    def run(self, *statements):
        connection = sqlite3.connect(self.folder / NAME)
        connection.execute("PRAGMA journal_mode=DELETE")
        try:
            with connection:
                return [connection.execute(*([one] if isinstance(one, str) else one)).fetchall() for one in statements][
                    -1
                ]
        finally:
            connection.close()

    def field(self, number, column):
        """The bytes of a field, None for null."""
        return self.run(f"SELECT CAST({column} AS BLOB) FROM record WHERE number = {number}")[0][0]

    def set_field(self, number, column, value):
        self.run((f"UPDATE record SET {column} = CAST(? AS TEXT) WHERE number = ?", (value, number)))

    def rewrite(self, change):
        """Write the whole chain again, each content changed as `change(number, content)` says: every hash holds."""
        previous, number = FIRST, 0
        for number, time, kind, key, text in self.run("SELECT number, time, kind, key, content FROM record ORDER BY 1"):
            content = change(number, json.loads(text))
            digest = chain_hash(previous, number, time, kind, key, content)
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
            values = "content = ?, previous = ?, hash = ?, image = ?, model = ?, method = ?"
            self.run(
                (
                    f"UPDATE record SET {values} WHERE number = {number}",
                    (text, previous, digest, *lifted(content).values()),
                )
            )
            previous = digest


def verify_and_sign_as_nobody(folder, own, pipe):
    """As a user who may write nothing in the run folder, but has a folder of their own."""
    open_ledger(own / "loaded").close()  # what Python imports only now, nobody could not
    make_key(own / "loaded.pem")
    if os.getuid() == 0:
        os.setuid(NOBODY)
    key, _ = make_key(own / "key.pem")
    said = [verify(folder)]
    try:
        sign(folder, key, copy_to=own)
    except SeewhyError as error:
        said.append(str(error))
    said.append(verify(folder, key=key, checkpoints=[own / f"{folder.name}-6.json"]))
    pipe.send(said)
