"""The OpenAPI document and what the server does are held to one another: no 5xx, no answer that is not documented."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serve_world import OURS, Served

from penstock.serve.docs import openapi_document

EXAMPLES = int(os.environ.get("PENSTOCK_EXAMPLES", "15"))  # of each operation


def wrong_is_refused(context: Any, response: Any, case: schemathesis.Case) -> bool | None:
    """As schemathesis' own, which takes what is too large for accepted."""
    return None if response.status_code in (413, 414) else negative_data_rejection(context, response, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    wrong_is_refused,
    unsupported_method,
    ignored_auth,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("openapi"), 400, rate=1_000_000_000)
    yield made
    made.close()


def test_the_document_is_openapi_3_1(served: Served) -> None:
    document = openapi_document(served.app)
    assert document["openapi"].startswith("3.1")
    validate(document)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), f"{method} {path} says nothing of itself"
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], f"{method} {path} {status}"


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_nothing_is_answered_that_is_not_documented(served: Served, mode: GenerationMode) -> None:
    """PENSTOCK_EXAMPLES requests for each operation, as its document has them or not quite so. (Not by schemathesis' own pytest marks, which need an older pytest.)"""
    described = schemathesis.openapi.from_asgi("/openapi.json", served.app).exclude(
        path_regex="/live$"
    )  # it does not end; see test_serve_server
    headers, tried = {"Authorization": f"Bearer {served.key(OURS)}"}, 0
    for found in described.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers, checks=CHECKS)

        try:
            check()
        except Unsatisfiable:  # there is nothing in it that could be wrong
            assert mode is GenerationMode.NEGATIVE
            continue
        tried += 1
    assert tried >= (10 if mode is GenerationMode.POSITIVE else 5)
