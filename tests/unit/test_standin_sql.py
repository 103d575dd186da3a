"""The Redshift stand-in's reading of SQL, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.stack.redshift import statement
from penstock.stack.redshift.problems import Problem
from penstock.stack.redshift.tokens import statements, tokens, written

PIECES = st.sampled_from(
    ["select", "FROM", "'", '"', "''", "(", ")", "[", ";", "--", "\n", "/*", "*/", "$$", "$a$", " ", "::", "1.5e3", "é", "copy", "t", ",", "E'\\", "insert into",
     "create table", "varchar(3)", "avg(", "listagg(", "alter table", "distkey", "values", "within group", "\0"]
)  # fmt: skip


@given(st.lists(PIECES).map(" ".join) | st.lists(PIECES).map("".join) | st.text())
def test_any_text_is_its_tokens(text: str) -> None:
    assert written(tokens(text)) == text


@given(st.lists(PIECES).map(" ".join) | st.text())
def test_any_text_is_a_statement_or_refused(text: str) -> None:
    try:
        statement.parse(text)
    except Problem as problem:
        assert problem.message and problem.code


def test_semicolons_in_quotes_end_no_statement() -> None:
    text = "SELECT ';' AS \";\"; /* ; */ SELECT $$;$$ -- ;\n;;"
    assert [written(part).strip() for part in statements(tokens(text))] == ["SELECT ';' AS \";\"", "/* ; */ SELECT $$;$$ -- ;"]


@pytest.mark.parametrize(
    "sql, writes, reads",
    [
        ('INSERT INTO "S"."Ledger" SELECT a FROM b JOIN c USING (d)', '"S"."Ledger"', {"b", "c"}),
        ("DELETE FROM public.t USING u WHERE t.a = u.a", "public.t", {"t", "u"}),
        ("DELETE t WHERE a = 1", "t", {"t"}),
        ("UPDATE t SET a = 1 FROM u", "t", {"t", "u"}),
        ("TRUNCATE TABLE t", "t", set()),
        ("COPY t FROM 's3://b/k' IAM_ROLE default CSV", "t", set()),
        ("SELECT * FROM t", "", {"t"}),
    ],
)
def test_what_a_statement_writes_and_reads(sql: str, writes: str, reads: set[str]) -> None:
    found = statement.parse(sql)
    assert found.writes == writes and reads <= found.reads


def test_what_is_not_redshifts_alone_is_left_as_it_is() -> None:
    for sql in ("SELECT t.avg, x.version FROM t AS x", "SELECT 'avg(1)', \"nvl\" FROM t", "INSERT INTO version (a) VALUES (1)"):
        assert statement.parse(sql).sql == sql
