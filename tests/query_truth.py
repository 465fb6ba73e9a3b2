"""Compares answers of `/v1/query` with what DuckDB computes from the same events.

    python tests/query_truth.py URL GROUP FILE [RANDOM]

FILE is the group as NDJSON, as `GET /v1/groups/{group}/events` gives it. RANDOM is how many random queries are compared
besides those in the table.
"""

import random
import sys
import urllib.request

sys.dont_write_bytecode = True
from truth import FILE, FIRST, GROUP, LAST, URL, compare, db, rows, tell

RANDOM = int(sys.argv[4]) if len(sys.argv) > 4 else 0

AGGREGATES = [
    ("count()", "count(*)"),
    ("bytes()", "sum(length)::BIGINT"),
    ("first(data.origin)", 'arg_min(origin, "offset")'),
    ("last(data.delay)", 'arg_max(delay, "offset") FILTER (delay IS NOT NULL)'),
    ("min(data.delay)", "min(delay)"),
    ("max(data.distance)", "max(distance)"),
    ("sum(data.distance)", "sum(distance)"),
    ("avg(data.delay)", "avg(delay)"),
    ("count_distinct(data.origin)", "count(DISTINCT origin)"),
    ("min(data.destination)", "min(destination)"),
]
PREDICATES = [
    ("data.delay > 30", "delay > 30"),
    ("data.delay <= -5.5", "delay <= -5.5"),
    ("data.origin = 'SFO'", "origin = 'SFO'"),
    ("data.origin IN ('SFO', 'LAX', 'JFK')", "origin IN ('SFO', 'LAX', 'JFK')"),
    ("data.origin NOT LIKE 'S%'", "origin NOT LIKE 'S%'"),
    ("data.destination LIKE '_A_'", "destination LIKE '_A_'"),
    ("data.none IS NULL", "true"),
    ("data.delay IS NOT NULL AND NOT data.distance < 500", "delay IS NOT NULL AND NOT distance < 500"),
    ("data.origin > 'M' OR data.delay = 0 AND length > 70", "origin > 'M' OR delay = 0 AND length > 70"),
    ("offset >= 1000", '"offset" >= 1000'),
]


def sampled(aggregate, predicate, length_ms, window, descending=False):
    text, sql = aggregate
    low, high = window
    where = f"t >= {low} AND t < {high}" + (f" AND ({predicate[1]})" if predicate else "")
    us = length_ms * 1000
    order = "DESC" if descending else "ASC"
    compare(
        f"SELECT {text} IN {GROUP} FROM {low} TO {high} "
        + (f"WHERE {predicate[0]} " if predicate else "")
        + f"SAMPLE BY {length_ms}T ORDER BY received {order}",
        f"SELECT t - t % {us} AS ts, {sql} FROM e WHERE {where} GROUP BY ts ORDER BY ts {order}",
        sampled=True,
    )


ALL = (FIRST, LAST + 1)
for text, sql in AGGREGATES:
    compare(f"SELECT {text} IN {GROUP}", f"SELECT {sql} FROM e")
    sampled((text, sql), None, 50, ALL)
    sampled((text, sql), None, 50, ALL, descending=True)
for text, sql in PREDICATES:
    compare(f"SELECT offset IN {GROUP} WHERE {text}", f'SELECT "offset" FROM e WHERE {sql} ORDER BY "offset"')
    compare(f"SELECT count() IN {GROUP} WHERE {text}", f"SELECT count(*) FROM e WHERE {sql}")
    compare(
        f"SELECT offset, data.delay, data.origin IN {GROUP} WHERE {text} ORDER BY received DESC LIMIT 500",
        f'SELECT "offset", delay, origin FROM e WHERE {sql} ORDER BY "offset" DESC LIMIT 500',
    )
for part in (50, 95, 99):
    # Few enough values that they are exact: the value of that rank.
    compare(
        f"SELECT p{part}(data.delay) IN {GROUP} WHERE offset < 900",
        f'SELECT list_sort(list(delay))[greatest(1, ceil({part} / 100 * count(*))::INT)] FROM e WHERE "offset" < 900',
    )
    found = rows(f"SELECT p{part}(data.distance) IN {GROUP}")[0][0]
    exact = db.execute(f"SELECT quantile_disc(distance, {part / 100}) FROM e").fetchone()[0]
    assert abs(found - exact) <= 0.02 * exact, f"p{part}: {found} instead of {exact}"
