"""What the driver raises, by what can be done about it; and rows as Arrow."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from typing import Any

import pyarrow as pa
import pytest
import redshift_connector as driver

from penstock.errors import ConfigurationError, PenstockError, UnavailableError
from penstock.warehouse.redshift.arrow import to_table
from penstock.warehouse.redshift.problems import LostError, ServerError, of_connecting, told


def server(message: str, code: str = "XX000", detail: str = "") -> ServerError:
    return ServerError({"S": "ERROR", "C": code, "M": message, "D": detail})


@pytest.mark.parametrize(
    "problem",
    [
        server("1023", detail="Serializable isolation violation on table - 108234, transactions forming the cycle are: 1, 2"),
        server("Serializable isolation violation on table in Redshift"),
        server("could not complete because of conflict with concurrent transaction"),
        server("could not serialize access", "40001"),
        server("deadlock detected", "40P01"),
    ],
)
def test_another_transaction_in_the_way_is_a_conflict(problem: ServerError) -> None:
    assert problem.conflict and not problem.busy


@pytest.mark.parametrize(
    "problem",
    [
        server("S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown"),
        server("the database system is starting up", "57P03"),
        server("too many connections", "53300"),
    ],
)
def test_what_passes_is_busy(problem: ServerError) -> None:
    assert problem.busy and not problem.conflict


def test_an_error_of_the_statement_is_neither() -> None:
    for problem in (server('relation "ads1023" does not exist', "42P01"), server("Spectrum Scan Error", detail="code: 15001 query: 1023")):
        assert not problem.conflict and not problem.busy and not problem.cancelled
    assert server("canceling statement due to statement timeout", "57014").cancelled
    assert server("Load failed", detail="  see\n the   tables ").text == "Load failed: see the tables"


@pytest.mark.parametrize(
    "raised",
    [
        driver.InterfaceError("BrokenPipe: server socket closed."),
        driver.OperationalError("connection time out", "x"),
        ConnectionResetError("reset"),
        TimeoutError("timed out"),
        struct.error("unpack requires a buffer of 5 bytes"),
    ],
)
def test_a_connection_that_is_gone_is_told_from_an_answer(raised: Exception) -> None:
    with pytest.raises(LostError), told():
        raise raised
    with pytest.raises(ServerError, match="no such table"), told():
        raise driver.ProgrammingError({"C": "42P01", "M": "no such table"})


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (server("password authentication failed", "28000"), ConfigurationError, "refuses the user"),
        (server("password authentication failed", "28P01"), ConfigurationError, "refuses the user"),
        (server('database "x" does not exist', "3D000"), ConfigurationError, "redshift.database"),
        (server("the database system is shutting down", "57P01"), UnavailableError, "takes no connection now"),
        (LostError("Server refuses SSL"), ConfigurationError, "ssl = false"),
        (LostError("communication error: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), ConfigurationError, "sslmode"),
        (LostError("communication error: [Errno 111] Connection refused"), UnavailableError, "cannot be reached: .*refused"),
    ],
)
def test_a_connection_that_cannot_be_made_says_what_to_do(problem: Exception, kind: type[PenstockError], message: str) -> None:
    found = of_connecting(problem, "Redshift at h:1")
    assert type(found) is kind
    with pytest.raises(kind, match=message):
        raise found


def test_no_credentials_of_aws_is_a_mistake_and_its_throttling_an_outage() -> None:
    from botocore.exceptions import ClientError, NoCredentialsError

    assert type(of_connecting(NoCredentialsError(), "r")) is ConfigurationError
    throttled = ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, "GetClusterCredentials")
    assert type(of_connecting(throttled, "r")) is UnavailableError


def column(name: str, oid: int, modifier: int = -1) -> dict[str, Any]:
    return {"label": name.encode(), "type_oid": oid, "type_modifier": modifier}


def test_rows_become_arrow_with_every_digit() -> None:
    money = (18 << 16 | 6) + 4
    moment = dt.datetime(2015, 5, 17, 10, 0, 0, 1)
    found = to_table(
        [column("n", 20), column("m", 1700, money), column("t", 1114), column("s", 1043), column("s", 16), column("x", 1700)],
        [
            [1, decimal.Decimal("0.125"), moment, "a", True, decimal.Decimal("1E+3")],
            [None] * 6,
            [-(2**63), None, None, "", False, decimal.Decimal("0.25")],
        ],
    )
    assert found.schema.types == [pa.int64(), pa.decimal128(18, 6), pa.timestamp("us"), pa.string(), pa.bool_(), pa.decimal128(6, 2)]
    assert found.column_names == ["n", "m", "t", "s", "s", "x"]
    assert found.column(1).to_pylist() == [decimal.Decimal("0.125000"), None, None]
    assert found.column(2)[0].as_py() == moment
    assert found.column(5).to_pylist() == [decimal.Decimal(1000), None, decimal.Decimal("0.25")]


def test_decimals_that_no_arrow_type_holds_are_told_as_floats_and_no_rows_have_types_too() -> None:
    long = decimal.Decimal("0." + "3" * 100)
    assert to_table([column("x", 1700)], [[long]]).schema.types == [pa.float64()]
    assert to_table([column("x", 1700)], [[decimal.Decimal("1." + "3" * 50)]]).schema.types == [pa.decimal256(51, 50)]
    assert to_table([column("x", 1700), column("d", 1082)], []).schema.types == [pa.decimal128(38, 0), pa.date32()]
