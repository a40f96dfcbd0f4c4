"""The record of everything that was measured: append-only, each record carrying the hash of the one before."""

from seewhy.ledger.record import explanation_key, explanation_record
from seewhy.ledger.schema import CONTENTS, FIRST, NAME, SCHEMA, chain_hash, text_hash
from seewhy.ledger.store import Ledger, Record, open_ledger

__all__ = [
    "CONTENTS",
    "FIRST",
    "NAME",
    "SCHEMA",
    "Ledger",
    "Record",
    "chain_hash",
    "explanation_key",
    "explanation_record",
    "open_ledger",
    "text_hash",
]
