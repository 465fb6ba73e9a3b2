#!/usr/bin/env python3
"""Queries over many events, in one run with DuckDB over the same NDJSON.

    benches/compare/query.py URL EVENTS [ROUNDS]

makes a group of EVENTS events of about 150 bytes of JSON at the broker (unless it has them), writes them as a file too,
and times both sides in turn. Needs `make truth` and runs by tests/venv/bin/python. Medians are printed, with their
ratios.
"""

import json
import os
import statistics
import sys
import time
import urllib.error
import urllib.request

import duckdb

URL, EVENTS = sys.argv[1], int(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
GROUP, FILE, BATCH = f"bench-{EVENTS}", f"/tmp/eddyline-query-{EVENTS}.ndjson", 20_000


def ask(method, path, body=None, kind="text/plain"):
    request = urllib.request.Request(URL + path, body, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


def event(n):
    return (
        f'{{"date":"2001-01-01T00:47:00","flight":{n},"carrier":"ED","origin":"SFO","destination":"JFK",'
        f'"distance":2586,"delay":{n * 7919 % 90},"note":"on time"}}\n'
    )


def fill():
    ask("PUT", f"/v1/groups/{GROUP}")
    done = ask("GET", f"/v1/groups/{GROUP}")["tail"]
    with open(FILE, "a" if done and os.path.exists(FILE) else "w") as file:
        for first in range(done, EVENTS, BATCH):
            lines = "".join(event(n) for n in range(first, min(EVENTS, first + BATCH)))
            ask("POST", f"/v1/groups/{GROUP}/batch", lines.encode(), "application/x-ndjson")
            file.write(lines)


def timed(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def query(text):
    return ask("POST", "/v1/query", text.encode())


fill()
low, high = [query(f"SELECT received IN {GROUP} WHERE offset = {EVENTS * part // 200}")["rows"][0][0] for part in (100, 102)]
db = duckdb.connect()
db.execute("SET threads = 1")
source = f"read_json('{FILE}', format='newline_delimited', columns={{'delay': 'BIGINT', 'flight': 'BIGINT'}})"
sides = {
    "count() by 5m": lambda: query(f"SELECT count() IN {GROUP} SAMPLE BY 5m"),
    "avg(data.delay) by 1h": lambda: query(f"SELECT avg(data.delay) IN {GROUP} SAMPLE BY 1h"),
    "avg(data.delay) of 1 %": lambda: query(f"SELECT avg(data.delay) IN {GROUP} FROM '{low}' TO '{high}'"),
    "DuckDB: count(*)": lambda: db.execute(f"SELECT count(*) FROM {source}").fetchall(),
    "DuckDB: avg(delay)": lambda: db.execute(f"SELECT avg(delay) FROM {source}").fetchall(),
}
runs = {name: [] for name in sides}
for _ in range(ROUNDS):
    for name, work in sides.items():
        runs[name].append(timed(work))
medians = {name: statistics.median(times) for name, times in runs.items()}
for name, seconds in medians.items():
    print(f"{name:28} {seconds:9.4f} s  {EVENTS / seconds / 1e6:9.2f} M events/s")
scan = medians["avg(data.delay) by 1h"]
print(f"range of 1 % / all of it      {medians['avg(data.delay) of 1 %'] / scan:9.4f}")
print(f"DuckDB / all of it            {medians['DuckDB: avg(delay)'] / scan:9.4f}")
