"""One module a deployable topology."""
