"""The record of everything that was measured: append-only, each record carrying the hash of the one before."""

from seewhy.ledger.record import common_folder, explanation_key, explanation_record, relative_path
from seewhy.ledger.replay import Replay, recorded_model, replay
from seewhy.ledger.schema import CONTENTS, FIRST, NAME, SCHEMA, chain_hash
from seewhy.ledger.store import Ledger, Record, open_ledger

__all__ = [
    "CONTENTS",
    "FIRST",
    "NAME",
    "SCHEMA",
    "Ledger",
    "Record",
    "Replay",
    "chain_hash",
    "common_folder",
    "explanation_key",
    "explanation_record",
    "open_ledger",
    "recorded_model",
    "relative_path",
    "replay",
]
