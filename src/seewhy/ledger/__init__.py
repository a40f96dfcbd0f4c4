"""The record of everything that was measured: append-only, each record carrying the hash of the one before."""

from seewhy.ledger.checkpoint import Checkpoint
from seewhy.ledger.erasure import erase
from seewhy.ledger.keys import TrustedKey, make_key
from seewhy.ledger.record import common_folder, explanation_key, explanation_record, relative_path
from seewhy.ledger.replay import Replay, recorded_model, replay
from seewhy.ledger.schema import CONTENTS, FIRST, NAME, SCHEMA, chain_hash, text_hash
from seewhy.ledger.signing import sign
from seewhy.ledger.store import Ledger, Record, open_ledger
from seewhy.ledger.verify import CheckedCheckpoint, Erased, Problem, Verification, verify

__all__ = [
    "CONTENTS",
    "FIRST",
    "NAME",
    "SCHEMA",
    "CheckedCheckpoint",
    "Checkpoint",
    "Erased",
    "Ledger",
    "Problem",
    "Record",
    "Replay",
    "TrustedKey",
    "Verification",
    "chain_hash",
    "common_folder",
    "erase",
    "explanation_key",
    "explanation_record",
    "make_key",
    "open_ledger",
    "recorded_model",
    "relative_path",
    "replay",
    "sign",
    "text_hash",
    "verify",
]
