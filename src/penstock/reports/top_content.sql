-- title: Top content
-- description: The pages that were viewed most, with visitors, bytes, answers that were errors, and their share of all views.
-- parameter: from timestamp = today-7d; views from here on
-- parameter: to timestamp = now; and before this
-- parameter: top int = 20; how many pages
-- parameter: dataset table = pages; the table of page views
WITH totals AS (
    SELECT
        path,
        COUNT(*) AS views,
        COUNT(DISTINCT ip) AS visitors,
        CAST(COALESCE(SUM(bytes), 0) AS BIGINT) AS bytes,
        COUNT(CASE WHEN status >= 400 THEN 1 END) AS errors,
        CAST(SUM(COUNT(*)) OVER () AS DOUBLE PRECISION) AS all_views
    FROM :dataset
    WHERE ts >= :from AND ts < :to
    GROUP BY path
)
SELECT
    path, views, visitors, bytes, errors,
    CAST(FLOOR(CAST(10000 * views AS DOUBLE PRECISION) / all_views + 0.5) AS DECIMAL(18, 0)) * 0.01 AS share_percent
FROM totals
ORDER BY views DESC, path
LIMIT :top
