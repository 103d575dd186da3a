"""What Redshift says when it refuses something."""

from __future__ import annotations

from penstock.stack.redshift import wire

INTERNAL = "XX000"
SYNTAX = "42601"
UNSUPPORTED = "0A000"
UNKNOWN_FUNCTION = "42883"
TOO_LONG = "22001"
ABORTED = "25P02"
IN_TRANSACTION = "25001"


class Problem(Exception):
    """An error that the relay answers with."""

    def __init__(self, message: str, *, code: str = INTERNAL, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.code, self.detail, self.hint = message, code, detail, hint

    def response(self) -> bytes:
        """It as an ErrorResponse."""
        return wire.error(self.code, self.message, self.detail, self.hint)


def syntax(near: str) -> Problem:
    """What the parser says of something that it does not know."""
    return Problem(f'syntax error at or near "{near}"', code=SYNTAX)


def detail(said: str, code: int, context: str, query: int, location: str) -> str:
    """The block that Redshift's execution engine adds to its errors."""
    return (
        f"\n  -----------------------------------------------\n  error:  {said}\n  code:      {code}\n  context:   {context}\n"
        f"  query:     {query}\n  location:  {location}\n  process:   penstock-redshift-stand-in\n"
        "  -----------------------------------------------\n"
    )


def load_failed(table: str) -> Problem:
    """A COPY of text files that met more errors than it may."""
    return Problem(f"Load into table '{table}' failed.  Check 'stl_load_errors' system table for details.")


def scan_failed(context: str, query: int, code: int = 15007) -> Problem:
    """A COPY of Parquet files that do not fit."""
    return Problem("Spectrum Scan Error", detail=detail("Spectrum Scan Error", code, context, query, "dory_util.cpp:1615"))


def missing(what: str, query: int) -> Problem:
    """An object that COPY needs and S3 does not have."""
    said = f"The specified S3 {what} does not exist"
    return Problem(said, detail=detail(said, 8001, "", query, "s3_utility.cpp:674"))


def violation(table: int, transactions: tuple[int, int], pid: int) -> Problem:
    """Two transactions that no order explains: the one that is refused is over."""
    one, other = transactions
    said = f"Serializable isolation violation on table - {table}, transactions forming the cycle are: {one}, {other} (pid:{pid})"
    return Problem("1023", detail=said)


def translated(body: bytes) -> bytes:
    """The body of an ErrorResponse of PostgreSQL's as Redshift would say it."""
    found = wire.fields(body)
    if found.get("C") == "40001":
        said = "Serializable isolation violation on table - 0, transactions forming the cycle are: 0, 0 (pid:0)"
        return Problem("1023", detail=said).response()[5:]
    if found.get("C") == "23514" and found.get("d", "").startswith("varchar_"):
        return Problem(f"value too long for type character varying({found['d'][8:]})", code=TOO_LONG).response()[5:]
    return body
