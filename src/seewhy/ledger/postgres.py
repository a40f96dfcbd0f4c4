"""A ledger on a team's PostgreSQL server: its tables in a schema of their own, and the same promises as in a file."""

from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from seewhy.errors import first_line
from seewhy.ledger.database import KEPT, WAIT, Database
from seewhy.ledger.schema import FIRST
from seewhy.loading.extras import import_extra

# prepare_threshold: connection poolers such as PgBouncer may know no prepared statements
CONNECTION = {"connect_timeout": 10, "application_name": "seewhy", "prepare_threshold": None}

_TRIGGERS = {
    "record_is_never_changed": "BEFORE UPDATE OR DELETE ON {0}.record FOR EACH ROW EXECUTE FUNCTION {0}.refuse()",
    "record_is_never_emptied": "BEFORE TRUNCATE ON {0}.record FOR EACH STATEMENT EXECUTE FUNCTION {0}.refuse()",
    "record_is_appended": "BEFORE INSERT ON {0}.record FOR EACH ROW EXECUTE FUNCTION {0}.append()",
}
_REFUSE = """
CREATE OR REPLACE FUNCTION {0}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only: a record is never changed or deleted'
  USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_APPEND = """
CREATE OR REPLACE FUNCTION {0}.append() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.number = (SELECT coalesce(max(number), 0) + 1 FROM {0}.record)
  AND NEW.previous = coalesce((SELECT hash FROM {0}.record WHERE number = NEW.number - 1), '{1}') THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'the ledger is append-only: a record is never inserted before or over others'
  USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
# A server that acknowledges what is not on its disk yet is told not to; one that waits for more than that still does.
_PATIENCE = text(
    f"SELECT set_config('lock_timeout', '{WAIT}s', true), set_config('synchronous_commit', "
    "replace(current_setting('synchronous_commit'), 'off', 'on'), true)"
)
# Nobody needs a right for such a lock, as LOCK TABLE would: whoever may insert may write.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:ledger, 0))")


def postgres_database(url: URL, namespace: str, where: str, *, read_only: bool) -> Database:
    """The ledger of this name on a server, reached at the first connection; MissingExtraError without psycopg."""
    import_extra("psycopg", "postgres", "a ledger on a PostgreSQL server")
    schema = f'"{namespace}"'
    engine = create_engine(
        url,
        connect_args={name: value for name, value in CONNECTION.items() if name not in url.query},
        isolation_level="READ COMMITTED",  # a writer sees what the one before it has committed
        pool_pre_ping=True,  # the server may have been started again since
        execution_options={"schema_translate_map": {None: namespace}, "postgresql_readonly": read_only},
    )

    def begin(connection: Connection) -> None:
        connection.execute(_PATIENCE)
        connection.execute(_LOCK, {"ledger": namespace})

    def guard(connection: Connection) -> None:
        for function in (_REFUSE, _APPEND):
            connection.exec_driver_sql(function.format(schema, FIRST))
        for name, refusal in _TRIGGERS.items():
            connection.exec_driver_sql(f"CREATE TRIGGER {name} {refusal.format(schema)}")

    def unguard(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL search_path TO {schema}")
        for name in _TRIGGERS:
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {schema}.record")

    return Database(where, engine, namespace, _prepare, begin, guard, unguard, _in_words)


def _prepare(_connection: Connection) -> None:
    """A server needs nothing."""


def _in_words(error: DBAPIError) -> str:
    state, said = str(getattr(error.orig, "sqlstate", None) or ""), first_line(error.orig or error)
    if not state or state.startswith(("08", "28", "57P")):
        return (
            f"cannot be reached, or the connection was lost ({said}). {KEPT}. A password is read from SEEWHY_LEDGER, "
            "PGPASSWORD or ~/.pgpass."
        )
    if state == "53100":
        return f"the server's disk is full ({said}). {KEPT}; free some space and run it again."
    if state == "25006":
        return f"cannot be written ({said}): is this a standby? Ask for the server that takes writes."
    if state == "55P03":
        return f"other processes have kept it locked for {WAIT} s. {KEPT}; run it again."
    if state == "42501":
        return (
            f"{said}. Who makes a ledger needs CREATE on the database; who writes one USAGE on its schema, and SELECT and "
            "INSERT on its tables; who reads one no INSERT."
        )
    return f"{said}."
