"""Redshift's SQL as PostgreSQL takes it; and what of PostgreSQL's SQL Redshift does not take is refused, as Redshift would."""

from __future__ import annotations

from typing import Callable, Sequence

from penstock.stack.redshift.problems import SYNTAX, UNKNOWN_FUNCTION, UNSUPPORTED, Problem, syntax
from penstock.stack.redshift.tokens import Token, closing, listed, solid

SCHEMA = "redshift"
RELATIONS = {
    "stl_load_errors", "sys_load_error_detail", "stl_query", "sys_query_history", "stv_sessions", "pg_table_def", "svv_all_tables", "svv_tables",
    "svv_all_columns", "svv_columns", "svv_table_info",
}  # fmt: skip
HISTORY = {"stl_query", "sys_query_history"}
_FUNCTIONS = {
    "version", "getdate", "datediff", "dateadd", "date_part", "date_trunc", "convert_timezone", "add_months", "last_day", "trunc", "round", "charindex",
    "json_parse", "json_serialize", "json_extract_path_text", "is_valid_json", "pg_last_copy_id", "pg_last_copy_count",
}  # fmt: skip
_RENAMED = {"nvl": "coalesce", "len": "length", "date_diff": f"{SCHEMA}.datediff", "date_add": f"{SCHEMA}.dateadd", "textlen": "length"}
_PARTS = {"datediff", "date_diff", "dateadd", "date_add", "date_part"}  # whose first argument is a word
_UNKNOWN = {
    "string_agg", "array_agg", "json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg", "json_build_object", "jsonb_build_object",
    "json_build_array", "jsonb_build_array", "to_json", "to_jsonb", "row_to_json", "jsonb_array_elements", "json_array_elements", "jsonb_each",
    "unnest", "array_length", "array_position", "cardinality", "string_to_array", "array_to_string", "string_to_table", "format", "concat_ws",
    "make_date", "make_time", "make_timestamp", "make_timestamptz", "make_interval", "date_bin", "gen_random_uuid", "regexp_matches", "regexp_match",
    "regexp_split_to_table", "regexp_split_to_array", "width_bucket", "mode", "num_nulls", "num_nonnulls", "clock_timestamp",
    "statement_timestamp", "transaction_timestamp", "starts_with", "encode",
}  # fmt: skip
_LEADER = {"now", "age", "current_time", "localtime", "localtimestamp"}  # what only the leader node can do, and so with no table
_SETTINGS = {
    "query_group", "enable_result_cache_for_session", "wlm_query_slot_count", "analyze_threshold_percent", "enable_case_sensitive_identifier",
    "describe_field_name_in_uppercase", "json_serialization_enable", "max_cursor_result_set_size", "mv_enable_aqmv_for_session",
    "use_fips_ssl", "stored_proc_log_min_messages", "cast_super_null_on_error",
}  # fmt: skip
_NOT_CREATED = {"index", "trigger", "sequence", "extension", "type", "domain", "rule", "aggregate", "operator", "unlogged", "collation"}


