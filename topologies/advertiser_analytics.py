"""What an advertiser sees: impressions, clicks, saves, conversions, spend and reach, by minute, country, device and campaign."""

from penstock import (
    ArchiveBolt,
    By,
    Count,
    Decimal,
    Enum,
    Int,
    KafkaSpout,
    Ratio,
    Rollup,
    RollupBolt,
    Schema,
    String,
    Sum,
    Timestamp,
    Topology,
    Uniques,
)

ads = Schema(
    "ads",
    time="ts",
    lateness="1d",
    key="advertiser",
    fields={
        "ts": Timestamp("ms"),
        "event_id": String(),
        "advertiser": Int(path="advertiser_id"),
        "user": Int(path="user_id"),
        "type": Enum("impression", "click", "save", "conversion"),
        "campaign": Int(path="campaign_id"),
        "country": String(default="??"),
        "device": String(default="??"),
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
        "saves": Count(where={"type": "save"}),
        "conversions": Count(where={"type": "conversion"}),
        "spend": Sum("cost"),
        "reach": Uniques("user"),
        "ctr": Ratio("clicks", "impressions"),
        "cost_per_click": Ratio("spend", "clicks"),
    },
    by=[
        By(keep={"1m": "3d", "1h": "90d", "1d": "5y"}),
        By("country", keep={"1h": "90d", "1d": "5y"}),
        By("device", keep={"1h": "90d", "1d": "5y"}),
        By("campaign", "country", keep={"1d": "5y"}),
    ],
)


class AdvertiserAnalytics(Topology):
    live = KafkaSpout.spec(ads)
    rollups = RollupBolt.spec(live, [by_advertiser], flush="5s")
    detail = KafkaSpout.spec(ads)
    archive = ArchiveBolt.spec(detail)
