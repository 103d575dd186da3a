"""The query API's client: `Analytics.on("https://…", key=…)`, and the same for asyncio. Needs the extra `penstock[client]`."""

from penstock.client.remote import AsyncRemoteAnalytics, RemoteAnalytics

__all__ = ["AsyncRemoteAnalytics", "RemoteAnalytics"]
