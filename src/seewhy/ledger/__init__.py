"""The record of everything that was measured: append-only, each record carrying the hash of the one before."""

from seewhy.ledger.record import common_folder, explanation_key, explanation_record
from seewhy.ledger.schema import CONTENTS, FIRST, NAME, SCHEMA, chain_hash
from seewhy.ledger.store import Ledger, Record, open_ledger

__all__ = [
    "CONTENTS",
    "FIRST",
    "NAME",
    "SCHEMA",
    "Ledger",
    "Record",
    "chain_hash",
    "common_folder",
    "explanation_key",
    "explanation_record",
    "open_ledger",
]
