"""What `query-30d` asks about: ad events, a roll-up of them, and the topology that computes it."""

from __future__ import annotations

from penstock import ArchiveBolt, By, Count, Decimal, Enum, Int, KafkaSpout, Ratio, Rollup, RollupBolt, Schema, Sum, Timestamp, Topology
from penstock.log.generate import TYPES

ads = Schema(
    "ads",
    time="ts",
    lateness="1d",
    key="advertiser",
    fields={
        "ts": Timestamp("ms"),
        "advertiser": Int(path="advertiser_id"),
        "user": Int(path="user_id"),
        "type": Enum(*TYPES),
        "campaign": Int(path="campaign_id"),
        "cost": Decimal(6, nullable=True),
    },
)
by_advertiser = Rollup(
    "by_advertiser",
    of=ads,
    entity="advertiser",
    measures={
        "impressions": Count(where={"type": "impression"}),
        "clicks": Count(where={"type": "click"}),
        "spend": Sum("cost"),
        "ctr": Ratio("clicks", "impressions"),
    },
    by=[By(keep={"1m": "60d", "1h": "90d", "1d": "5y"})],
)


class Queried(Topology):
    """Minutes, hours and days of each advertiser, and the detail."""

    live = KafkaSpout.spec(ads)
    rollups = RollupBolt.spec(live, [by_advertiser], flush="5s")
    detail = KafkaSpout.spec(ads)
    archive = ArchiveBolt.spec(detail)
