"""The embedded stack: a real S3 server and a real Prefect server below one folder."""

from fedcore.local.isolation import isolation_table
from fedcore.local.stack import Stack

__all__ = ["Stack", "isolation_table"]
