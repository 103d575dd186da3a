"""The ASGI application of `penstock serve`."""

from __future__ import annotations

import contextlib
from typing import Any, AsyncIterator, Callable, Collection, Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

import penstock
from penstock.serve.dashboard import add_dashboard
from penstock.serve.docs import add_docs
from penstock.serve.headers import SafeHeaders
from penstock.serve.limits import ASGIApp, SizeLimits
from penstock.serve.methods import Methods
from penstock.serve.problems import add_problems
from penstock.serve.reception import add_reception
from penstock.serve.routes import add_api
from penstock.serve.service import Service

Part = Callable[[FastAPI, Service], None]

# What a server is made of. A part adds its routes to the application; see Service for what else it may register.
PARTS: tuple[Part, ...] = (
    add_reception,
    add_docs,
    add_api,
    add_dashboard,
)  # the first is the first to be asked: reception has the most requests

DESCRIPTION = """Measures of roll-ups, exact and with all that says how far they can be trusted: `as_of`, completeness, error bounds.

Send a key, or a token made of one: `Authorization: Bearer pk_…`. What a key reaches is its own: `/v1/me`. Errors are RFC 9457 problem details that name
the `parameter` to mend and give a `hint`. Times are ISO 8601. HEAD answers as GET does, without the body, but for live streams and the pixel."""


class Cors(CORSMiddleware):
    """Answers browsers for all parts but those that do so themselves. but: the beginnings of their paths."""

    def __init__(self, app: ASGIApp, *, but: Collection[str], **options: Any) -> None:
        super().__init__(app, **options)
        self._but = tuple(but)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        own = scope["type"] == "http" and scope["path"].startswith(self._but)
        await (self.app if own else super().__call__)(scope, receive, send)


def create_app(service: Service, parts: Sequence[Part] = PARTS) -> FastAPI:
    """The application that serves a deployment."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Penstock",
        version=penstock.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    add_problems(app)
    for part in parts:
        part(app, service)
    middle: list[tuple[Any, dict[str, Any]]] = [
        (GZipMiddleware, {"minimum_size": 1024, "compresslevel": 5}),
        (SizeLimits, {"max_url": service.settings.max_url, "default": service.settings.max_body, "bodies": service.bodies}),
        (SafeHeaders, {"embedders": service.settings.embedders}),
    ]
    if service.settings.origins:
        expose = ["ETag", "Retry-After", "Penstock-As-Of", "Penstock-Complete"]
        cors = {
            "allow_origins": service.settings.origins,
            "allow_methods": ["GET", "HEAD", "POST"],
            "allow_headers": ["Authorization", "Content-Type"],
        }
        middle.append((Cors, {**cors, "expose_headers": expose, "max_age": 600, "but": service.cors}))
    middle.append((Methods, {"routes": app.routes, "get_only": service.get_only}))  # the outermost: what GET's answer has, HEAD's has
    for kind, options in middle:
        app.add_middleware(kind, **options)
    return app
