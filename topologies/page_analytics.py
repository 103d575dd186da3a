"""What a site's owner sees of each page: views, bytes and visitors, by status and method. Runs on any web server's access log."""

from penstock import ArchiveBolt, By, Count, Int, KafkaSpout, Rollup, RollupBolt, Schema, String, Sum, Timestamp, Topology, Uniques

pages = Schema(
    "pages",
    time="ts",
    lateness="1d",
    key="path",
    fields={
        "ts": Timestamp("ms"),
        "ip": String(),
        "method": String(),
        "path": String(),
        "status": Int(),
        "bytes": Int(default=0, nullable=True),
        "referrer": String(nullable=True),
        "user_agent": String(nullable=True),
    },
)

traffic = Rollup(
    "traffic",
    of=pages,
    entity="path",
    measures={"views": Count(), "bytes": Sum("bytes"), "visitors": Uniques("ip")},
    by=[
        By(keep={"1m": "7d", "1h": "90d", "1d": "5y"}),
        By("status", keep={"1h": "90d", "1d": "5y"}),
        By("method", "status", keep={"1h": "90d", "1d": "5y"}),
    ],
)


class PageAnalytics(Topology):
    live = KafkaSpout.spec(pages)
    rollups = RollupBolt.spec(live, [traffic], flush="5s")
    detail = KafkaSpout.spec(pages)
    archive = ArchiveBolt.spec(detail)
