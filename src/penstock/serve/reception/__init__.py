"""HTTP reception: events that are posted, judged by the kernels that judge them in a bolt, and appended to the log before they are answered for.

routes      a request: who posts, how much, in which form; and its answer
body        bytes to events, in the schema's format
examine     which events fit the schema, and what is stamped onto them
intake      group commit: all that wait for a dataset are examined and appended together
claims      which request has which idempotency key, in the table
trace       which events of a request the log holds
"""

from penstock.serve.reception.routes import add_reception

__all__ = ["add_reception"]
