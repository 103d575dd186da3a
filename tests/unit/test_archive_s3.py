"""The archive on S3: its settings, what boto3's errors mean, which requests it makes, and that what has no boto3 is told so."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import exceptions as boto

from penstock.archive import Entry
from penstock.archive.s3 import S3Archive, S3Settings
from penstock.archive.s3.problems import meaning
from penstock.configuration import settings_of
from penstock.deployment import Deployment
from penstock.errors import ConfigurationError, CorruptionError, InternalError, NotFoundError, PenstockError, UnavailableError
from penstock.model.units import instant

H = instant("2015-05-17T10")
SHARD = "0123456789abcdef-ads-00112233445566778899aabbccddeeff-0"


def entry(first: int, end: int, **changes: Any) -> Entry:
    return Entry(**{**vars(Entry("ads", H, f"ads/{first}", SHARD, first, end, 1, 10, "")), **changes})


@pytest.fixture
def archive(s3: dict[str, Any]) -> Iterator[S3Archive]:
    store = S3Archive(s3)
    yield store
    store.close()


# --- settings


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"buckt": "x"}, "did you mean bucket"),
        ({"bucket": "s3://a"}, "without s3://"),
        ({"bucket": "a/b"}, "prefix is for that"),
        ({"bucket": 5}, "bucket = 5"),
        ({"prefix": "a//b"}, "prefix"),
        ({"prefix": "../b"}, "prefix"),
        ({"prefix": "a b"}, "prefix"),
        ({"endpoint": "minio:9000"}, "endpoint"),
        ({"endpoint": "http://minio:9000/bucket"}, "endpoint"),
        ({"addressing": "auto"}, "path, virtual"),
        ({"encryption": "aes256"}, "AES256"),
        ({"kms_key": "k"}, "aws:kms"),
        ({"encryption": "AES256", "kms_key": "k"}, "aws:kms"),
        ({"access_key": "AKIA", "secret_key": {"env": "X"}}, "access_key is written out"),
        ({"access_key": {"env": "X"}}, "come together"),
        ({"session_token": {"env": "X"}}, "session_token"),
        ({"profile": "p", "access_key": {"env": "X"}, "secret_key": {"env": "X"}}, "profile"),
        ({"timeout": 0}, "timeout"),
        ({"attempts": True}, "attempts"),
        ({"attempts": 0}, "attempts"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused_by_name(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        S3Archive({"bucket": "detail", **wrong})


def test_a_bucket_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no bucket"):
        S3Archive({"prefix": "x"})
    (tmp_path / "penstock.toml").write_text('[prod]\nlocal = "d"\n[prod.s3]\nprefix = "x"\n')
    with pytest.raises(ConfigurationError, match="s3 says no bucket"):
        settings_of("prod", tmp_path / "penstock.toml")


def test_a_deployment_archives_to_its_bucket_and_needs_no_folder_for_it(tmp_path: Path, s3: dict[str, Any]) -> None:
    text = '[prod.kafka]\nbootstrap = "k:9092"\n[prod.hbase]\nhost = "h"\nport = 9090\n[prod.s3]\n'
    for name, value in s3.items():
        text += f"{name} = " + (f'{{env = "{value["env"]}"}}' if isinstance(value, dict) else f'"{value}"') + "\n"
    (tmp_path / "penstock.toml").write_text(text)
    with Deployment.named("prod", tmp_path / "penstock.toml") as named, Deployment.from_json(named.to_json()) as deployment:
        deployment.archive.write("ads/a", b"x")
        assert named.archive.read("ads/a") == b"x"
        assert "testing" not in named.to_json(), "no key travels"
    assert [path.name for path in tmp_path.iterdir()] == ["penstock.toml"]


def test_addresses_and_keys() -> None:
    assert S3Settings.read({"bucket": "detail", "prefix": "/a/b/"}).root == "a/b/"
    assert S3Settings.read({"bucket": "detail"}).root == "" and not S3Settings.read({"bucket": "detail"}).by_path
    assert S3Settings.read({"bucket": "detail", "endpoint": "http://minio:9000"}).by_path
    assert not S3Settings.read({"bucket": "detail", "endpoint": "http://minio:9000", "addressing": "virtual"}).by_path
    assert S3Archive({"bucket": "detail", "prefix": "a"}).location("ads/x") == "s3://detail/a/ads/x"


def test_without_boto3_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['boto3'] = sys.modules['botocore'] = None\n"
        "from penstock.archive.s3 import S3Archive\n"
        "try: S3Archive({'bucket': 'detail'}).read('ads/a')\n"
        "except Exception as problem: print(type(problem).__name__, problem)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("ConfigurationError") and "pip install 'penstock[s3]'" in said


# --- what errors mean


def answered(code: str, status: int, **more: Any) -> boto.ClientError:
    return boto.ClientError(
        {"Error": {"Code": code, "Message": "so it says", **more}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )


@pytest.mark.parametrize(
    "problem, path, kind, says",
    [
        (answered("NoSuchKey", 404), "ads/a", NotFoundError, "ads/a"),
        (answered("404", 404), "ads/a", NotFoundError, "ads/a"),
        (answered("404", 404), None, ConfigurationError, "no bucket 'detail'"),
        (answered("NoSuchBucket", 404), "ads/a", ConfigurationError, "aws s3 mb s3://detail"),
        (answered("SlowDown", 503), "ads/a", UnavailableError, "SlowDown"),
        (answered("InternalError", 500), "ads/a", UnavailableError, "ads/a"),
        (answered("502", 502), "ads/a", UnavailableError, "502"),
        (answered("RequestTimeout", 400), "ads/a", UnavailableError, "RequestTimeout"),
        (answered("ThrottlingException", 400), "ads/a", UnavailableError, "Throttl"),
        (answered("KMS.ThrottlingException", 400), "ads/a", UnavailableError, "KMS"),
        (answered("ConditionalRequestConflict", 409), "ads/a", UnavailableError, "Conflict"),
        (answered("KMS.DisabledException", 400), "ads/a", ConfigurationError, "kms_key"),
        (answered("AccessDenied", 403), "ads/a", ConfigurationError, "s3:PutObject"),
        (answered("InvalidAccessKeyId", 403), "ads/a", ConfigurationError, "credentials are refused"),
        (answered("ExpiredToken", 400), "ads/a", ConfigurationError, "credentials are refused"),
        (answered("RequestTimeTooSkewed", 403), "ads/a", ConfigurationError, "clock"),
        (answered("PermanentRedirect", 301), "ads/a", ConfigurationError, "another region"),
        (answered("AuthorizationHeaderMalformed", 400, Region="eu-west-1"), "ads/a", ConfigurationError, "eu-west-1"),
        (answered("EntityTooLarge", 400), "ads/a", ConfigurationError, "EntityTooLarge"),
        (boto.NoCredentialsError(), "ads/a", ConfigurationError, "AWS_ACCESS_KEY_ID"),
        (boto.CredentialRetrievalError(provider="iam", error_msg="no answer"), "ads/a", UnavailableError, "did not answer"),
        (boto.NoRegionError(), "ads/a", ConfigurationError, "region"),
        (boto.SSLError(endpoint_url="https://x", error="self signed"), "ads/a", ConfigurationError, "ca_file"),
        (boto.EndpointConnectionError(endpoint_url="https://x"), "ads/a", UnavailableError, "https://x"),
        (boto.ConnectTimeoutError(endpoint_url="https://x"), "ads/a", UnavailableError, "https://x"),
        (boto.ReadTimeoutError(endpoint_url="https://x"), "ads/a", UnavailableError, "https://x"),
        (boto.ConnectionClosedError(endpoint_url="https://x"), "ads/a", UnavailableError, "https://x"),
        (boto.ParamValidationError(report="Bucket"), "ads/a", InternalError, "Bucket"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, Exception) else "",
)
def test_errors_are_told_apart_and_name_the_fix(problem: Exception, path: str | None, kind: type[PenstockError], says: str) -> None:
    found = meaning(problem, S3Settings.read({"bucket": "detail"}), path)
    assert type(found) is kind and says in str(found)
    assert found.retriable == (kind is UnavailableError)


def test_a_bucket_that_is_not_there_is_said_by_every_call(s3: dict[str, Any], tmp_path: Path) -> None:
    archive = S3Archive({**s3, "bucket": "never-made"})
    (tmp_path / "f").write_bytes(b"x")
    calls: list[Callable[[], Any]] = [
        lambda: archive.write("a/b", b"x"),
        lambda: archive.write("a/b", b"x" * 40_000_000),
        lambda: archive.upload("a/b", tmp_path / "f"),
        lambda: archive.read("a/b"),
        lambda: archive.download("a/b", tmp_path / "g"),
        lambda: archive.add([entry(0, 1)]),
        lambda: archive.add([entry(0, 1), entry(1, 2)]),
        lambda: archive.entries("ads", H),
        lambda: archive.hours("ads"),
        lambda: archive.datasets(),
        lambda: list(archive.files("ads")),
        lambda: archive.drop([entry(0, 1)]),
        lambda: archive.remove(["a/b"]),
        lambda: archive.sweep(0),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="there is no bucket 'never-made'"):
            call()


def test_a_store_that_is_not_there_is_an_outage_within_a_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    archive = S3Archive({"bucket": "detail", "endpoint": f"http://127.0.0.1:{port}", "attempts": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        with pytest.raises(UnavailableError, match=str(port)):
            archive.read("ads/a")


def test_credentials_that_nobody_has_are_a_mistake_of_the_deployment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    archive = S3Archive({"bucket": "detail", "endpoint": "http://127.0.0.1:9"})
    for call in (lambda: archive.read("ads/a"), archive.filesystem):
        with pytest.raises(ConfigurationError, match="no credentials"):
            call()
    with pytest.raises(ConfigurationError, match="nobody"):
        S3Archive({"bucket": "detail", "profile": "nobody"}).read("ads/a")
    with pytest.raises(ConfigurationError, match="GONE_KEY"):
        S3Archive({"bucket": "detail", "access_key": {"env": "GONE_KEY"}, "secret_key": {"env": "GONE_KEY"}}).read("ads/a")


# --- requests


@pytest.fixture
def requests(archive: S3Archive) -> Counter[str]:
    """The requests that the archive makes, by operation."""
    made: Counter[str] = Counter()
    archive._client().meta.events.register("before-call.s3", lambda model, **_: made.update([model.name]))
    return made


def test_an_hour_costs_one_list_and_each_entry_one_get_ever(archive: S3Archive, requests: Counter[str]) -> None:
    archive.add([entry(n, n + 1) for n in range(20)])
    assert requests == {"PutObject": 20}
    for _ in range(3):
        assert len(archive.entries("ads", H)) == 20
    assert requests == {"PutObject": 20, "ListObjectsV2": 3, "GetObject": 20}
    archive.add([entry(20, 21)])
    assert len(archive.entries("ads", H)) == 21
    assert requests == {"PutObject": 21, "ListObjectsV2": 4, "GetObject": 21}


def test_an_hour_of_more_entries_than_a_page(archive: S3Archive) -> None:
    archive.add([entry(n, n + 1) for n in range(1203)])
    assert [e.first for e in archive.entries("ads", H)] == list(range(1203))
    assert len(list(archive.files("ads"))) == 0 and archive.hours("ads") == [H]


def test_an_entry_that_was_dropped_and_made_anew_is_read_anew(archive: S3Archive, s3: dict[str, Any]) -> None:
    archive.add([entry(0, 5)])
    assert [e.path for e in archive.entries("ads", H)] == ["ads/0"]
    other = S3Archive(s3)
    other.drop([entry(0, 5)])
    other.add([entry(0, 5, path="ads/another")])
    assert [e.path for e in archive.entries("ads", H)] == ["ads/another"]
    other.close()


def test_a_store_without_conditional_writes_is_asked_first(archive: S3Archive, requests: Counter[str]) -> None:
    """As some that speak S3 are: they answer 501 to If-None-Match."""
    archive._client()

    def refuse(request: Any, **_: Any) -> Any:
        if "If-None-Match" in request.headers:
            body = b"<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is not implemented</Message></Error>"
            from botocore.awsrequest import AWSResponse

            class Raw:
                def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
                    yield body

            return AWSResponse(request.url, 501, {"content-type": "application/xml"}, Raw())
        return None

    archive._client().meta.events.register("before-send.s3", refuse)
    archive.add([entry(0, 5, path="one"), entry(5, 6)])
    archive.add([entry(0, 5, path="two")])
    assert [e.path for e in archive.entries("ads", H)] == ["one", "ads/5"]
    assert requests["HeadObject"] >= 3


def test_an_entry_that_does_not_parse_is_corruption_that_names_it(archive: S3Archive, s3: dict[str, Any]) -> None:
    archive.add([entry(0, 5)])
    key = f"_index/ads/hour=2015-05-17T10/{SHARD}-5-6.json"
    archive._client().put_object(Bucket=s3["bucket"], Key=key, Body=b"{}")
    with pytest.raises(CorruptionError, match="-5-6.json"):
        archive.entries("ads", H)


@pytest.mark.parametrize("size", [10, 40_000_000])
@pytest.mark.parametrize("encryption, key", [("AES256", None), ("aws:kms", None), ("aws:kms", "arn:aws:kms:us-east-1:123456789012:key/k")])
def test_files_and_entries_are_encrypted_as_told(s3: dict[str, Any], size: int, encryption: str, key: str | None) -> None:
    archive = S3Archive({**s3, "encryption": encryption, **({"kms_key": key} if key else {})})
    archive.write("ads/a", b"x" * size)
    archive.add([entry(0, 5)])
    client = archive._client()
    keys = [one["Key"] for one in client.list_objects_v2(Bucket=s3["bucket"])["Contents"]]
    assert len(keys) == 2
    for name in keys:
        head = client.head_object(Bucket=s3["bucket"], Key=name)
        assert head["ServerSideEncryption"] == encryption and (key is None or head["SSEKMSKeyId"] == key)
    assert len(archive.read("ads/a")) == size
    archive.close()


def test_the_bucket_is_in_the_path_or_in_the_host(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both for real: a store that is told by its host, as AWS is, whose names all lead to this machine."""
    port = s3["endpoint"].rpartition(":")[2]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **named: real("127.0.0.1" if str(host).endswith("amazonaws.com") else host, *rest, **named),
    )
    hosts: list[tuple[str, str]] = []
    for addressing in ("path", "virtual"):
        archive = S3Archive({**s3, "endpoint": f"http://s3.us-east-1.amazonaws.com:{port}", "addressing": addressing})
        archive._client().meta.events.register("before-send.s3", lambda request, **_: hosts.append(tuple(request.url.split("/")[2:4])))  # type: ignore[arg-type]
        archive.write(f"ads/{addressing}", addressing.encode())
        archive.add([entry(0, 5)])
        assert archive.read(f"ads/{addressing}") == addressing.encode() and archive.hours("ads") == [H]
        archive.close()
    assert {host for host, _ in hosts} == {f"s3.us-east-1.amazonaws.com:{port}", f"{s3['bucket']}.s3.us-east-1.amazonaws.com:{port}"}
    plain = S3Archive(s3)
    assert sorted(file.path for file in plain.files("ads")) == ["ads/path", "ads/virtual"], "in the same bucket"
    plain.close()


def test_uploads_that_never_ended_are_swept(archive: S3Archive, s3: dict[str, Any]) -> None:
    client = boto3.client("s3", "us-east-1", endpoint_url=s3["endpoint"], aws_access_key_id="a", aws_secret_access_key="b")
    upload = client.create_multipart_upload(Bucket=s3["bucket"], Key="ads/half")["UploadId"]
    client.upload_part(Bucket=s3["bucket"], Key="ads/half", UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
    assert archive.sweep(instant("2010-01-01")) == 0  # moto says of every upload that it began in November 2010
    later = instant("2100-01-01")
    assert archive.sweep(later, dry_run=True) == 1 and archive.sweep(later) == 1 and archive.sweep(later) == 0
    assert "Uploads" not in client.list_multipart_uploads(Bucket=s3["bucket"])
    client.close()


def test_a_closed_archive_opens_again(archive: S3Archive) -> None:
    archive.add([entry(0, 5), entry(5, 6)])
    archive.close()
    assert len(archive.entries("ads", H)) == 2
