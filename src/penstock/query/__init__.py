"""Reading roll-ups: a question in, exact numbers out, with how far they can be trusted."""

from penstock.query.analytics import Analytics, RollupInfo
from penstock.query.answer import Answer, Column
from penstock.query.render import FORMATS, render

__all__ = ["FORMATS", "Analytics", "Answer", "Column", "RollupInfo", "render"]
