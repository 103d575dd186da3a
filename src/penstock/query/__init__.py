"""Reading roll-ups: a question in, exact numbers out, with how far they can be trusted."""

from penstock.query.analytics import Analytics, RollupInfo
from penstock.query.answer import Answer, Column, Previous, Ranking, Suppressed
from penstock.query.asynchronous import AsyncAnalytics
from penstock.query.cached import CachedAnalytics, CacheStats
from penstock.query.render import FORMATS, render
from penstock.query.saved import SavedQueries, SavedQuery
from penstock.query.trends import Trend

__all__ = [
    "FORMATS",
    "Analytics",
    "Answer",
    "AsyncAnalytics",
    "CacheStats",
    "CachedAnalytics",
    "Column",
    "Previous",
    "Ranking",
    "RollupInfo",
    "SavedQueries",
    "SavedQuery",
    "Suppressed",
    "Trend",
    "render",
]
