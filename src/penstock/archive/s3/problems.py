"""What the errors of boto3 mean: a file that is not there, a mistake of the user, a bug of ours, or an outage."""

from __future__ import annotations

from typing import Any

from botocore import exceptions as boto
from penstock.archive.s3.settings import S3Settings
from penstock.errors import ConfigurationError, InternalError, NotFoundError, PenstockError, UnavailableError

MISSING = ("NoSuchKey", "NotFound", "404")
THERE = ("PreconditionFailed", "412")
_OUTAGES = (
    "SlowDown",
    "Throttl",
    "RequestLimitExceeded",
    "RequestTimeout",
    "Busy",
    "InternalError",
    "ServiceUnavailable",
    "BadDigest",
    "Conflict",
)
_STATUSES = (408, 409, 425, 429)
_REFUSED = "the credentials that boto3 finds need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there (docs/s3.md)"
_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.UnauthorizedSSOTokenError,
    boto.TokenRetrievalError,
)


def code_of(problem: BaseException) -> str:
    """The code that the store answered with: "NoSuchKey"; "" if it did not answer."""
    return str(problem.response.get("Error", {}).get("Code", "")) if isinstance(problem, boto.ClientError) else ""


def meaning(problem: Exception, settings: S3Settings, path: str | None) -> PenstockError:
    """The error to raise for one of boto3's. path: of the file that the call was about."""
    about = f"s3://{settings.bucket}/{settings.root}{path or ''}"
    if isinstance(problem, boto.ClientError):
        return _answered(problem, settings, about, path)
    if isinstance(problem, _CREDENTIALS):
        return ConfigurationError(
            f"{about}: there are no credentials that can be used ({problem})",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role wherever this runs, or access_key and secret_key in [NAME.s3]",
        )
    if isinstance(problem, boto.NoRegionError):
        return ConfigurationError(
            f"{about}: no region is set", hint='write region = "eu-central-1" in [NAME.s3], or set AWS_DEFAULT_REGION'
        )
    if isinstance(problem, boto.SSLError):
        return ConfigurationError(
            f"{about}: the store's certificate is not trusted ({problem})", hint="ca_file in [NAME.s3] names the certificates to hold it to"
        )
    if isinstance(problem, boto.ParamValidationError):
        return InternalError(f"{about}: boto3 refuses the call: {problem}")
    if isinstance(problem, (boto.InvalidRegionError, boto.InvalidProxiesConfigError, boto.UnknownEndpointError)):
        return ConfigurationError(f"{about}: {problem}", hint="see region and endpoint in [NAME.s3]")
    return UnavailableError(f"{about}: the store did not answer ({problem or type(problem).__name__})", hint=_reach(settings))


def _answered(problem: Any, settings: S3Settings, about: str, path: str | None) -> PenstockError:
    """The error for an answer that the store gave."""
    code = code_of(problem)
    status = int(problem.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = str(problem.response.get("Error", {}).get("Message", "")) or code
    if code == "NoSuchBucket" or (code in MISSING and path is None):
        return ConfigurationError(
            f"there is no bucket {settings.bucket!r}" + (f" at {settings.endpoint}" if settings.endpoint else ""),
            hint=f"create it (aws s3 mb s3://{settings.bucket}), or name another one in [NAME.s3]",
        )
    if code in MISSING:
        return NotFoundError(f"the archive at s3://{settings.bucket}/{settings.root} has no file {path}")
    if code.startswith("KMS.") and "Throttl" not in code:
        return ConfigurationError(
            f"{about}: {text} ({code})", hint="see kms_key in [NAME.s3]; the credentials need kms:GenerateDataKey and kms:Decrypt"
        )
    if status >= 500 or status in _STATUSES or any(one in code for one in _OUTAGES):
        return UnavailableError(f"{about}: the store answers {code}: {text}")
    if status in (301, 307) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        region = problem.response.get("Error", {}).get("Region")
        return ConfigurationError(
            f"bucket {settings.bucket!r} is in another region" + (f": {region}" if region else f" ({text})"),
            hint="write its region in [NAME.s3]",
        )
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return ConfigurationError(f"{about}: {text}", hint="this machine's clock is wrong: have it set by NTP")
    if code in (
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "TokenRefreshRequired",
    ):
        return ConfigurationError(
            f"{about}: the credentials are refused: {text} ({code})", hint="see which ones are used: aws sts get-caller-identity"
        )
    if status in (401, 403):
        return ConfigurationError(f"{about}: access is refused: {text} ({code})", hint=_REFUSED)
    return ConfigurationError(
        f"{about}: the store refuses the request: {text} ({code}, status {status})", hint="see [NAME.s3] (docs/s3.md)"
    )


def _reach(settings: S3Settings) -> str | None:
    return f"endpoint in [NAME.s3] is {settings.endpoint}" if settings.endpoint else None
