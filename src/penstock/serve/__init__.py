"""HTTP: the query API, reception, and the dashboard. Needs the extra `penstock[serve]`."""