compare(
    f"SELECT data.origin, count(), avg(data.delay) IN {GROUP}",
    'SELECT origin, count(*), avg(delay) FROM e GROUP BY origin ORDER BY min("offset")',
)
compare(
    f"SELECT data.origin, count() IN {GROUP} SAMPLE BY 100T",
    'SELECT t - t % 100000 AS ts, origin, count(*) FROM e GROUP BY ts, origin ORDER BY ts, min("offset")',
    sampled=True,
)
for fill, value in (("NULL", "NULL"), ("0", "0")):
    compare(
        f"SELECT count() IN {GROUP} FROM {FIRST - 30000} TO {LAST + 50001} SAMPLE BY 1T FILL({fill})",
        f"""WITH s AS (SELECT unnest(range({FIRST - 30000} - ({FIRST - 30000} % 1000), {LAST + 50001}, 1000)) AS ts),
            n AS (SELECT t - t % 1000 AS ts, count(*) AS n FROM e GROUP BY ts)
            SELECT s.ts, coalesce(n.n, {value}) FROM s LEFT JOIN n USING (ts) ORDER BY s.ts""",
        sampled=True,
    )
compare(
    f"SELECT max(data.delay) IN {GROUP} FROM {(FIRST + LAST) // 2} TO {LAST + 50001} SAMPLE BY 1T FILL(PREV)",
    f"""WITH b AS (SELECT {(FIRST + LAST) // 2} AS low, {LAST + 50001} AS high),
        s AS (SELECT unnest(range(low - low % 1000, high, 1000)) AS ts FROM b),
        n AS (SELECT t - t % 1000 AS ts, max(delay) AS n FROM e, b WHERE t >= low GROUP BY ts),
        p AS (SELECT max(delay) AS n FROM e, b WHERE t < low
              AND t - t % 1000 = (SELECT max(t - t % 1000) FROM e, b WHERE t < low))
        SELECT s.ts, coalesce(last_value(n.n IGNORE NULLS) OVER (ORDER BY s.ts), (SELECT n FROM p))
        FROM s LEFT JOIN n USING (ts) ORDER BY s.ts""",
    sampled=True,
)
# A range begins and ends exactly where it says, on the first and the last event of a time, too.
for low, high in ((FIRST, LAST), (FIRST + 1, LAST + 1), ((FIRST + LAST) // 2, LAST)):
    compare(f"SELECT count() IN {GROUP} FROM {low} TO {high}", f"SELECT count(*) FROM e WHERE t >= {low} AND t < {high}")

seed = random.randrange(1 << 32)
print(f"seed {seed}")
chance = random.Random(seed)
for _ in range(RANDOM):
    low = chance.randint(FIRST, LAST)
    sampled(
        chance.choice(AGGREGATES),
        chance.choice([None] + PREDICATES),
        chance.choice([1, 3, 7, 20, 111, 1000, 60000]),
        (low, chance.randint(low + 1, LAST + 2)),
        chance.random() < 0.3,
    )

# What is exported is what DuckDB reads.


def export(query):
    request = urllib.request.Request(URL + "/v1/query", query.encode(), {"Accept": "text/csv"})
    with urllib.request.urlopen(request) as answer, open(FILE + ".csv", "wb") as file:
        file.write(answer.read())


export(f"SELECT offset, data.delay, data.origin IN {GROUP}")
counted = db.execute(
    f"""SELECT count(*), sum("offset"), sum("data.delay"), count(DISTINCT "data.origin") FROM read_csv('{FILE}.csv')"""
).fetchone()
expected = db.execute('SELECT count(*), sum("offset"), sum(delay), count(DISTINCT origin) FROM e').fetchone()
assert counted == expected, "CSV"
# NULLs, too, where there is nothing but them in a row.
export(f"SELECT data.none IN {GROUP}")
counted = db.execute(f"SELECT count(*), count(\"data.none\") FROM read_csv('{FILE}.csv')").fetchone()
assert counted == (db.execute("SELECT count(*) FROM e").fetchone()[0], 0), "CSV of NULLs"
tell()
