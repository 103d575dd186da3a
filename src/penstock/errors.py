"""Every error that Penstock raises on purpose.

One base class. `UsageError` marks what the user can mend (a declaration, an argument, a path): the command line prints its message
and its hint, and no traceback. `retriable` tells retry logic whether trying the same call again can help, so that the logic asks the
error and not a list of types. The built-in type that fits best stays a second base, so that `except ValueError` still works.
"""

from __future__ import annotations


class PenstockError(Exception):
    """Base of all errors. `hint` names the fix, where there is one."""

    retriable = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(PenstockError):
    """A mistake that the user can mend."""


class DeclarationError(UsageError, ValueError):
    """A schema, roll-up or topology that cannot work. Raised at import, naming the field and the fix."""


class ConfigurationError(UsageError, ValueError):
    """A deployment, a path or a setting that cannot work."""


class QueryError(UsageError, ValueError):
    """A question that the roll-ups cannot answer, naming the parameter."""


class NotFoundError(UsageError, LookupError):
    """A topic, roll-up, dataset or topology that is not there."""


class AccessError(UsageError, PermissionError):
    """A key that a server does not know, or that does not reach what was asked."""


class CorruptionError(PenstockError):
    """Stored bytes fail their checksum or do not parse. Never retried, never guessed around."""


class OutOfRangeError(PenstockError, LookupError):
    """A read at an offset that the log does not have."""


class UnavailableError(PenstockError, ConnectionError):
    """A store did not answer. The call may have taken effect or not: the caller has to find out or to repeat what is idempotent."""

    retriable = True


class LoadError(PenstockError):
    """An hour could not be loaded into the warehouse; nothing of it was."""


class InternalError(PenstockError, AssertionError):
    """A bug of ours: an invariant of the exactly-once protocol does not hold."""
