"""What the comparisons with DuckDB have in common: the events of a group as a table, and queries asked page by page."""

import json
import sys
import urllib.error
import urllib.request

import duckdb

URL, GROUP, FILE = sys.argv[1:4]

db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
db.execute(
    """CREATE TABLE e AS
       SELECT "offset", epoch_us(received::TIMESTAMPTZ) AS t, length, key,
              data->>'origin' AS origin, data->>'destination' AS destination,
              (data->>'delay')::DOUBLE AS delay, (data->>'distance')::DOUBLE AS distance
       FROM read_json(?, format='newline_delimited', columns={'offset': 'BIGINT', 'received': 'VARCHAR',
            'length': 'BIGINT', 'key': 'VARCHAR', 'data': 'JSON'})""",
    [FILE],
)
FIRST, LAST = db.execute("SELECT min(t), max(t) FROM e").fetchone()


def ask(query, next=None):
    body = json.dumps({"q": query} | ({"next": next} if next else {})).encode()
    request = urllib.request.Request(URL + "/v1/query", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{query}\n{error.read().decode()}")


def rows(query):
    """All rows, page by page."""
    answer = ask(query)
    found = answer["rows"]
    while "next" in answer and "LIMIT" not in query:
        answer = ask(query, answer["next"])
        found += answer["rows"]
    return found


def same(one, other):
    if isinstance(one, (int, float)) and isinstance(other, (int, float)) and not isinstance(one, bool):
        return abs(one - other) <= 1e-9 * max(1, abs(one), abs(other))
    return one == other


def micros(text):
    return db.execute("SELECT epoch_us(?::TIMESTAMPTZ)", [text]).fetchone()[0]


compared = 0


def compare(query, sql, sampled=False):
    """Rows of a query are those of the SQL; those of slices are compared without `partial`, with `ts` in µs."""
    compare_rows(query, [list(row) for row in db.execute(sql).fetchall()], sampled, sql)


def compare_rows(query, expected, sampled=False, how=""):
    global compared
    found = rows(query)
    if sampled:
        found = [[micros(row[0])] + row[1:-1] for row in found]
    good = len(found) == len(expected)
    good = good and all(len(a) == len(b) and all(map(same, a, b)) for a, b in zip(found, expected))
    if not good:
        different = [(a, b) for a, b in zip(found, expected) if not all(map(same, a, b))]
        raise SystemExit(
            f"{query}\n{how}\n{len(found)} rows, {len(expected)} expected; the first that differs: {different[:1]}"
        )
    compared += 1


def tell():
    print(f"{compared} queries compared")
