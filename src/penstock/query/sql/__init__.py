"""SQL over live roll-ups, archived detail and the warehouse, joined in one statement; and reports kept as files."""

from penstock.query.sql.reading import MAX_READ, CancelledError
from penstock.query.sql.session import SqlSession
from penstock.query.sql.statements import split

__all__ = ["MAX_READ", "CancelledError", "SqlSession", "split"]