def refuse(words: Sequence[Token]) -> None:
    """Raise Problem for what PostgreSQL takes and Redshift does not. words: without blanks."""
    plain = [token.word for token in words]
    if plain[0] == "create":
        kind = next((word for word in plain[1:] if word not in ("or", "replace", "unique", "temp", "temporary")), "")
        if kind in _NOT_CREATED:
            said = " ".join(token.text for token in words[:4])
            raise Problem(f'SQL command "{said}" not supported on Redshift tables.', code=UNSUPPORTED)
    ends = [*plain, "", "", ""]
    reads = "from" in plain
    for at, token in enumerate(words):
        word, after, third = ends[at], ends[at + 1], ends[at + 2]
        follows = words[at + 1].text if at + 1 < len(words) else ""
        if not word:
            if token.text == "[" and follows == "]" and plain[0] not in ("create", "alter"):  # there, the column's type is refused by name
                raise syntax("[")
            continue
        if at and words[at - 1].text == ".":
            continue
        if word == "filter" and follows == "(" and third == "where":
            raise syntax("(")
        if word == "on" and after == "conflict":
            raise syntax(token.text)
        if word == "returning" and plain[0] in ("insert", "update", "delete", "with", "merge"):
            raise syntax(token.text)
        if word == "lateral" or word == "tablesample":
            raise syntax(token.text)
        if word == "distinct" and after == "on" and words[at + 2].text == "(":
            raise Problem("SELECT DISTINCT ON is not supported", code=UNSUPPORTED)
        if word == "distinct" and at and (ends[at - 1] == "is" or ends[at - 1] == "not" and ends[at - 2] == "is"):
            raise syntax(token.text)
        if word == "array" and follows == "[":
            raise syntax("[")
        if word == "values" and at and words[at - 1].text == "(":
            raise syntax(token.text)
        if word == "for" and after in ("update", "share") and plain[0] in ("select", "with"):
            raise Problem(f"SELECT FOR {after.upper()} is not supported", code=UNSUPPORTED)
        if follows == "(" and word in _UNKNOWN and not (at and ends[at - 1] in ("into", "table", "as", "update", "join")):
            raise Problem(f"function {word}() does not exist", code=UNKNOWN_FUNCTION, hint="Redshift has no such function")
        if word in _LEADER and reads and (follows == "(" or word.startswith(("local", "current"))):
            raise Problem("Specified types or functions (one per INFO message) not supported on Redshift tables.", code=UNSUPPORTED)


def rewrite(words: Sequence[Token]) -> list[Token]:
    """A statement with blanks, in PostgreSQL's words."""
    return _Rewriting(words).run()


def setting(words: list[Token]) -> list[Token]:
    """SET, RESET or SHOW, with the names of settings that Redshift alone has."""
    return [Token("word", f"{SCHEMA}.{token.word}") if token.word in _SETTINGS else token for token in words]


