-- What Redshift has and PostgreSQL has not, in a schema of its own. `rewriting` adds that schema to the names. Run once a database.

CREATE SCHEMA redshift;
GRANT USAGE ON SCHEMA redshift TO PUBLIC;

CREATE DOMAIN redshift.super AS jsonb;

-- System tables -----------------------------------------------------------------------------------------------------------------------------

CREATE TABLE redshift.load_errors (
    query bigint, pid int, xid bigint, tbl oid, at timestamp DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'), file text, line bigint, col text,
    kind text, length int, position int, raw_line text, raw_value text, code int, reason text
);
CREATE TABLE redshift.queries (query bigint, pid int, xid bigint, sql text, began timestamp, ended timestamp, failed boolean);

CREATE VIEW redshift.stl_load_errors AS
SELECT 100 AS userid, 0 AS slice, tbl::int AS tbl, at AS starttime, pid AS session, query::int AS query, file::char(256) AS filename,
       line AS line_number, col::char(127) AS colname, left(kind, 10)::char(10) AS type, coalesce(length::text, '')::char(10) AS col_length, position,
       left(raw_line, 1024)::char(1024) AS raw_line, left(raw_value, 1024)::char(1024) AS raw_field_value, code AS err_code,
       left(reason, 100)::char(100) AS err_reason, 0 AS is_partial, 0::bigint AS start_offset
FROM redshift.load_errors;

CREATE VIEW redshift.sys_load_error_detail AS
SELECT 100 AS user_id, query AS query_id, xid AS transaction_id, pid AS session_id, current_database()::char(64) AS database_name, tbl::int AS table_id,
       at AS start_time, file::char(256) AS file_name, line AS line_number, col::char(127) AS column_name, left(kind, 10)::char(10) AS column_type,
       coalesce(length::text, '')::char(10) AS column_length, position, code AS error_code, left(reason, 512)::char(512) AS error_message
FROM redshift.load_errors;

CREATE VIEW redshift.stl_query AS
SELECT 100 AS userid, query::int AS query, 'default'::char(320) AS label, xid, pid, current_database()::char(32) AS database, left(sql, 4000)::char(4000) AS querytxt,
       began AS starttime, ended AS endtime, failed::int AS aborted FROM redshift.queries;

CREATE VIEW redshift.sys_query_history AS
SELECT 100 AS user_id, query AS query_id, xid AS transaction_id, pid AS session_id, upper(split_part(ltrim(sql), ' ', 1))::varchar(32) AS query_type,
       CASE WHEN failed THEN 'failed' ELSE 'success' END::varchar(10) AS status, current_database()::char(128) AS database_name,
       left(sql, 4000)::varchar(4000) AS query_text, began AS start_time, ended AS end_time,
       (extract(epoch FROM ended - began) * 1000000)::bigint AS elapsed_time FROM redshift.queries;

CREATE VIEW redshift.stv_sessions AS
SELECT backend_start AT TIME ZONE 'UTC' AS starttime, pid AS process, usename::char(50) AS user_name, datname::char(50) AS db_name
FROM pg_stat_activity WHERE backend_type = 'client backend';

CREATE FUNCTION redshift.keys(oid) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN obj_description($1, 'pg_class') LIKE '{"diststyle"%' THEN obj_description($1, 'pg_class')::jsonb ELSE '{}'::jsonb END
$$;

CREATE FUNCTION redshift.type_name(oid, int) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN t.oid = 'redshift.super'::regtype THEN 'super' WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod)
                ELSE format_type($1, $2) END FROM pg_type t WHERE t.oid = $1
$$;

CREATE FUNCTION redshift.rows_of(oid) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
DECLARE found numeric;
BEGIN
    EXECUTE format('SELECT count(*) FROM %s', $1::regclass) INTO found;
    RETURN found;
END $$;

CREATE VIEW redshift.pg_table_def AS
SELECT n.nspname AS schemaname, c.relname AS tablename, a.attname AS "column", redshift.type_name(a.atttypid, a.atttypmod) AS type, 'none'::char(32) AS encoding,
       coalesce(redshift.keys(c.oid)->>'distkey' = a.attname, false) AS distkey,
       coalesce((SELECT k.at::int FROM jsonb_array_elements_text(redshift.keys(c.oid)->'sortkey') WITH ORDINALITY k(col, at) WHERE k.col = a.attname), 0) AS sortkey,
       a.attnotnull AS "notnull"
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND pg_table_is_visible(c.oid) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'redshift')
ORDER BY 1, 2, a.attnum;

CREATE VIEW redshift.svv_all_tables AS
SELECT current_database()::varchar(128) AS database_name, n.nspname::varchar(128) AS schema_name, c.relname::varchar(128) AS table_name, NULL::varchar AS table_acl,
       CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END::varchar(128) AS table_type, ''::varchar AS remarks
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'redshift');

CREATE VIEW redshift.svv_tables AS
SELECT database_name AS table_catalog, schema_name AS table_schema, table_name, table_type, remarks FROM redshift.svv_all_tables;

