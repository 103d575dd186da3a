"""Input formats to records, and files into a topic."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import ConfigurationError, NotFoundError
from penstock.kernels import read_batches
from penstock.kernels.encode import Slices
from penstock.log.formats import parse_combined
from penstock.log.keys import key_reader
from penstock.log.memory import MemoryLog
from penstock.log.produce import ProduceReport, produce_files
from penstock.log.sources import Source, format_of
from penstock.model import Bool, Decimal, Enum, Int, Schema, String, Timestamp

SHARED = Path(os.environ.get("PENSTOCK_SHARED") or Path(__file__).parents[3] / "shared") / "data"
FIELDS: dict[str, Any] = {
    "ts": Timestamp("ms"),
    "user": Int(path="user.id", nullable=True),
    "name": String(path="user.name", default="?"),
    "note": String(),
    "ok": Bool(nullable=True),
    "price": Decimal(6, nullable=True),
    "kind": Enum("a", "b", nullable=True),
    "day": Timestamp("iso8601", nullable=True),
}


def schema(format: str = "json", key: str | None = None) -> Schema:
    return Schema("things", time="ts", fields=FIELDS, format=format, key=key)


def produced(
    tmp_path: Path, name: str, content: bytes, of: Schema | None = None, **options: Any
) -> tuple[list[bytes | None], ProduceReport]:
    (tmp_path / name).write_bytes(content)
    log = MemoryLog()
    log.create("things", 1)
    report = produce_files(log, of or schema(), [tmp_path / name], **options)
    return contents(log), report


def contents(log: MemoryLog, partition: int = 0, topic: str = "things") -> list[bytes | None]:
    out, at = [], 0
    while (chunk := log.read(topic, partition, at, 1 << 20, 1 << 40)) is not None:
        found = read_batches(chunk.data)
        out += [found.value(row) for row in range(len(found))]
        at = chunk.next
    return out


def test_json_lines_go_through_as_the_very_bytes_of_the_line(tmp_path: Path) -> None:
    lines = [b'{"ts": 1,\t"x":"\xc3\xbc"}', b'{"ts":1', b"not json", b'  {"ts":2}  ', b"\xff\xfe", b"{}"]
    got, report = produced(tmp_path, "a.jsonl", b"\n\n" + b"\r\n".join(lines) + b"\n \t\n")
    assert got == lines
    assert report == ProduceReport(6, 3, os.path.getsize(tmp_path / "a.jsonl"), {0: 6})


def test_a_last_line_needs_no_line_end_and_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert produced(tmp_path, "a.jsonl", b"{}\n{}")[0] == [b"{}", b"{}"]
    assert produced(tmp_path, "a.jsonl", b"")[1].records == 0


def test_lines_longer_than_a_block_are_whole(tmp_path: Path) -> None:
    lines = [b'{"x":"' + b"y" * size + b'"}' for size in (10, 5 << 20, 3, 9 << 20)]
    assert produced(tmp_path, "a.jsonl", b"\n".join(lines))[0] == lines


@given(
    lines=st.lists(
        st.binary(max_size=20).filter(lambda line: line.strip(b" \t\r") and b"\n" not in line and not line.endswith(b"\r")), max_size=30
    ),
    block=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_blocks_may_end_anywhere(lines: list[bytes], block: int) -> None:
    from penstock.log.formats import read_blocks

    class Trickle:
        name, stream = "test", io.BytesIO(b"\n".join(lines))

        def read(self) -> bytes:
            return self.stream.read(block)

    blocks = list(read_blocks(Trickle(), "jsonl", schema()))  # type: ignore[arg-type]
    assert [values.get(row) for values, _ in blocks for row in range(len(values))] == lines


def test_json_becomes_msgpack_for_a_msgpack_schema(tmp_path: Path) -> None:
    lines = [b'{"a":[1,2.5,null,"\xc3\xbc"]}', b'{"a":NaN}', b"broken", b'{"n":99999999999999999999999}', b'"\xff"']
    got, report = produced(tmp_path, "a.jsonl", b"\n".join(lines), schema("msgpack"))
    assert got[0] is not None and msgpack.unpackb(got[0]) == {"a": [1, 2.5, None, "ü"]}
    assert got[1:] == lines[1:] and report.unparsed == 4


def test_a_msgpack_stream_is_cut_into_its_records(tmp_path: Path) -> None:
    records: list[Any] = [{"ts": i, "x": "y" * (i * 37 % 300)} for i in range(500)] + [[1], "text", None]
    raw = [msgpack.packb(record) for record in records]
    got, report = produced(tmp_path, "a.msgpack", b"".join(raw), schema("msgpack"))
    assert got == raw and report.records == 503 and report.unparsed == 0
    as_json, _ = produced(tmp_path, "a.msgpack", b"".join(raw))
    assert [json.loads(value or b"") for value in as_json] == records


def test_a_msgpack_stream_that_is_cut_off_ends_in_a_record_that_does_not_parse(tmp_path: Path) -> None:
    whole = msgpack.packb({"a": "bcdefgh"})
    got, report = produced(tmp_path, "a.msgpack", whole + whole[:-3], schema("msgpack"))
    assert got == [whole, whole[:-3]] and report.unparsed == 1


def test_what_is_no_msgpack_is_named_with_its_byte(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no msgpack at byte 3"):
        produced(tmp_path, "a.msgpack", b"\x01\x02\x03\xc1\x01", schema("msgpack"))


def test_msgpack_that_has_no_json_form_is_passed_on_as_it_is(tmp_path: Path) -> None:
    raw = [msgpack.packb({"a": b"\xff"}), msgpack.packb(float("nan")), msgpack.packb({"ok": 1})]
    got, report = produced(tmp_path, "a.msgpack", b"".join(raw))
    assert got == [raw[0], raw[1], b'{"ok":1}'] and report.unparsed == 2


def test_csv_cells_are_typed_by_the_fields_they_feed(tmp_path: Path) -> None:
    header = "ts,user.id,name,note,ok,price,kind,day,other"
    rows = [
        '1000,7,Ann,"a, ""b""\nc",true,12.50,a,2026-03-02,x',
        "2000,,,,,,,,",
        "3000.5,x,B,n,maybe,1e3,zzz,soon,",
        '4000,-8,"ü",0,0,-0.000001,b,,7',
    ]
    got, report = produced(tmp_path, "a.csv", "\ufeff".encode() + "\r\n".join([header, *rows]).encode())
    assert [json.loads(value or b"") for value in got] == [
        {
            "ts": 1000,
            "user": {"id": 7, "name": "Ann"},
            "note": 'a, "b"\nc',
            "ok": True,
            "price": 12.5,
            "kind": "a",
            "day": "2026-03-02",
            "other": "x",
        },
        {"ts": 2000, "note": ""},
        {"ts": 3000.5, "user": {"id": "x", "name": "B"}, "note": "n", "ok": "maybe", "price": 1000.0, "kind": "zzz", "day": "soon"},
        {"ts": 4000, "user": {"id": -8, "name": "ü"}, "note": "0", "ok": False, "price": -1e-06, "kind": "b", "other": "7"},
    ]
    assert (report.records, report.unparsed) == (4, 0)


def test_csv_rows_that_do_not_parse_are_passed_on_as_they_are(tmp_path: Path) -> None:
    rows = [b"1,2", b"1,2,3,4", b'1,"a"b,3', b"1,\xff,3", b"1,nan,3", b"7,8,9"]
    got, report = produced(tmp_path, "a.csv", b"ts,price,note\n" + b"\n".join(rows))
    assert got == [*rows[:5], b'{"ts":7,"price":8,"note":"9"}'] and report.unparsed == 5


cell = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


@given(cells=st.lists(st.lists(cell, min_size=2, max_size=2), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_csv_is_read_as_the_csv_module_wrote_it(tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["x", "note"], *cells])
    got, report = produced(tmp_path_factory.mktemp("csv"), "a.csv", text.getvalue().encode())
    assert [json.loads(value or b"") for value in got] == [{"x": a, "note": b} for a, b in cells] and report.unparsed == 0


LINE = b'1.2.3.4 - frank [10/Oct/2000:13:55:36 -0730] "GET /a?b=c HTTP/1.0" 200 2326 "http://x/" "Mozilla/4.08 [en]"'
VIEW = {
    "ts": 971211336000 + 30 * 60_000,
    "ip": "1.2.3.4",
    "method": "GET",
    "path": "/a?b=c",
    "status": 200,
    "bytes": 2326,
    "referrer": "http://x/",
    "user_agent": "Mozilla/4.08 [en]",
}


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        (b"", b"", {}),
        (b"2326", b"-", {"bytes": None}),
        (b'"http://x/"', b'"-"', {"referrer": None}),
        (b'"Mozilla/4.08 [en]"', b'"-"', {"user_agent": None}),
        (b'"Mozilla/4.08 [en]"', b'""', {"user_agent": ""}),
        (b"Mozilla/4.08 [en]", b'say \\"hi\\" \\xe4', {"user_agent": 'say \\"hi\\" \\xe4'}),
        (b"Mozilla/4.08 [en]", "ü".encode(), {"user_agent": "ü"}),
        (b" HTTP/1.0", b"", {}),
        (b"/a?b=c", b"/a b", {"path": "/a b"}),
        (b"GET", b"M-SEARCH", {"method": "M-SEARCH"}),
        (b"frank", b"frank van dam", {}),
        (b"-0730", b"+0000", {"ts": 971186136000}),
        (b'[en]"', b'[en]" 0.003 example.org', {}),
        (b"1.2.3.4", b"2001:db8::1", {"ip": "2001:db8::1"}),
    ],
)
def test_a_line_of_an_access_log_is_a_page_view(old: bytes, new: bytes, change: dict[str, Any]) -> None:
    assert parse_combined(LINE.replace(old, new, 1) if old else LINE) == {**VIEW, **change}


@pytest.mark.parametrize(
    "line",
    [
        LINE[:-1],
        LINE.replace(b"Oct", b"Okt"),
        LINE.replace(b"10/", b"32/"),
        LINE.replace(b"GET /a?b=c HTTP/1.0", b"-"),
        LINE.replace(b"200", b"abc"),
        LINE.replace(b"GET", b"\xff"),
        LINE.replace(b"13:55", b"24:55"),
        b"hello",
        LINE.replace(b"-0730", b"-2530"),
    ],
)
def test_a_line_that_is_no_page_view_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_combined(line)


def test_an_access_log_for_a_msgpack_schema(tmp_path: Path) -> None:
    got, report = produced(tmp_path, "access.log", LINE + b"\nbroken\n", schema("msgpack"))
    assert got[0] is not None and msgpack.unpackb(got[0]) == VIEW and got[1] == b"broken" and report.unparsed == 1


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the sample data is not beside this checkout")
def test_a_real_access_log_is_the_same_records_as_its_json_form() -> None:
    views = Schema("things", time="ts", fields={"ts": Timestamp("ms"), "path": String()}, key="path")
    logs = []
    for name, format in (("pageviews.jsonl", None), ("access.log", "combined")):
        log = MemoryLog()
        log.create("things", 3)
        began = time.perf_counter()
        report = produce_files(log, views, [SHARED / name], format=format)
        assert (report.records, report.unparsed) == (10_000, 1) and sum(report.ends.values()) == 10_000
        assert time.perf_counter() - began < 5
        logs.append([contents(log, partition) for partition in range(3)])
    lines = (SHARED / "pageviews.jsonl").read_bytes().splitlines()
    assert logs[0] == logs[1] and sorted(value or b"" for values in logs[0] for value in values) == sorted(lines)
    for line in lines[:200]:
        assert any(line in values for values in logs[0])


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
        (".gz", lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:])),
    ],
)
def test_compressed_files_are_read_by_their_ending(tmp_path: Path, suffix: str, compress: Any) -> None:
    lines = [b'{"ts":%d}' % i for i in range(50_000)]
    got, report = produced(tmp_path, "a.jsonl" + suffix, compress(b"\n".join(lines)))
    assert got == lines and report.bytes == os.path.getsize(tmp_path / ("a.jsonl" + suffix))


def test_a_compressed_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a.jsonl.gz"):
        produced(tmp_path, "a.jsonl.gz", gzip.compress(b"{}\n" * 1000)[:-20] + b"x" * 10)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"),
        ("a.ndjson.gz", "jsonl"),
        ("b/c.csv.zst", "csv"),
        ("access.log", "combined"),
        ("x.mpk", "msgpack"),
        ("-", "jsonl"),
    ],
)
def test_a_name_tells_the_format(name: str, format: str) -> None:
    assert format_of(name) == format and format_of(name, "csv") == "csv"


def test_what_cannot_be_read_is_named_before_anything_is_produced(tmp_path: Path) -> None:
    log = MemoryLog()
    log.create("things", 1)
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    for bad, message in (
        (tmp_path / "none.jsonl", "none.jsonl"),
        (tmp_path / "a.xyz", "does not tell the format"),
        (tmp_path, "does not tell"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            produce_files(log, schema(), [tmp_path / "a.jsonl", bad])
    with pytest.raises(ConfigurationError, match="no input format 'xml'"):
        produce_files(log, schema(), [tmp_path / "a.jsonl"], format="xml")
    with pytest.raises(NotFoundError, match="'other'"):
        produce_files(log, schema(), [tmp_path / "a.jsonl"], topic="other")
    assert log.end("things", 0) == 0


def test_standard_input_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"ts":1}\n{"ts"')
    monkeypatch.setattr(sys, "stdin", open(reader))
    source = Source("-")
    assert source.total is None and source.read() == b'{"ts":1}\n{"ts"' and source.position == 14
    os.write(writer, b":2}")
    os.close(writer)
    assert (source.read(), source.read()) == (b":2}", b"")


def test_progress_and_clock(tmp_path: Path) -> None:
    content, seen = b'{"ts":1}\n' * 1_000_000, []
    (tmp_path / "b.jsonl").write_bytes(b"{}\n")
    (tmp_path / "a.jsonl").write_bytes(content)
    log = MemoryLog()
    log.create("things", 2)
    produce_files(
        log, schema(), [tmp_path / "a.jsonl", tmp_path / "b.jsonl"], on_progress=lambda *args: seen.append(args), clock=lambda: 77_000
    )
    assert len(seen) >= 4 and seen[-1] == (len(content) + 3, len(content) + 3, 1_000_001)
    assert [read for read, _, _ in seen] == sorted(read for read, _, _ in seen)
    assert (chunk := log.read("things", 0, 0, 1, 1)) is not None and set(read_batches(chunk.data).timestamps.tolist()) == {77_000}


@pytest.mark.parametrize("format", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("field", "values", "keys"),
    [
        (
            "user",
            [{"id": 7}, {"id": -(2**63)}, {"id": None}, {}, {"id": "x"}, {"id": True}],
            [b"7", b"-9223372036854775808", None, None, None, None],
        ),
        ("note", ["ü", "", 5, None], ["ü".encode(), b"", None, None]),
        ("kind", ["b", "a", "c", None], [b"b", b"a", None, None]),
        ("ok", [True, False, None, 1], [b"true", b"false", None, None]),
    ],
)
def test_keys_are_the_text_of_the_key_field_and_null_where_it_does_not_fit(
    format: str, field: str, values: list[Any], keys: list[bytes | None]
) -> None:
    write = msgpack.packb if format == "msgpack" else lambda record: json.dumps(record).encode()
    records = [write({"ts": 1, "user" if field == "user" else field: value}) for value in values] + [b"\xc1broken"]
    found = key_reader(schema(format, field))(Slices.of(records))
    assert found is not None and [found.get(row) for row in range(len(found))] == [*keys, None]


def test_a_schema_without_a_key_or_with_one_outside_the_value_gives_none() -> None:
    values = Slices(b"{}", np.array([0]), np.array([2], np.int32))
    outside = Schema("things", time="ts", fields={**FIELDS, "who": String(source="key")}, key="who")
    assert key_reader(schema())(values) is None and key_reader(outside)(values) is None


def test_a_decoder_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match="no.such:Thing"):
        key_reader(schema("no.such:Thing", "note"))
