"""streamparse's hooks: `sparse submit` calls `pre_submit` before it submits a topology."""

from penstock.storm.sparse import pre_submit

__all__ = ["pre_submit"]
