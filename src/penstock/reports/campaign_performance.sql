-- title: Campaign performance by day
-- description: What each campaign brought on each day: events by type, spend, reach, and what they come to.
-- parameter: from timestamp = today-7d; events from here on
-- parameter: to timestamp = now; and before this
-- parameter: advertiser int = null; of this advertiser alone
-- parameter: dataset table = ads; the table of events
WITH totals AS (
    SELECT
        CAST(DATE_TRUNC('day', ts) AS DATE) AS day,
        advertiser,
        campaign,
        COUNT(CASE WHEN "type" = 'impression' THEN 1 END) AS impressions,
        COUNT(CASE WHEN "type" = 'click' THEN 1 END) AS clicks,
        COUNT(CASE WHEN "type" = 'save' THEN 1 END) AS saves,
        COUNT(CASE WHEN "type" = 'conversion' THEN 1 END) AS conversions,
        COUNT(DISTINCT "user") AS reach,
        CAST(COALESCE(SUM(cost), 0) AS DECIMAL(38, 6)) AS spend,
        CAST(SUM(CAST(cost * 1000000 AS BIGINT)) AS DOUBLE PRECISION) AS millionths
    FROM :dataset
    WHERE ts >= :from AND ts < :to AND (CAST(:advertiser AS BIGINT) IS NULL OR advertiser = CAST(:advertiser AS BIGINT))
    GROUP BY 1, 2, 3
)
SELECT
    day, advertiser, campaign, impressions, clicks, saves, conversions, reach, spend,
    CAST(FLOOR(CAST(10000 * clicks AS DOUBLE PRECISION) / NULLIF(impressions, 0) + 0.5) AS DECIMAL(18, 0)) * 0.01 AS ctr_percent,
    CAST(FLOOR(millionths / NULLIF(clicks, 0) + 0.5) AS DECIMAL(18, 0)) * 0.000001 AS cost_per_click,
    CAST(FLOOR(millionths / NULLIF(conversions, 0) + 0.5) AS DECIMAL(18, 0)) * 0.000001 AS cost_per_conversion
FROM totals
ORDER BY day, advertiser, campaign
