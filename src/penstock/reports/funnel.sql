-- title: Funnel: impression, click, conversion
-- description: Of the users who saw a campaign, how many clicked on it afterwards, and how many of those converted after that.
-- parameter: from timestamp = today-7d; events from here on
-- parameter: to timestamp = now; and before this
-- parameter: advertiser int = null; of this advertiser alone
-- parameter: dataset table = ads; the table of events
WITH events AS (
    SELECT advertiser, campaign, "user" AS who, "type" AS kind, ts
    FROM :dataset
    WHERE ts >= :from AND ts < :to AND (CAST(:advertiser AS BIGINT) IS NULL OR advertiser = CAST(:advertiser AS BIGINT))
),
saw AS (
    SELECT advertiser, campaign, who, MIN(ts) AS at
    FROM events
    WHERE kind = 'impression'
    GROUP BY advertiser, campaign, who
),
clicked AS (
    SELECT s.advertiser, s.campaign, s.who, MIN(e.ts) AS at
    FROM saw s
    JOIN events e ON e.advertiser = s.advertiser AND e.campaign = s.campaign AND e.who = s.who
    WHERE e.kind = 'click' AND e.ts >= s.at
    GROUP BY s.advertiser, s.campaign, s.who
),
converted AS (
    SELECT c.advertiser, c.campaign, c.who, MIN(e.ts) AS at
    FROM clicked c
    JOIN events e ON e.advertiser = c.advertiser AND e.campaign = c.campaign AND e.who = c.who
    WHERE e.kind = 'conversion' AND e.ts >= c.at
    GROUP BY c.advertiser, c.campaign, c.who
),
steps AS (
    SELECT s.advertiser, s.campaign, COUNT(s.who) AS saw, COUNT(c.who) AS clicked, COUNT(v.who) AS converted
    FROM saw s
    LEFT JOIN clicked c ON c.advertiser = s.advertiser AND c.campaign = s.campaign AND c.who = s.who
    LEFT JOIN converted v ON v.advertiser = s.advertiser AND v.campaign = s.campaign AND v.who = s.who
    GROUP BY s.advertiser, s.campaign
)
SELECT
    advertiser, campaign, saw, clicked, converted,
    CAST(FLOOR(CAST(10000 * clicked AS DOUBLE PRECISION) / saw + 0.5) AS DECIMAL(18, 0)) * 0.01 AS clicked_percent,
    CAST(FLOOR(CAST(10000 * converted AS DOUBLE PRECISION) / NULLIF(clicked, 0) + 0.5) AS DECIMAL(18, 0)) * 0.01 AS converted_percent
FROM steps
ORDER BY saw DESC, advertiser, campaign
