"""Asks DuckDB what `scale --engine-check DIR` asked a store, and compares the answers.

Counts, tokens and costs must be equal to the last pico-dollar, percentiles (nearest rank) within 0.6 %.
Prints the median time of both for each question, and fails if one answer differs.

    python3 -m venv /tmp/duck && /tmp/duck/bin/pip install duckdb
    /tmp/duck/bin/python benches/check/duckdb_check.py DIR
"""

import json
import statistics
import sys
import time
from pathlib import Path

import duckdb

PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}
WITHIN = 0.006
RECENT = 10
TOP = 10

# What an answer may say of a group, as a use and as an execution know it.
USES = "count(*)"
SUMS = {
    "executions": "count(*)",
    "errors": "count(*) FILTER (status IN ('error', 'timeout'))",
    "priced": "count(cost_pico)",
    "input_tokens": "coalesce(sum(input_tokens), 0)",
    "output_tokens": "coalesce(sum(output_tokens), 0)",
    "cost_pico": "coalesce(sum(cost_pico), 0)",
}
# The expression of a group; :zone stands for the zone of the question.
GROUPS = {
    "environment": "environment",
    "provider": "provider",
    "model": "model",
    "prompt": "prompt",
    "failing_prompt": "prompt",
    "top_prompt": "prompt",
    "version": "version::VARCHAR",
    "day": "strftime(timezone(':zone', created_at), '%Y-%m-%d')",
    "prompt_model": "prompt || ' ' || model",
    "prompt_day": "prompt || ' ' || strftime(timezone(':zone', created_at), '%Y-%m-%d')",
}


def load(folder):
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for table in ("usages", "executions"):
        db.execute(
            f"CREATE TABLE {table} AS SELECT * EXCLUDE (created_at_micros), created_at_micros AS micros, "
            "make_timestamptz(created_at_micros) AS created_at "
            f"FROM read_csv('{folder / (table + '.csv')}', header = true)"
        )
    return db


class Question:
    """A question with the SQL that answers it."""

    def __init__(self, db, entry):
        self.db, self.entry, self.answer = db, entry, entry["answer"]
        parts = ["true"]
        for name, text in (("from_micros", "micros >= {}"), ("to_micros", "micros < {}")):
            if entry[name] is not None:
                parts.append(text.format(entry[name]))
        for name in ("prompt", "environment", "session"):
            if entry[name] is not None:
                parts.append(f"{name} = '{entry[name]}'")
        self.where = " AND ".join(parts)
        self.took = 0.0
        self.fault = None

    def rows(self, sql):
        start = time.perf_counter()
        rows = self.db.execute(sql).fetchall()
        self.took += time.perf_counter() - start
        return rows

    def sums(self, names, group=None):
        """The sums that the answer names, by group; `None` is the group of all."""
        key = "NULL" if group is None else GROUPS[group].replace(":zone", self.entry["zone"])
        found = {}
        of_executions = [name for name in names if name != "uses"]
        if of_executions:
            columns = ", ".join(SUMS[name] for name in of_executions)
            sql = f"SELECT {key}, {columns} FROM executions WHERE {self.where} GROUP BY 1"
            for key_found, *values in self.rows(sql):
                found[key_found] = dict(zip(of_executions, map(int, values)))
        if "uses" in names:
            sql = f"SELECT {key}, {USES} FROM usages WHERE {self.where} GROUP BY 1"
            for key_found, uses in self.rows(sql):
                found.setdefault(key_found, {name: 0 for name in of_executions})["uses"] = int(uses)
            for values in found.values():
                values.setdefault("uses", 0)
        return found

    def expect(self, what, said, right):
        if said != right and self.fault is None:
            self.fault = f"{what}: said {said}, DuckDB says {right}"

    def check_group(self, group, said):
        names = sorted(next(iter(said.values()))) if said else ["executions"]
        wanted = names + (["uses", "executions"] if group == "top_prompt" else [])
        wanted += ["errors"] if group == "failing_prompt" else []
        right = self.sums(list(dict.fromkeys(wanted)), group)
        right = {key: value for key, value in right.items() if value.get("executions", 1) > 0}
        if group == "top_prompt":
            first = sorted(right, key=lambda key: (-right[key]["uses"], -right[key]["executions"], key))
            right = {key: right[key] for key in first[:TOP]}
        if group == "failing_prompt":
            right = {key: value for key, value in right.items() if value["errors"] > 0}
        right = {key: {name: value[name] for name in names} for key, value in right.items()}
        self.expect(f"keys of {group}", sorted(said), sorted(right))
        for key in said.keys() & right.keys():
            self.expect(f"{group} {key}", said[key], right[key])

    def check_latency(self, said):
        quantiles = ", ".join(f"quantile_disc(latency_ms, {p / 100})" for p in PERCENTILES.values())
        self.rows(f"SELECT avg(latency_ms), {quantiles} FROM executions WHERE {self.where}")
        # Nearest rank by its definition; not timed, since the quantiles above are what one would ask.
        counts = self.db.execute(
            f"SELECT latency_ms, count(*) FROM executions WHERE {self.where} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        count = sum(n for _, n in counts)
        if count == 0:
            self.expect("latency of nothing", said["p50"], None)
            return
        mean = sum(ms * n for ms, n in counts) / count
        if abs(said["average"] - mean) > 1e-9 * mean:
            self.expect("average of latency", said["average"], mean)
        for name, percent in PERCENTILES.items():
            rank, seen = max(1, -(-count * percent // 100)), 0
            for ms, n in counts:
                seen += n
                if seen >= rank:
                    break
            if abs(said[name] - ms) > WITHIN * ms:
                self.expect(f"{name} of latency", said[name], ms)

    def check(self):
        if self.answer["total"]:
            names = sorted(self.answer["total"])
            zero = {name: 0 for name in names}
            self.expect("total", self.answer["total"], self.sums(names).get(None, zero))
        if self.answer.get("latency_ms"):
            self.check_latency(self.answer["latency_ms"])
        for group, said in self.answer["groups"].items():
            self.check_group(group, said)
        if "recent" in self.answer:
            sql = (
                f"SELECT id::VARCHAR FROM executions WHERE {self.where} AND status IN ('error', 'timeout') "
                f"ORDER BY micros DESC, id DESC LIMIT {RECENT}"
            )
            self.expect("recent failures", self.answer["recent"], [row[0] for row in self.rows(sql)])


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: duckdb_check.py DIR, the folder that `scale --engine-check DIR` wrote")
    folder = Path(sys.argv[1])
    entries = json.loads((folder / "answers.json").read_text())
    start = time.perf_counter()
    db = load(folder)
    calls = db.execute("SELECT count(*) FROM executions").fetchone()[0]
    print(f"DuckDB {duckdb.__version__}, {calls:,} calls, loaded in {time.perf_counter() - start:.1f} s")
    times, faults = {}, []
    for entry in entries:
        question = Question(db, entry)
        question.check()
        times.setdefault(entry["query"], []).append((entry["ms"], question.took * 1000))
        if question.fault:
            faults.append(f"{entry['query']} until {entry['to_micros']}: {question.fault}")
    print(f"{'query':<26} {'store ms':>10} {'DuckDB ms':>10} {'runs':>5}")
    for query, both in times.items():
        ours, theirs = (statistics.median(column) for column in zip(*both))
        print(f"{query:<26} {ours:>10.3f} {theirs:>10.3f} {len(both):>5}")
    for fault in faults:
        print(f"differs: {fault}")
    if faults:
        sys.exit(f"{len(faults)} of {len(entries)} answers differ")
    print(f"all {len(entries)} answers agree")


if __name__ == "__main__":
    main()
