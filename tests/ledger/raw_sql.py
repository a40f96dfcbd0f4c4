"""Statements past seewhy."""

import json
import sqlite3

import psycopg

from seewhy.ledger import NAME


def sql(ledger, statement):
    """Past seewhy, as somebody with a tool for databases would."""
    if ledger.path.name == NAME:
        connection = sqlite3.connect(ledger.path)
    else:
        place = json.loads(ledger.path.read_text())
        connection = psycopg.connect(place["database"], options=f"-c search_path={place['ledger']}")
    try:
        with connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []
    finally:
        connection.close()