CREATE VIEW redshift.svv_all_columns AS
SELECT current_database()::varchar(128) AS database_name, n.nspname::varchar(128) AS schema_name, c.relname::varchar(128) AS table_name, a.attname::varchar(128) AS column_name,
       a.attnum::int AS ordinal_position, CASE WHEN a.attnotnull THEN 'NO' ELSE 'YES' END::varchar(3) AS is_nullable,
       split_part(redshift.type_name(a.atttypid, a.atttypmod), '(', 1)::varchar(128) AS data_type,
       substring(redshift.type_name(a.atttypid, a.atttypmod) FROM 'character[^(]*\((\d+)\)')::int AS character_maximum_length,
       substring(redshift.type_name(a.atttypid, a.atttypmod) FROM 'numeric\((\d+)')::int AS numeric_precision,
       substring(redshift.type_name(a.atttypid, a.atttypmod) FROM 'numeric\(\d+,(\d+)')::int AS numeric_scale
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'redshift');

CREATE VIEW redshift.svv_columns AS
SELECT database_name AS table_catalog, schema_name AS table_schema, table_name, column_name, ordinal_position, is_nullable, data_type, character_maximum_length,
       numeric_precision, numeric_scale FROM redshift.svv_all_columns;

CREATE VIEW redshift.svv_table_info AS
SELECT current_database()::varchar AS database, n.nspname::varchar AS schema, c.oid::int AS table_id, c.relname::varchar AS "table", 'N'::varchar AS encoded,
       coalesce(redshift.keys(c.oid)->>'diststyle', 'AUTO(ALL)')::varchar AS diststyle, coalesce(redshift.keys(c.oid)->'sortkey'->>0, 'AUTO(SORTKEY)')::varchar AS sortkey1,
       jsonb_array_length(coalesce(redshift.keys(c.oid)->'sortkey', '[]')) AS sortkey_num, pg_relation_size(c.oid) / 1048576 AS size,
       redshift.rows_of(c.oid) AS tbl_rows, 0::numeric AS unsorted, 0::numeric AS stats_off
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'redshift') AND redshift.rows_of(c.oid) > 0;

CREATE FUNCTION redshift.pg_last_copy_id() RETURNS int LANGUAGE sql AS $$ SELECT coalesce(nullif(current_setting('redshift.last_copy_id', true), ''), '-1')::int $$;
CREATE FUNCTION redshift.pg_last_copy_count() RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce(nullif(current_setting('redshift.last_copy_count', true), ''), '0')::bigint $$;

-- Functions ---------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION redshift.version() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'PostgreSQL 8.0.2 on x86_64-pc-linux-gnu, Redshift 1.0.0 (the stand-in of Penstock)'::text $$;
CREATE FUNCTION redshift.getdate() RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT date_trunc('second', statement_timestamp() AT TIME ZONE 'UTC') $$;
CREATE FUNCTION redshift.sysdate() RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT transaction_timestamp() AT TIME ZONE 'UTC' $$;

