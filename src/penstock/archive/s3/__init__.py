"""The archive in a bucket of S3, or of a store that speaks its protocol. Needs boto3: `pip install 'penstock[s3]'`."""

from penstock.archive.s3.settings import S3Settings
from penstock.archive.s3.store import S3Archive

__all__ = ["S3Archive", "S3Settings"]
