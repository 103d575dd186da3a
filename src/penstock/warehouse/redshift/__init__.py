"""The warehouse in Amazon Redshift. redshift-connector is imported with the first connection: `penstock[redshift]` brings it."""

from penstock.warehouse.redshift.load import STEPS
from penstock.warehouse.redshift.settings import Settings
from penstock.warehouse.redshift.store import RedshiftWarehouse

__all__ = ["STEPS", "RedshiftWarehouse", "Settings"]
