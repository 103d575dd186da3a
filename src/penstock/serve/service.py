"""What the routes of a server share."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Iterator

from penstock.errors import PenstockError
from penstock.serve.access import Access, Gate
from penstock.serve.audit import Audit
from penstock.serve.catalog import Catalog
from penstock.serve.engine import Engine
from penstock.serve.keys import KeyStore
from penstock.serve.limits import RateLimits
from penstock.serve.problems import Problem, problem_of
from penstock.serve.settings import ServeSettings, signing_secret
from penstock.serve.tokens import Tokens

if TYPE_CHECKING:
    from penstock.deployment import Deployment

Lifespan = Callable[[], contextlib.AbstractAsyncContextManager[None]]


class Service:
    """A deployment that is served: its stores, its settings, who may do what, and what is kept in memory.

    Parts of the server (reception, dashboard) register here what they need beyond routes: `bodies[PATH PREFIX] = bytes`, a limit of their own for what is posted
    there, `cors.add(PATH PREFIX)` where they answer browsers' preflights themselves, `get_only.add(PATTERN)` for the paths whose GET has no HEAD, and
    `lifespans.append(FUNCTION)`, an async context manager that is entered when the server starts and left when it stops.

    Raises ConfigurationError for settings that cannot work.
    """

    def __init__(self, deployment: Deployment, settings: ServeSettings | None = None) -> None:
        self.deployment = deployment
        self.settings = settings = settings or ServeSettings.of(deployment)
        self.now = deployment.now
        self.keys = KeyStore(lambda: deployment.table, self.now, settings.refresh)
        self.tokens = Tokens(signing_secret(settings, deployment.directory), settings.audience)
        self.rates = RateLimits()
        self.audit = Audit(self._audit_place(), self.now)
        self.gate = Gate(
            self.keys, self.tokens, self.rates, self.audit, self.now, rate=settings.rate, minimum_audience=settings.minimum_audience
        )
        self.catalog = Catalog(lambda: deployment.table, self.now)
        self.engine = Engine(deployment, settings.threads, settings.cache, settings.lag / 1e6, settings.rows)
        self.bodies: dict[str, int] = {}
        self.cors: set[str] = set()
        self.get_only: set[str] = set()
        self.lifespans: list[Lifespan] = []
        self.stopping = False  # set when the server is told to stop: whoever streams ends

    def _audit_place(self) -> str:
        if self.settings.audit is not None:
            return self.settings.audit
        return "" if self.deployment.directory is None else str(self.deployment.directory / "serve" / "audit.jsonl")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What the parts do while the server runs, in the order of their registration."""
        async with contextlib.AsyncExitStack() as stack:
            for enter in self.lifespans:
                await stack.enter_async_context(enter())
            gc.collect()
            gc.freeze()  # what is there by now stays: collections need not look through it while somebody waits for an answer
            yield

    @contextlib.contextmanager
    def audited(self, action: str, access: Access, **what: Any) -> Iterator[dict[str, Any]]:
        """Write a line of the audit log for what is done in the block, with how it ended. what: roll-up, entity and the like, which the block may change."""
        outcome = "cancelled"
        try:
            yield what
            outcome = "ok"
        except Problem as problem:
            outcome = problem.kind
            raise
        except PenstockError as error:
            outcome = problem_of(error).kind
            raise
        except Exception:
            outcome = Problem(500, "").kind
            raise
        finally:
            self.audit.record(action, outcome, key=access.key.id, via=access.via, **what)

    def close(self) -> None:
        """Let go of what was opened here. The deployment is its owner's to close."""
        self.audit.close()


__all__ = ["Access", "Lifespan", "Service"]