CREATE FUNCTION redshift.part(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN p IN ('y', 'yr', 'yrs', 'years') THEN 'year' WHEN p IN ('qtr', 'qtrs', 'quarters') THEN 'quarter' WHEN p IN ('mon', 'mons', 'months') THEN 'month'
        WHEN p IN ('w', 'weeks') THEN 'week' WHEN p IN ('d', 'days') THEN 'day' WHEN p IN ('h', 'hr', 'hrs', 'hours') THEN 'hour'
        WHEN p IN ('m', 'min', 'mins', 'minutes') THEN 'minute' WHEN p IN ('s', 'sec', 'secs', 'seconds') THEN 'second'
        WHEN p IN ('ms', 'msec', 'msecs', 'milliseconds') THEN 'millisecond' WHEN p IN ('us', 'usec', 'usecs', 'microseconds') THEN 'microsecond'
        WHEN p IN ('dayofweek', 'dw', 'weekday') THEN 'dow' WHEN p IN ('dayofyear', 'dy', 'yearday') THEN 'doy' ELSE p END
    FROM (SELECT lower($1) AS p) q $$;

-- How many boundaries of the unit lie between two times.
CREATE FUNCTION redshift.datediff(text, timestamp, timestamp) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE redshift.part($1)
        WHEN 'year' THEN extract(year FROM $3) - extract(year FROM $2)
        WHEN 'quarter' THEN (extract(year FROM $3) - extract(year FROM $2)) * 4 + extract(quarter FROM $3) - extract(quarter FROM $2)
        WHEN 'month' THEN (extract(year FROM $3) - extract(year FROM $2)) * 12 + extract(month FROM $3) - extract(month FROM $2)
        WHEN 'week' THEN (date_trunc('week', $3 + interval '1 day')::date - date_trunc('week', $2 + interval '1 day')::date) / 7
        WHEN 'day' THEN $3::date - $2::date
        WHEN 'hour' THEN extract(epoch FROM date_trunc('hour', $3) - date_trunc('hour', $2)) / 3600
        WHEN 'minute' THEN extract(epoch FROM date_trunc('minute', $3) - date_trunc('minute', $2)) / 60
        WHEN 'second' THEN extract(epoch FROM date_trunc('second', $3) - date_trunc('second', $2))
        WHEN 'millisecond' THEN extract(epoch FROM date_trunc('milliseconds', $3) - date_trunc('milliseconds', $2)) * 1000
        WHEN 'microsecond' THEN extract(epoch FROM $3 - $2) * 1000000
    END::bigint $$;

CREATE FUNCTION redshift.dateadd(text, bigint, timestamp) RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE redshift.part($1) WHEN 'quarter' THEN $3 + $2 * 3 * interval '1 month' ELSE $3 + $2 * ('1 ' || redshift.part($1))::interval END $$;

CREATE FUNCTION redshift.date_part(text, timestamp) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE redshift.part($1) WHEN 'millisecond' THEN extract(milliseconds FROM $2)::int % 1000 WHEN 'microsecond' THEN extract(microseconds FROM $2)::int % 1000000
                ELSE floor(pg_catalog.date_part(redshift.part($1), $2))::int END $$;
CREATE FUNCTION redshift.date_part(text, timestamptz) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT redshift.date_part($1, $2 AT TIME ZONE 'UTC') $$;
CREATE FUNCTION redshift.date_part(text, date) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT redshift.date_part($1, $2::timestamp) $$;

CREATE FUNCTION redshift.date_trunc(text, timestamp) RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.date_trunc(redshift.part($1), $2) $$;
CREATE FUNCTION redshift.date_trunc(text, date) RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.date_trunc(redshift.part($1), $2::timestamp) $$;
CREATE FUNCTION redshift.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.date_trunc(redshift.part($1), $2, 'UTC') $$;

CREATE FUNCTION redshift.convert_timezone(text, text, timestamp) RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT $3 AT TIME ZONE $1 AT TIME ZONE $2 $$;
CREATE FUNCTION redshift.convert_timezone(text, timestamp) RETURNS timestamp LANGUAGE sql STABLE AS $$ SELECT $2 AT TIME ZONE 'UTC' AT TIME ZONE $1 $$;
CREATE FUNCTION redshift.add_months(timestamp, int) RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN $1 = date_trunc('month', $1) + interval '1 month' - interval '1 day' + ($1 - date_trunc('day', $1))
           THEN date_trunc('month', $1) + ($2 + 1) * interval '1 month' - interval '1 day' + ($1 - date_trunc('day', $1)) ELSE $1 + $2 * interval '1 month' END $$;
CREATE FUNCTION redshift.last_day(timestamp) RETURNS date LANGUAGE sql IMMUTABLE AS $$ SELECT (date_trunc('month', $1) + interval '1 month' - interval '1 day')::date $$;
CREATE FUNCTION redshift.trunc(timestamp) RETURNS date LANGUAGE sql IMMUTABLE AS $$ SELECT $1::date $$;
CREATE FUNCTION redshift.trunc(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1) $$;
CREATE FUNCTION redshift.trunc(numeric, int) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1, $2) $$;
CREATE FUNCTION redshift.trunc(double precision) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1) $$;
CREATE FUNCTION redshift.round(numeric, int DEFAULT 0) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.round($1, $2) $$;
CREATE FUNCTION redshift.round(double precision) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.round($1::numeric)::float8 $$;
CREATE FUNCTION redshift.round(double precision, int) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.round($1::numeric, $2)::float8 $$;

CREATE FUNCTION redshift.charindex(text, text) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT strpos($2, $1) $$;
CREATE FUNCTION redshift.json_parse(text) RETURNS redshift.super LANGUAGE sql IMMUTABLE AS $$ SELECT $1::jsonb::redshift.super $$;
CREATE FUNCTION redshift.json_serialize(redshift.super) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1::text $$;
CREATE FUNCTION redshift.json_extract_path_text(text, VARIADIC text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(($1::json) #>> $2, '') $$;
CREATE FUNCTION redshift.is_valid_json(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN json_typeof($1::json) IN ('object', 'array');
EXCEPTION WHEN OTHERS THEN RETURN false;
END $$;

-- AVG keeps the kind of its argument: of integers it is an integer. The second argument says what kind that was.
CREATE FUNCTION redshift.avg_of(numeric, bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1)::bigint $$;
CREATE FUNCTION redshift.avg_of(numeric, int) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1)::bigint $$;
CREATE FUNCTION redshift.avg_of(numeric, smallint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1)::bigint $$;
CREATE FUNCTION redshift.avg_of(numeric, numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.trunc($1, scale($2)) $$;
CREATE FUNCTION redshift.avg_of(double precision, double precision) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
CREATE FUNCTION redshift.avg_of(double precision, real) RETURNS double precision LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
CREATE FUNCTION redshift.avg_of(interval, interval) RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
