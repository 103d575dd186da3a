"""Sending events to a Penstock server, from any program: batched, compressed, spooled, sent again until they are answered for, and taken once.

from penstock.sender import Sender

with Sender("https://analytics.example", "ads", key=os.environ["PENSTOCK_KEY"], spool="/var/spool/shop") as sender:
    sender.send({"ts": 1767225600000, "event_id": "a1", "advertiser_id": 1001, "user_id": 7, "type": "click", "campaign_id": 3})
"""

from penstock.sender.sender import RefusedError, Sender, SpoolFullError

__all__ = ["RefusedError", "Sender", "SpoolFullError"]
