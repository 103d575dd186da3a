-- title: New versus returning
-- description: Of each day's users, how many were never seen before, and how many came back.
-- parameter: from timestamp = today-7d; days from here on
-- parameter: to timestamp = now; and before this
-- parameter: since timestamp = 1970-01-01; what happened before this does not count as having been seen
-- parameter: advertiser int = null; of this advertiser alone
-- parameter: dataset table = ads; the table of events
WITH events AS (
    SELECT "user" AS who, CAST(DATE_TRUNC('day', ts) AS DATE) AS day, COUNT(*) AS events
    FROM :dataset
    WHERE ts >= :since AND ts < :to AND (CAST(:advertiser AS BIGINT) IS NULL OR advertiser = CAST(:advertiser AS BIGINT))
    GROUP BY 1, 2
),
firsts AS (
    SELECT who, MIN(day) AS first_day
    FROM events
    GROUP BY who
)
SELECT
    e.day,
    COUNT(*) AS users,
    COUNT(CASE WHEN e.day = f.first_day THEN 1 END) AS new_users,
    COUNT(CASE WHEN e.day > f.first_day THEN 1 END) AS returning_users,
    CAST(SUM(e.events) AS BIGINT) AS events,
    CAST(SUM(CASE WHEN e.day = f.first_day THEN e.events ELSE 0 END) AS BIGINT) AS events_of_new_users
FROM events e
JOIN firsts f ON f.who = e.who
WHERE e.day >= CAST(:from AS DATE)
GROUP BY e.day
ORDER BY e.day
