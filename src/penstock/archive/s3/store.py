"""The archive in a bucket.

Layout, below the deployment's prefix: files lie where `write` was told; the index is one small JSON object an entry,
`_index/<dataset>/hour=2015-05-17T10/<shard>-<first>-<next>.json`, as in a directory. S3 shows an object whole or not at all, and lists it as soon
as it is there, which is all that the index asks for. An hour costs one LIST (a thousand entries a page), and a GET for each entry that was not read
before: an object of the index never changes, and the ETags that a LIST gives tell if one was replaced all the same.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from penstock.archive import Entry, StoredFile
from penstock.archive.memory import check_entry, check_path, visible
from penstock.archive.s3 import client as making
from penstock.archive.s3.settings import S3Settings
from penstock.errors import CorruptionError, NotFoundError, PenstockError, UnavailableError
from penstock.model.units import from_datetime, hour_text, instant, to_datetime

MIB = 1 << 20
_LARGE = 32 * MIB  # what is larger is sent in parts
_PART = 16 * MIB  # of which S3 takes 10,000
_PARALLEL = 16  # requests at once, for many small objects
_READ_TRIES = 3  # an answer may break off in its middle, which botocore does not try again
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class S3Archive:
    """An `Archive` in a bucket, shared by threads and processes, on any machines. The bucket has to be there.

    settings: the table `s3` of a deployment. Nothing is asked of the network before the first call.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = S3Settings.read(settings)
        self._lock = threading.RLock()
        self._made: tuple[Any, Any] | None = None  # session and client
        self._pool: ThreadPoolExecutor | None = None
        self._filesystem: tuple[Any, Any] | None = None  # the credentials that it was made with, and it
        self._conditional = True  # whether the store knows If-None-Match; some that speak S3 do not
        self._entry = functools.lru_cache(maxsize=65536)(self._read_entry)

    def write(self, path: str, data: bytes) -> None:
        """See `Archive.write`. A large file is sent in parts, and there when all of them are."""
        key = self._key(check_path(path))
        if len(data) > _LARGE:
            self._call(path, lambda s3: self._send(s3, io.BytesIO(data), key))
        else:
            self._call(path, lambda s3: s3.put_object(Bucket=self.settings.bucket, Key=key, Body=data, **self._encryption()))

    def upload(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.upload`."""
        key = self._key(check_path(path))
        with open(file, "rb") as source:
            self._call(path, lambda s3: self._send(s3, source, key))

    def read(self, path: str) -> bytes:
        """See `Archive.read`."""
        key = self._key(check_path(path))
        return self._call(path, lambda s3: self._get(s3, key))

    def download(self, path: str, file: str | os.PathLike[str]) -> None:
        """See `Archive.download`."""
        key = self._key(check_path(path))
        with open(file, "wb") as target:

            def receive(s3: Any) -> None:
                target.seek(0)
                target.truncate()
                s3.download_fileobj(self.settings.bucket, key, target, Config=self._transfer())

            self._call(path, receive)

    def location(self, path: str) -> str:
        """See `Archive.location`: "s3://bucket/key"."""
        return f"s3://{self.settings.bucket}/{self._key(check_path(path))}"

    def filesystem(self) -> Any:
        """See `Archive.filesystem`: pyarrow's own client of S3, with boto3's credentials."""
        self._client()
        with self._lock:
            assert self._made is not None
            session = self._made[0]
            with self._errors(None):
                credentials = session.get_credentials()
                frozen = credentials.get_frozen_credentials() if credentials else None
                if self._filesystem is None or self._filesystem[0] != frozen:
                    self._filesystem = frozen, making.new_filesystem(session, self.settings)
            return self._filesystem[1]

    def add(self, entries: list[Entry]) -> None:
        """See `Archive.add`. Of many entries any may be there after a crash, each of them whole."""
        wanted: dict[str, Entry] = {}
        for entry in entries:
            wanted.setdefault(self._entry_key(check_entry(entry)), entry)  # the first of two for the same place
        self._each(list(wanted.items()), lambda item: self._add(*item))

    def _add(self, key: str, entry: Entry) -> None:
        """Put one entry into the index, unless there is one."""
        from penstock.archive.s3.problems import THERE, code_of

        body = json.dumps(entry.to_json(), sort_keys=True).encode()
        put: Callable[..., dict[str, Any]] = functools.partial(
            dict, Bucket=self.settings.bucket, Key=key, Body=body, ContentType="application/json", **self._encryption()
        )

        def add(s3: Any) -> None:
            if self._conditional:
                try:
                    s3.put_object(**put(IfNoneMatch="*"))
                    return
                except s3.exceptions.ClientError as problem:
                    if code_of(problem) in THERE:
                        return
                    if code_of(problem) not in ("NotImplemented", "501"):
                        raise
                    self._conditional = False
            # Two that add at once may both come through here. Then the later one stays: both name a file that holds all of the entry's offsets.
            if not self._is_there(s3, key):
                s3.put_object(**put())

        self._call(key.removeprefix(self.settings.root), add)

    def entries(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.entries`, and `visible`. Raises CorruptionError for an entry that does not parse."""
        return visible(self.index(dataset, hour))

    def index(self, dataset: str, hour: int) -> list[Entry]:
        """See `Archive.index`. Raises CorruptionError for an entry that does not parse."""
        listed = [(one["Key"], one["ETag"]) for one in self._list(self._hour_key(dataset, hour)) if one["Key"].endswith(".json")]
        return [entry for entry in self._each(listed, self._entry_or_none) if entry is not None]

    def hours(self, dataset: str) -> list[int]:
        """See `Archive.hours`."""
        return sorted(instant(name[5:]) for name in self._folders(f"_index/{check_path(dataset)}/") if name.startswith("hour="))

    def datasets(self) -> list[str]:
        """See `Archive.datasets`."""
        return sorted(self._folders("_index/"))

    def files(self, folder: str) -> Iterator[StoredFile]:
        """See `Archive.files`, in order."""
        for one in self._list(self._key(check_path(folder)) + "/"):
            yield StoredFile(one["Key"].removeprefix(self.settings.root), one["Size"], from_datetime(one["LastModified"]))

    def drop(self, entries: list[Entry]) -> None:
        """See `Archive.drop`."""
        self._each([self._entry_key(check_entry(entry)) for entry in entries], self._delete)

    def remove(self, paths: list[str]) -> None:
        """See `Archive.remove`. In a bucket with versions, older ones stay until its life cycle removes them."""
        self._each([self._key(check_path(path)) for path in paths], self._delete)

    def sweep(self, before: int, *, dry_run: bool = False) -> int:
        """See `Archive.sweep`: uploads in parts."""
        moment = to_datetime(before)

        def abort(s3: Any) -> int:
            pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.settings.bucket, Prefix=self.settings.root)
            old = [one for page in pages for one in page.get("Uploads", ()) if one["Initiated"] < moment]
            for one in () if dry_run else old:
                s3.abort_multipart_upload(Bucket=self.settings.bucket, Key=one["Key"], UploadId=one["UploadId"])
            return len(old)

        return self._call(None, abort)

    def close(self) -> None:
        """See `Archive.close`."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown()
            if self._made is not None:
                self._made[1].close()
            self._pool = self._made = self._filesystem = None
            self._entry.cache_clear()

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                session = making.new_session(self.settings)
                with self._errors(None):
                    self._made = session, making.new_client(session, self.settings)
            return self._made[1]

    def _call(self, path: str | None, make: Callable[[Any], Answer]) -> Answer:
        """A call with the client, whose errors are ours. path: of the file that it is about."""
        s3 = self._client()
        with self._errors(path):
            return make(s3)

    @contextlib.contextmanager
    def _errors(self, path: str | None) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from penstock.archive.s3.problems import meaning

        try:
            yield
        except PenstockError:
            raise
        except (BotoCoreError, ClientError, HTTPClientError) as problem:
            raise meaning(problem, self.settings, path) from problem
        except Boto3Error as problem:  # boto3 wraps those of an upload in parts in one of its own
            inner = problem.__cause__ or problem.__context__
            raise meaning(inner if isinstance(inner, (BotoCoreError, ClientError)) else problem, self.settings, path) from problem

    def _each(self, items: list[Item], work: Callable[[Item], Answer]) -> list[Answer]:
        """Do something for many objects, side by side. All come to their end before the first error is raised."""
        if len(items) < 2:
            return [work(item) for item in items]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="penstock-s3")
            pool = self._pool
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                future.exception()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]

    def _send(self, s3: Any, source: Any, key: str) -> None:
        s3.upload_fileobj(source, self.settings.bucket, key, ExtraArgs=self._encryption(), Config=self._transfer())

    def _get(self, s3: Any, key: str) -> bytes:
        """An object whole. Tried again where the answer breaks off in its middle."""
        from botocore.exceptions import BotoCoreError

        for left in reversed(range(_READ_TRIES)):
            body = s3.get_object(Bucket=self.settings.bucket, Key=key)["Body"]
            try:
                return bytes(body.read())
            except (BotoCoreError, OSError) as problem:
                if not left:
                    raise UnavailableError(f"s3://{self.settings.bucket}/{key}: the answer breaks off ({problem})") from problem
            finally:
                body.close()
        raise AssertionError

    def _is_there(self, s3: Any, key: str) -> bool:
        from penstock.archive.s3.problems import MISSING, code_of

        try:
            s3.head_object(Bucket=self.settings.bucket, Key=key)
        except s3.exceptions.ClientError as problem:
            if code_of(problem) in MISSING:
                return False
            raise
        return True

    def _delete(self, key: str) -> None:
        self._call(key.removeprefix(self.settings.root), lambda s3: s3.delete_object(Bucket=self.settings.bucket, Key=key))

    def _list(self, prefix: str) -> Iterator[dict[str, Any]]:
        """The objects whose keys begin so, in order; a page at a time."""
        s3 = self._client()
        with self._errors(None):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket, Prefix=prefix):
                yield from page.get("Contents", ())

    def _folders(self, path: str) -> list[str]:
        """The names of what is folders below one."""
        prefix = self._key(path)

        def found(s3: Any) -> list[str]:
            pages: Iterable[Any] = s3.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket, Prefix=prefix, Delimiter="/")
            return [one["Prefix"][len(prefix) : -1] for page in pages for one in page.get("CommonPrefixes", ())]

        return self._call(None, found)

    def _key(self, path: str) -> str:
        return self.settings.root + path

    def _hour_key(self, dataset: str, hour: int) -> str:
        return self._key(f"_index/{check_path(dataset)}/hour={hour_text(hour)}/")

    def _entry_key(self, entry: Entry) -> str:
        return f"{self._hour_key(entry.dataset, entry.hour)}{check_path(entry.shard)}-{entry.first}-{entry.next}.json"

    def _entry_or_none(self, listed: tuple[str, str]) -> Entry | None:
        """An entry that was listed; None where it has been dropped since."""
        try:
            return self._entry(*listed)
        except NotFoundError:
            return None

    def _read_entry(self, key: str, etag: str) -> Entry:
        """The entry in an object of the index. etag: the object's, so that one that replaces it is read anew."""
        text = self._call(key.removeprefix(self.settings.root), lambda s3: self._get(s3, key))
        try:
            return check_entry(Entry(**json.loads(text)))
        except (ValueError, TypeError) as problem:
            raise CorruptionError(
                f"the index entry s3://{self.settings.bucket}/{key} does not parse ({problem})",
                hint="restore it, or rebuild the hour from the log",
            ) from problem

    def _encryption(self) -> dict[str, str]:
        told = {"ServerSideEncryption": self.settings.encryption, "SSEKMSKeyId": self.settings.kms_key}
        return {name: value for name, value in told.items() if value}

    def _transfer(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(multipart_threshold=_LARGE, multipart_chunksize=_PART, max_concurrency=4, preferred_transfer_client="classic")
