-- title: Audience by country and device
-- description: Who sees an advertiser's ads, or all of them: users, impressions, clicks and spend of each country and device.
-- parameter: from timestamp = today-7d; events from here on
-- parameter: to timestamp = now; and before this
-- parameter: advertiser int = null; of this advertiser alone
-- parameter: dataset table = ads; the table of events
SELECT
    country,
    device,
    COUNT(DISTINCT "user") AS users,
    COUNT(CASE WHEN "type" = 'impression' THEN 1 END) AS impressions,
    COUNT(CASE WHEN "type" = 'click' THEN 1 END) AS clicks,
    CAST(
        FLOOR(
            CAST(10000 * COUNT(CASE WHEN "type" = 'click' THEN 1 END) AS DOUBLE PRECISION)
            / NULLIF(COUNT(CASE WHEN "type" = 'impression' THEN 1 END), 0) + 0.5
        ) AS DECIMAL(18, 0)
    ) * 0.01 AS ctr_percent,
    CAST(COALESCE(SUM(cost), 0) AS DECIMAL(38, 6)) AS spend
FROM :dataset
WHERE ts >= :from AND ts < :to AND (CAST(:advertiser AS BIGINT) IS NULL OR advertiser = CAST(:advertiser AS BIGINT))
GROUP BY country, device
ORDER BY users DESC, country, device
