-- title: Pacing and spend
-- description: An advertiser's spend hour by hour against a budget that is spent evenly; hours without events have no row.
-- parameter: advertiser int; the advertiser
-- parameter: budget decimal; what is to be spent from `from` to `to`
-- parameter: from timestamp = today; where the budget begins, on a whole hour
-- parameter: to timestamp = today+1d; and where it ends
-- parameter: dataset table = ads; the table of events
WITH hourly AS (
    SELECT
        DATE_TRUNC('hour', ts) AS hour,
        COUNT(CASE WHEN "type" = 'impression' THEN 1 END) AS impressions,
        COUNT(CASE WHEN "type" = 'click' THEN 1 END) AS clicks,
        CAST(COALESCE(SUM(cost), 0) AS DECIMAL(38, 6)) AS spend,
        COALESCE(SUM(CAST(cost * 1000000 AS BIGINT)), 0) AS millionths
    FROM :dataset
    WHERE ts >= :from AND ts < :to AND advertiser = :advertiser
    GROUP BY 1
),
running AS (
    SELECT
        hour, impressions, clicks, spend,
        CAST(SUM(spend) OVER (ORDER BY hour ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS DECIMAL(38, 6)) AS spent,
        CAST(SUM(millionths) OVER (ORDER BY hour ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS DOUBLE PRECISION) AS spent_millionths,
        FLOOR(
            CAST(:budget AS DOUBLE PRECISION) * 1000000
            * CAST(LEAST(EXTRACT(EPOCH FROM hour) + 3600, EXTRACT(EPOCH FROM :to)) - EXTRACT(EPOCH FROM :from) AS DOUBLE PRECISION)
            / CAST(EXTRACT(EPOCH FROM :to) - EXTRACT(EPOCH FROM :from) AS DOUBLE PRECISION) + 0.5
        ) AS planned_millionths
    FROM hourly
)
SELECT
    hour, impressions, clicks, spend, spent,
    CAST(planned_millionths AS DECIMAL(18, 0)) * 0.000001 AS planned,
    CAST(FLOOR(10000 * spent_millionths / NULLIF(planned_millionths, 0) + 0.5) AS DECIMAL(18, 0)) * 0.01 AS pace_percent
FROM running
ORDER BY hour
