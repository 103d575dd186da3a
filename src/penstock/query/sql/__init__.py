"""SQL over live roll-ups, archived detail and the warehouse, joined in one statement; and reports kept as files."""

from penstock.query.sql.session import CancelledError, SqlSession
from penstock.query.sql.statements import split

__all__ = ["CancelledError", "SqlSession", "split"]
