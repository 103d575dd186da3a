"""boto3's client for a bucket: made once a process, when it is first needed, with bounds on how long it tries."""

from __future__ import annotations

from typing import Any

from penstock.archive.s3.settings import S3Settings
from penstock.errors import ConfigurationError
from penstock.secrets import resolve

CONNECTIONS = 32  # of a client: more than the threads that use it at once


def new_session(settings: S3Settings) -> Any:
    """A boto3 session with the credentials that the settings tell, or else those that boto3 finds. Raises ConfigurationError."""
    try:
        from boto3.session import Session
        from botocore.exceptions import ProfileNotFound
    except ImportError:
        raise ConfigurationError("the archive on S3 needs boto3, which is not installed", hint="pip install 'penstock[s3]'") from None
    try:
        return Session(
            aws_access_key_id=resolve(settings.access_key),
            aws_secret_access_key=resolve(settings.secret_key),
            aws_session_token=resolve(settings.session_token),
            profile_name=settings.profile,
            region_name=settings.region,
        )
    except ProfileNotFound as problem:
        raise ConfigurationError(f"deployment, [s3]: {problem}", hint="profile names one of ~/.aws/config") from None


def new_client(session: Any, settings: S3Settings) -> Any:
    """A client that several threads may use. Touches no network."""
    from botocore.config import Config

    own = settings.endpoint is not None
    config = Config(
        signature_version="s3v4",
        connect_timeout=min(settings.timeout, 10.0),
        read_timeout=settings.timeout,
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        s3={"addressing_style": "path" if settings.by_path else "virtual"},
        # Checksums of AWS's own kind are beyond many of the stores that speak S3.
        request_checksum_calculation="when_required" if own else "when_supported",
        response_checksum_validation="when_required" if own else "when_supported",
    )
    region = session.region_name or ("us-east-1" if own else None)  # AWS itself is asked for no region that nobody named
    return session.client("s3", endpoint_url=settings.endpoint, region_name=region, config=config, verify=settings.ca_file)


def new_filesystem(session: Any, settings: S3Settings) -> Any:
    """A pyarrow filesystem of the bucket below the prefix, with the credentials that the session has now."""
    from pyarrow import fs

    credentials = session.get_credentials()
    if credentials is None:
        from botocore.exceptions import NoCredentialsError

        raise NoCredentialsError
    frozen = credentials.get_frozen_credentials()
    region = session.region_name or ("us-east-1" if settings.endpoint else None)
    try:
        region = region or fs.resolve_s3_region(settings.bucket)
    except OSError as problem:
        raise ConfigurationError(
            f"the region of bucket {settings.bucket!r} cannot be found out ({problem})", hint='write region = "eu-central-1" in [NAME.s3]'
        ) from problem
    told: dict[str, Any] = {"tls_ca_file_path": settings.ca_file} if settings.ca_file else {}
    filesystem = fs.S3FileSystem(
        access_key=frozen.access_key,
        secret_key=frozen.secret_key,
        session_token=frozen.token,
        region=region,
        endpoint_override=settings.endpoint,
        force_virtual_addressing=not settings.by_path,
        connect_timeout=min(settings.timeout, 10.0),
        request_timeout=settings.timeout,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=settings.attempts),
        **told,
    )
    return fs.SubTreeFileSystem(f"{settings.bucket}/{settings.root}", filesystem)
