"""The objects that a COPY reads: from a manifest or below a prefix."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from typing import IO, Any

from penstock.stack.redshift.copying import Copy
from penstock.stack.redshift.problems import Problem, missing


@dataclass(frozen=True)
class Place:
    """Where S3 is. endpoint: None for Amazon's own. The keys are boto3's to find."""

    endpoint: str | None = None
    region: str = "us-east-1"


@dataclass(frozen=True)
class Object:
    """An object of S3. size: what the manifest says; None if it says nothing."""

    bucket: str
    key: str
    mandatory: bool = True
    size: int | None = None

    @property
    def url(self) -> str:
        """Its name."""
        return f"s3://{self.bucket}/{self.key}"


class Objects:
    """S3, as COPY sees it."""

    def __init__(self, place: Place) -> None:
        import boto3  # type: ignore[import-untyped,unused-ignore]
        from botocore.config import Config  # type: ignore[import-untyped,unused-ignore]

        self._client: Any = boto3.client(
            "s3",
            endpoint_url=place.endpoint,
            region_name=place.region,
            config=Config(
                s3={"addressing_style": "path" if place.endpoint else "auto"},
                connect_timeout=10,
                read_timeout=60,
                retries={"max_attempts": 4, "mode": "standard"},
            ),
        )

    def of(self, copy: Copy, query: int) -> list[Object]:
        """The objects that a COPY names, in order. Raises Problem."""
        if "manifest" in copy.options:
            return self._manifest(copy, query)
        found = [
            Object(copy.bucket, item["Key"], size=item["Size"])
            for page in self._pages(copy, query)
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")
        ]
        if not found:
            raise missing(f"prefix '{copy.key}'", query)
        return found

    def open(self, wanted: Object, query: int) -> IO[bytes] | None:
        """All of an object, to be closed after use; None if it is not there and need not be. Raises Problem."""
        spool = tempfile.TemporaryFile()
        try:
            self._client.download_fileobj(wanted.bucket, wanted.key, spool)
        except Exception as problem:
            spool.close()
            code = _code(problem)
            if code in ("404", "NoSuchKey", "NoSuchBucket"):
                if not wanted.mandatory:
                    return None
                raise missing(f"object '{wanted.url}'", query) from None
            raise _refused(problem, wanted.url, query) from None
        size = spool.tell()
        if wanted.size is not None and wanted.size != size:
            spool.close()
            raise Problem(
                f"The content_length of {wanted.url} in the manifest is {wanted.size}, and the object has {size} bytes",
                detail=f"query: {query}",
            )
        spool.seek(0)
        return spool

    def _manifest(self, copy: Copy, query: int) -> list[Object]:
        try:
            data = json.loads(self._client.get_object(Bucket=copy.bucket, Key=copy.key)["Body"].read())
        except ValueError as problem:
            raise Problem(f"Manifest file {copy.url} is not in correct json format", detail=f"{problem}; query: {query}") from None
        except Exception as problem:
            if _code(problem) in ("404", "NoSuchKey", "NoSuchBucket"):
                raise missing(f"object '{copy.url}'", query) from None
            raise _refused(problem, copy.url, query) from None
        entries = data.get("entries") if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries:
            raise Problem(f"Manifest file {copy.url} contains no entries")
        return [self._entry(entry, copy) for entry in entries]

    @staticmethod
    def _entry(entry: Any, copy: Copy) -> Object:
        url = entry.get("url") if isinstance(entry, dict) else None
        bucket, slash, key = url[5:].partition("/") if isinstance(url, str) and url.startswith("s3://") else ("", "", "")
        if not (bucket and slash and key):
            raise Problem(f"Invalid S3 URL {url!r} in the manifest {copy.url}")
        size = (entry.get("meta") or {}).get("content_length")
        if copy.columnar and not isinstance(size, int):
            raise Problem(f"The manifest {copy.url} has no meta.content_length for {url}, which COPY from columnar files needs")
        return Object(bucket, key, bool(entry.get("mandatory", False)), size if isinstance(size, int) else None)

    def _pages(self, copy: Copy, query: int) -> list[Any]:
        try:
            return list(self._client.get_paginator("list_objects_v2").paginate(Bucket=copy.bucket, Prefix=copy.key))
        except Exception as problem:
            if _code(problem) in ("404", "NoSuchBucket"):
                raise missing(f"bucket '{copy.bucket}'", query) from None
            raise _refused(problem, copy.url, query) from None


def _code(problem: Exception) -> str:
    """What S3 called an error; else the error's own name."""
    answer = getattr(problem, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else type(problem).__name__


def _refused(problem: Exception, url: str, query: int) -> Problem:
    return Problem(f"S3ServiceException:{problem},Status {_code(problem)}", detail=f"reading {url}; query: {query}")
