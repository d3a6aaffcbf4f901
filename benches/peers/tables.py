"""Turns measurements.jsonl of a results folder into summary.md: medians over the rounds, ratios to Kinglet and to the echo."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import median

import claims
from peers import all_servers

Rows = list[dict]


def write(folder: Path) -> None:
    measurements = folder / "measurements.jsonl"
    lines = measurements.read_text().splitlines() if measurements.exists() else []
    kinds: dict[str, Rows] = defaultdict(list)
    for line in lines:
        row = json.loads(line)
        kinds["errors" if "error" in row else row["kind"]].append(row)
    machine = json.loads((folder / "machine.json").read_text())
    parts = [f"# Servers side by side\n\n{machine['cpu']}, kernel {machine['kernel']}, commit {machine['commit'] or 'none'}"]
    parts[0] += f"{' with changes' if machine['changed'] else ''}, {machine['when']}, `run {' '.join(machine['arguments'])}`, {machine['h2load']}"
    parts += claims_table(kinds)
    parts += load_tables(kinds["throughput"], "Closed loop") + load_tables(kinds["rate"], "Equal offered load")
    parts += start_table(kinds["start"]) + idle_table(kinds["idle"])
    parts += [f"Failed: {row['server']} {row['model']} {row['protocol']} c={row['concurrency']}: {row['error']}" for row in kinds["errors"]]
    (folder / "summary.md").write_text("\n\n".join(parts) + "\n")
    print(f"wrote {folder / 'summary.md'}")


def load_tables(rows: Rows, title: str) -> list[str]:
    tables = []
    for (model, protocol), cells in grouped(rows, "model", "protocol").items():
        body = []
        for (concurrency,), at in grouped(cells, "concurrency").items():
            servers = {name: found for (name,), found in grouped(at, "server").items()}
            body += [load_row(concurrency, name, servers) for name in all_servers() if name in servers]
        size = f"{cells[0]['body_bytes']:,} bytes a request"
        tables.append(f"## {title}: {model}, {protocol} ({size})\n\n" + table(LOAD_HEAD, body))
    return tables


LOAD_HEAD = ["c", "server", "req/s", "min-max", "p50 ms", "p99 ms", "CPU s/1,000", "RSS MiB", "failures", "of Kinglet", "of echo"]
LOAD_HEAD += ["CPU of Kinglet", "generator cores", "other cores"]


def load_row(concurrency: int, name: str, servers: dict[str, Rows]) -> list[str]:
    rows = servers[name]
    rates = [row["req_per_s"] for row in rows]
    offered = rows[0]["offered_per_s"]
    missed = " (of %g offered)" % offered if offered and median(rates) < 0.97 * offered else ""
    unsettled = "" if all(row["settled"] for row in rows) else " unsettled"
    return [
        str(concurrency),
        name,
        f"{median(rates):,.0f}{missed}" if median(rates) >= 100 else f"{median(rates):.1f}{missed}",
        f"{min(rates):,.0f}-{max(rates):,.0f}",
        middle(rows, "p50_ms", 3),
        middle(rows, "p99_ms", 3),
        middle(rows, "cpu_s_per_1000", 3),
        middle(rows, "rss_mib", 0),
        f"{sum(row['failures'] for row in rows)}{unsettled}",
        ratio(rows, servers.get("kinglet"), "req_per_s"),
        ratio(rows, servers.get("echo"), "req_per_s"),
        ratio(rows, servers.get("kinglet"), "cpu_s_per_1000"),
        middle(rows, "generator_cores", 2),
        middle(rows, "others_cores", 2),
    ]


def claims_table(kinds: dict[str, Rows]) -> list[str]:
    body = [list(claim) for claim in claims.judge(kinds["throughput"], kinds["rate"], kinds["idle"])]
    return ["## Kinglet against what is asked of it\n\n" + table(["what", "where", "wanted", "got"], body)] if body else []


def start_table(rows: Rows) -> list[str]:
    body = [
        [name, str(models), middle(found, "ready_s", 2), middle(found, "rss_mib", 0), str(len(found))]
        for (name, models), found in grouped(rows, "server", "models").items()
    ]
    return ["## Start to first right answer\n\n" + table(["server", "models", "seconds", "RSS MiB then", "starts"], body)] if body else []


def idle_table(rows: Rows) -> list[str]:
    body = [
        [name, middle([{"percent": 100 * row["core_share"]} for row in found], "percent", 3), middle(found, "rss_mib", 0)]
        for (name,), found in grouped(rows, "server").items()
    ]
    title = f"## Idle with {rows[0]['models']} models" if rows else ""
    return [f"{title}\n\n" + table(["server", "% of a core", "RSS MiB"], body)] if body else []


def grouped(rows: Rows, *keys: str) -> dict[tuple, Rows]:
    groups: dict[tuple, Rows] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def middle(rows: Rows, key: str, digits: int) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    return f"{median(values):,.{digits}f}" if values else "-"


def ratio(rows: Rows, base: Rows | None, key: str) -> str:
    """Median of the ratios round by round, so that a drift of the machine between rounds cancels."""
    of_round = {row["round"]: row[key] for row in base or []}
    ratios = [row[key] / of_round[row["round"]] for row in rows if row[key] is not None and of_round.get(row["round"])]
    return f"{median(ratios):.2f}" if ratios else "-"


def table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
