"""A model's fields as the query parameters of an address.

FastAPI reads such models itself, but looks through all annotations of the model anew for every request, which takes longer than a small answer does. Here the parameters
go to pydantic as they are; what is refused, and how, is the same.
"""

from __future__ import annotations

import typing
from typing import Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError


def in_address(model: type[BaseModel]) -> Any:
    """A dependency: the model, of a request's query parameters. One that is no list has the value given last. Raises RequestValidationError."""
    lists = {name for name, field in model.model_fields.items() if _is_list(field.annotation)}

    async def read(request: Request) -> BaseModel:
        values: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            if name in lists:
                values.setdefault(name, []).append(value)
            else:
                values[name] = value
        try:
            return model.model_validate(values)
        except ValidationError as problem:
            raise RequestValidationError([{**one, "loc": ("query", *one["loc"])} for one in problem.errors(include_url=False)]) from None

    return Depends(read)


def described(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a route whose address is read so: its `openapi_extra`."""
    schema = model.model_json_schema()
    required = schema.get("required", ())
    parameters = []
    for name, one in schema["properties"].items():
        shown = {key: value for key, value in one.items() if not (key == "default" and value is None)}
        parameters.append({"name": name, "in": "query", "required": name in required, "schema": shown, "description": one["description"]})
    return {"parameters": parameters}


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list or any(map(_is_list, typing.get_args(annotation)))
