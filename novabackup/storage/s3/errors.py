"""What went wrong on the way to an S3 server: whether it passes by itself, what it means, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

import aiohttp
import botocore.exceptions  # type: ignore[import-untyped]
import botocore.parsers  # type: ignore[import-untyped]

from novabackup.errors import ArchivedError, ConfigurationError, NovaBackupError, causes
from novabackup.storage.generic import named

_BROKEN = (
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.IncompleteReadError,
    botocore.parsers.ResponseParserError,
)
_TIMED_OUT = (
    TimeoutError,
    botocore.exceptions.ConnectTimeoutError,
    botocore.exceptions.ReadTimeoutError,
)
_NO_CREDENTIALS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
)
_NO_LOGIN = (botocore.exceptions.SSOError, botocore.exceptions.TokenRetrievalError)

_PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
_PASSING = frozenset(
    {
        "BadDigest",  # other bytes arrived there than were sent
        "BandwidthLimitExceeded",
        "InternalError",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "XAmzContentSHA256Mismatch",
    }
)
"""Codes of answers that a later attempt may not get, whatever status they come with."""

_ADVICE = {
    "ExpiredToken": "the session has expired. Log in again, or get a new session token",
    "ExpiredTokenException": "the session has expired. Log in again, or get a new session token",
    "TokenRefreshRequired": "the session has expired. Log in again, or get a new session token",
    "InvalidToken": "the session token is not valid. Get a new one; a key of a user's own goes without a token",
    "InvalidAccessKeyId": "the server does not know this access key. Look at the key, and at whether it is meant for "
    "this server (endpoint_url)",
    "SignatureDoesNotMatch": "the secret does not belong to the access key. Look at the secret; if it is right, at a "
    "proxy that changes requests",
    "RequestTimeTooSkewed": "the clock of this host differs too much from the server's. Set it (NTP), then try again",
    "AuthorizationHeaderMalformed": "the region is not the bucket's. Pass "
    "storage_options={'client_kwargs': {'region_name': …}}, or set AWS_DEFAULT_REGION",
    "IllegalLocationConstraintException": "the region is not the bucket's. Pass "
    "storage_options={'client_kwargs': {'region_name': …}}, or set AWS_DEFAULT_REGION",
    "InvalidStorageClass": "the server has no such storage class",
    "KMS.DisabledException": "the KMS key is disabled. Enable it, or name another SSEKMSKeyId",
    "KMS.NotFoundException": "there is no such KMS key. Look at SSEKMSKeyId, and at its region",
}
"""What to do about answers, by their codes."""
_NO_MATTER_OF_RIGHTS = frozenset({"InvalidStorageClass", "KMS.DisabledException", "KMS.NotFoundException"})

_PERMISSIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CopyObject": "s3:GetObject and s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "GetObject": "s3:GetObject",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "HeadObject": "s3:GetObject and, for objects that may be missing, s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "PutObjectRetention": "s3:PutObjectRetention",
    "RestoreObject": "s3:RestoreObject",
    "UploadPart": "s3:PutObject",
}
"""What a policy has to allow for each request."""


class RefusedError(OSError):
    """An answer of the server that a caller in this package handles."""

    status = 0


def passes(error: BaseException) -> bool:
    """Return whether a later attempt may succeed: throttling, a fault of the server, a broken connection."""
    answer = _answer(error)
    if answer:
        return _status(answer) in _PASSING_STATUS or _code(answer) in _PASSING
    return isinstance(error, _BROKEN) and "CERTIFICATE_VERIFY_FAILED" not in str(error)


def wanted_pause(error: BaseException) -> float:
    """Return the seconds that the server asks to be left alone for; 0 if it says nothing."""
    said = _answer(error).get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", "")
    return float(said) if said.isdecimal() else 0.0


def explained(error: Exception, url: str, place: str, tried: str) -> Exception:
    """Say of an error where it happened, what it means, and what to do.

    Args:
        error: What was raised on the way.
        url: Of the object.
        place: URL of the storage.
        tried: How often, for people; may be empty.

    Returns:
        What to raise in its place.
    """
    answer = _answer(error)
    if answer:
        return _refusal(error, answer, url, tried)
    if isinstance(error, _TIMED_OUT):
        return TimeoutError(errno.ETIMEDOUT, f"{error or 'the server does not answer'}{tried}", url)
    if isinstance(error, _BROKEN):
        return ConnectionError(errno.ECONNABORTED, f"{error or type(error).__name__}{tried}", url)
    if isinstance(error, botocore.exceptions.BotoCoreError | ValueError) and not isinstance(error, NovaBackupError):
        return ConfigurationError(f"{place}: {_unsent(error)}")
    return named(error, url) if isinstance(error, OSError) else error


def _unsent(error: Exception) -> str:
    """Return why a request could not even be sent."""
    if isinstance(error, _NO_LOGIN):
        return (
            f"the login has expired or was never made ({error}). Run `aws sso login` with the profile in use, then try "
            "again"
        )
    if isinstance(error, botocore.exceptions.ProfileNotFound):
        return (
            f"{error}. Profiles are looked for in ~/.aws/config and ~/.aws/credentials, or where AWS_CONFIG_FILE and "
            "AWS_SHARED_CREDENTIALS_FILE say: mend the name in storage_options or AWS_PROFILE"
        )
    if isinstance(error, _NO_CREDENTIALS):
        return (
            f"found no usable credentials ({error}). Looked in storage_options (key, secret, token, profile), the "
            "AWS_* environment variables, the files in ~/.aws and the metadata of container and instance. Pass "
            "storage_options={'key': …, 'secret': …}, or {'anon': True} for what is public"
        )
    return f"the request cannot be made: {error}"


def _refusal(error: Exception, answer: Mapping[str, Any], url: str, tried: str) -> Exception:
    """Say what the server's answer means, by its code and status and not by what s3fs made of it."""
    status, code = _status(answer), _code(answer)
    text = str(answer.get("Error", {}).get("Message") or error)
    said = text if code in text or code.isdecimal() else f"{code}: {text}"
    if status == 404:
        missing = "there is no such bucket. Create it, or mend the URL" if code == "NoSuchBucket" else ""
        return FileNotFoundError(errno.ENOENT, missing or os.strerror(errno.ENOENT), url)
    if code == "InvalidObjectState":
        archive = answer.get("Error", {}).get("StorageClass") or "an archive"
        return ArchivedError(
            f"{url}: it lies in {archive} and cannot be read before it has been thawed. Call thaw() on a snapshot that "
            "needs it, and try again when that is done"
        )
    if status in (401, 403) or code in _ADVICE:
        need = _PERMISSIONS.get(_operation(error), "")
        refusal = f"the server refuses; this needs {need}" if need else "the server refuses"
        number = errno.EINVAL if code in _NO_MATTER_OF_RIGHTS else errno.EACCES
        return OSError(number, f"{_ADVICE.get(code, refusal)} ({said})", url)
    if status in (409, 412, 416, 501):
        refused = RefusedError(errno.ENOSYS if status == 501 else errno.EIO, said, url)
        refused.status = status
        return refused
    number = (error.errno if isinstance(error, OSError) else None) or errno.EIO
    return OSError(number, f"{said}{tried}", url)


def _client_error(error: BaseException | None) -> BaseException | None:
    """Find what botocore raised among the causes of what s3fs raised."""
    return next((one for one in causes(error) if isinstance(one, botocore.exceptions.ClientError)), None)


def _answer(error: BaseException) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(_client_error(error), "response", None) or {}
    return found


def _operation(error: BaseException) -> str:
    return str(getattr(_client_error(error), "operation_name", ""))


def _status(answer: Mapping[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(answer: Mapping[str, Any]) -> str:
    return str(answer.get("Error", {}).get("Code", ""))
