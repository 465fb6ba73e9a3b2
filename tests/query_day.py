"""Compares slices of the calendar, filled ones and ranges with what DuckDB computes from the same events, whose times are
spread over days on which clocks change.

    python tests/query_day.py URL GROUP FILE

FILE is the group as NDJSON, as `GET /v1/groups/{group}/events` gives it.
"""

import sys

sys.dont_write_bytecode = True
from truth import FIRST, GROUP, LAST, compare, compare_rows, db, tell

HOUR, DAY = 3_600_000_000, 86_400_000_000
VALUES = "count(), bytes(), avg(data.delay), max(data.distance)"
SQL = "count(*), sum(length)::BIGINT, avg(delay), max(distance)"
TIME = "make_timestamptz(t)"

for zone in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"):
    align = f"ALIGN TO CALENDAR TIME ZONE '{zone}'"
    local = f"timezone('{zone}', {TIME})"
    midnight = f"epoch_us(timezone('{zone}', date_trunc('day', {local})))"
    day = f"date_diff('day', DATE '1970-01-01', {local}::DATE)"
    starts = {
        "1d": midnight,
        "1w": f"epoch_us(timezone('{zone}', date_trunc('week', {local})))",
        "1M": f"epoch_us(timezone('{zone}', date_trunc('month', {local})))",
        "1y": f"epoch_us(timezone('{zone}', date_trunc('year', {local})))",
        "2d": f"epoch_us(timezone('{zone}', (DATE '1970-01-01' + ({day} - {day} % 2)::INT)::TIMESTAMP))",
    }
    # Shorter ones begin anew at each local midnight.
    for length, us in (("15m", HOUR // 4), ("1h", HOUR), ("6h", 6 * HOUR), ("7h", 7 * HOUR)):
        starts[length] = f"{midnight} + (t - {midnight}) // {us} * {us}"
    if zone == "UTC":
        starts["7h"] = f"t - t % {7 * HOUR}"
    for length, start in starts.items():
        compare(
            f"SELECT {VALUES} IN {GROUP} SAMPLE BY {length} {align}",
            f"SELECT {start} AS ts, {SQL} FROM e GROUP BY ts ORDER BY ts",
            sampled=True,
        )
        compare(
            f"SELECT data.origin, {VALUES} IN {GROUP} WHERE data.distance > 700 SAMPLE BY {length} {align}",
            f"""SELECT {start} AS ts, origin, {SQL} FROM e WHERE distance > 700 GROUP BY ts, origin
                ORDER BY ts, min("offset")""",
            sampled=True,
        )
    # Days of the calendar, filled beyond both ends.
    low, high = FIRST - 3 * DAY, LAST + 2 * DAY
    compare(
        f"SELECT count() IN {GROUP} FROM {low} TO {high} SAMPLE BY 1d FILL(0) {align}",
        f"""WITH s AS (SELECT epoch_us(timezone('{zone}', unnest(generate_series(
                date_trunc('day', timezone('{zone}', make_timestamptz({low}))),
                date_trunc('day', timezone('{zone}', make_timestamptz({high} - 1))), INTERVAL 1 DAY)))) AS ts),
            n AS (SELECT {midnight} AS ts, count(*) AS n FROM e GROUP BY ts)
            SELECT s.ts, coalesce(n.n, 0) FROM s LEFT JOIN n USING (ts) ORDER BY s.ts""",
        sampled=True,
    )

# Filled at both ends, and where the range itself cuts slices.
found = db.execute(f"SELECT t // {HOUR} * {HOUR} AS ts, avg(delay) FROM e GROUP BY ts ORDER BY ts").fetchall()
low, high = FIRST // HOUR * HOUR - 5 * HOUR + 7, LAST + 7 * HOUR
known = {ts: value for ts, value in found}
starts = range(low // HOUR * HOUR, high, HOUR)


def linear(ts):
    before = max((at for at in known if at < ts), default=None)
    behind = min((at for at in known if at > ts), default=None)
    if before is None or behind is None or known[before] is None or known[behind] is None:
        return None
    return known[before] + (known[behind] - known[before]) * (ts - before) / (behind - before)


def previous(ts):
    before = max((at for at in known if at < ts), default=None)
    return None if before is None else known[before]


for fill, value in (("NULL", lambda _: None), ("-1.5", lambda _: -1.5), ("PREV", previous), ("LINEAR", linear)):
    expected = [[ts, known[ts] if ts in known else value(ts)] for ts in starts]
    query = f"SELECT avg(data.delay) IN {GROUP} FROM {low} TO {high} SAMPLE BY 1h FILL({fill})"
    compare_rows(query, expected, sampled=True)
    compare_rows(query + " ORDER BY received DESC", expected[::-1], sampled=True)
compare_rows(f"SELECT avg(data.delay) IN {GROUP} FROM {low} TO {high} SAMPLE BY 1h FILL(NONE)", found, sampled=True)

# Each origin that comes in the range has a row in every slice.
some = "data.origin IN ('SFO', 'LAX', 'JFK', 'LAS') AND data.distance > 1500"
low, high = (FIRST + LAST) // 3, LAST + 5 * HOUR
found = db.execute(
    f"""SELECT t // {HOUR} * {HOUR} AS ts, origin, avg(delay) FROM e
        WHERE origin IN ('SFO', 'LAX', 'JFK', 'LAS') AND distance > 1500 AND t >= {low} AND t < {high}
        GROUP BY ts, origin ORDER BY ts, min("offset")"""
).fetchall()
origins = list(dict.fromkeys(origin for _, origin, _ in found))
by_origin = {origin: {ts: value for ts, other, value in found if other == origin} for origin in origins}
# PREV looks back to the last slice before the range alone.
before = dict(
    db.execute(
        f"""WITH b AS (SELECT t, t // {HOUR} * {HOUR} AS ts, origin, delay FROM e WHERE t < {low}
                AND origin IN ('SFO', 'LAX', 'JFK', 'LAS') AND distance > 1500)
            SELECT origin, avg(delay) FROM b WHERE ts = (SELECT max(ts) FROM b) GROUP BY origin"""
    ).fetchall()
)
for fill, value in (("NULL", lambda _: None), ("0", lambda _: 0), ("PREV", previous), ("LINEAR", linear)):
    expected = []
    for ts in range(low // HOUR * HOUR, high, HOUR):
        for origin in origins:
            known = by_origin[origin]
            filled = known[ts] if ts in known else value(ts)
            if fill == "PREV" and ts not in known and not any(at < ts for at in known):
                filled = before.get(origin)
            expected.append([ts, origin, filled])
    compare_rows(
        f"SELECT data.origin, avg(data.delay) IN {GROUP} FROM {low} TO {high} WHERE {some} SAMPLE BY 1h FILL({fill})",
        expected,
        sampled=True,
    )

# Every time that there is as an end of a range: among them are all where one segment ends and the next one begins.
times = [t for (t,) in db.execute("SELECT DISTINCT t FROM e ORDER BY t").fetchall()]
for low, high in list(zip(times, times[1:])) + [(t, times[-1]) for t in times[:-1:3]]:
    compare(
        f"SELECT count(), bytes(), min(offset), max(offset) IN {GROUP} FROM {low} TO {high}",
        f'SELECT count(*), sum(length)::BIGINT, min("offset"), max("offset") FROM e WHERE t >= {low} AND t < {high}',
    )
    compare(
        f"SELECT count(), bytes() IN {GROUP} FROM {low} TO {high} SAMPLE BY 1h",
        f"""SELECT t // {HOUR} * {HOUR} AS ts, count(*), sum(length)::BIGINT FROM e WHERE t >= {low} AND t < {high}
            GROUP BY ts ORDER BY ts""",
        sampled=True,
    )
tell()
