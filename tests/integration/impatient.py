"""advertiser_analytics with flushes so frequent that a kill hits one: what the kill test runs."""

from penstock import ArchiveBolt, KafkaSpout, RollupBolt, Topology
from penstock.topologies.advertiser_analytics import ads, by_advertiser


class AdvertiserAnalytics(Topology):
    live = KafkaSpout.spec(ads)
    rollups = RollupBolt.spec(live, [by_advertiser], flush="20ms")
    detail = KafkaSpout.spec(ads)
    archive = ArchiveBolt.spec(detail, flush="50ms")
