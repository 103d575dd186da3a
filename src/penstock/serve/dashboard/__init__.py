"""The dashboard: a page on which a business reads its own numbers. It asks the query API as any other client would."""

from __future__ import annotations

from penstock.serve.dashboard.pages import add_dashboard

__all__ = ["add_dashboard"]