class _Rewriting:
    """One pass over the tokens; what stands in the brackets of a function is a pass of its own."""

    def __init__(self, words: Sequence[Token]) -> None:
        self.words = list(words)
        self.at = 0
        self.out: list[Token] = []
        self.before = ""  # the last token that is no blank

    def run(self) -> list[Token]:
        """All of it."""
        while self.at < len(self.words):
            token = self.words[self.at]
            if token.kind == "word" and self.before != ".":
                self._word(token)
            else:
                self._keep(token)
        return self.out

    def _keep(self, token: Token) -> None:
        self.out.append(token)
        if token.kind != "blank":
            self.before = token.word or token.text
        self.at += 1

    def _word(self, token: Token) -> None:
        word = token.word
        opening = self._solid(self.at + 1)
        called = opening < len(self.words) and self.words[opening].text == "(" and self.before not in ("into", "table", "as", "update")
        if called and word in _SPECIAL:
            end = closing(self.words, opening)
            arguments = _arguments(self.words[opening + 1 : end])
            self.at = end + 1
            _SPECIAL[word](self, arguments)
        elif called and word in _RENAMED | dict.fromkeys(_FUNCTIONS):
            new = _RENAMED.get(word, f"{SCHEMA}.{word}")
            if word in _PARTS:
                self._quote_part(opening)
            self._keep(Token("word", new, word))
        elif word in RELATIONS and not called:
            self._keep(Token("word", f"{SCHEMA}.{word}", word))
        elif word == "pg_catalog" and self._relation_after():
            self.at = self._solid(self._solid(self.at + 1) + 1)
        elif word == "sysdate" and not called:
            self._keep(Token("word", f"{SCHEMA}.sysdate()", word))
        elif word == "approximate" and self._next_word() in ("count", "percentile_disc"):
            self.at += 1
        elif word == "minus" and self._next_word() in ("select", "all", "with"):
            self._keep(Token("word", "EXCEPT", word))
        else:
            self._keep(token)

    def _solid(self, at: int) -> int:
        """The index of the first token from there on that is no blank."""
        while at < len(self.words) and self.words[at].kind == "blank":
            at += 1
        return at

    def _next_word(self) -> str:
        at = self._solid(self.at + 1)
        return self.words[at].word if at < len(self.words) else ""

    def _relation_after(self) -> bool:
        dot = self._solid(self.at + 1)
        name = self._solid(dot + 1)
        return dot < len(self.words) and self.words[dot].text == "." and name < len(self.words) and self.words[name].word in RELATIONS

    def _quote_part(self, opening: int) -> None:
        at = self._solid(opening + 1)
        if at < len(self.words) and self.words[at].kind == "word":
            self.words[at] = Token("string", f"'{self.words[at].text}'")

    def _put(self, text: str) -> None:
        self.out.append(Token("mark", text))
        self.before = ")"

    def _over(self) -> str:
        """What follows a window function: OVER and its window; empty if there is none."""
        at = self._solid(self.at)
        if at < len(self.words) and self.words[at].word == "over":
            window = self._solid(at + 1)
            end = closing(self.words, window) if self.words[window].text == "(" else window
            self.at = end + 1
            return " OVER " + _text(rewrite(self.words[window : end + 1]))
        return ""

    def _avg(self, arguments: list[list[Token]]) -> None:
        inner, over = ", ".join(_text(one) for one in arguments), self._over()
        self._put(f"{SCHEMA}.avg_of(avg({inner}){over}, max({inner}){over})")

    def _listagg(self, arguments: list[list[Token]]) -> None:
        value = _text(arguments[0])
        distinct = "DISTINCT " if solid(arguments[0])[:1] and solid(arguments[0])[0].word == "distinct" else ""
        value = value.strip()[len(distinct) :] if distinct else value
        order = ""
        at = self._solid(self.at)
        if at < len(self.words) and self.words[at].word == "within":
            opening = self._solid(self._solid(at + 1) + 1)
            end = closing(self.words, opening)
            order = " " + _text(rewrite(self.words[opening + 1 : end])).strip()
            self.at = end + 1
        delimiter = _text(arguments[1]) if len(arguments) > 1 else "''"
        self._put(f"string_agg({distinct}({value})::text, {delimiter}{order}){self._over()}")

    def _median(self, arguments: list[list[Token]]) -> None:
        self._put(f"percentile_cont(0.5) WITHIN GROUP (ORDER BY {_text(arguments[0])})")

    def _nvl2(self, arguments: list[list[Token]]) -> None:
        if len(arguments) != 3:
            raise Problem("NVL2 takes three arguments", code=SYNTAX)
        first, second, third = map(_text, arguments)
        self._put(f"(CASE WHEN ({first}) IS NOT NULL THEN {second} ELSE {third} END)")

    def _decode(self, arguments: list[list[Token]]) -> None:
        value, *rest = map(_text, arguments)
        pairs = "".join(f" WHEN ({value}) IS NOT DISTINCT FROM ({key}) THEN {result}" for key, result in zip(rest[::2], rest[1::2]))
        self._put(f"(CASE{pairs}{f' ELSE {rest[-1]}' if len(rest) % 2 else ''} END)")

    def _extract(self, arguments: list[list[Token]]) -> None:
        words = solid(arguments[0]) if arguments else []
        if len(words) < 3 or words[1].word != "from":
            raise syntax(")")
        part = words[0].text.strip("'")
        at = next(index for index, token in enumerate(arguments[0]) if token.word == "from")
        self._put(f"{SCHEMA}.date_part('{part}', {_text(arguments[0][at + 1 :])})")


_SPECIAL: dict[str, Callable[[_Rewriting, list[list[Token]]], None]] = {
    "avg": _Rewriting._avg,
    "listagg": _Rewriting._listagg,
    "median": _Rewriting._median,
    "nvl2": _Rewriting._nvl2,
    "decode": _Rewriting._decode,
    "extract": _Rewriting._extract,
}


def _arguments(words: Sequence[Token]) -> list[list[Token]]:
    """What stands between the commas, each rewritten."""
    return [rewrite(part) for part in listed(words)]


def _text(words: Sequence[Token]) -> str:
    return "".join(token.text for token in words).strip()
