"""What the project promises about overhead, computed from the measurements. Medians of the values round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

Rows = list[dict]
Claim = tuple[str, str, str, str]  # what, where, wanted, got
LIMITS = ("echo", "echo-prost")


def judge(throughput: Rows, rate: Rows, idle: Rows) -> Iterator[Claim]:
    for cell, found in cells(throughput):
        kinglet, echo, peers = split(found)
        model, protocol, concurrency = cell
        where = f"{model} {protocol} c={concurrency}"
        if model.startswith("add") and protocol != "json" and concurrency >= 8:
            yield "throughput of the echo's", where, ">= 0.6", paired(kinglet, echo, throughput_ratio)
        if model.startswith("add") and concurrency == 1:
            yield "added p50, us", where, "< 60", paired(kinglet, echo, lambda ours, limit: 1000 * (ours["p50_ms"] - limit["p50_ms"]), 0)
        if model == "add150528" and protocol == "json":
            speeds = [row["body_bytes"] * row["requests"] / row["cpu_s"] / 1e6 for row in kinglet.values() if row["cpu_s"]]
            yield "JSON MB a CPU second, whole server", where, ">= 300 (decoding alone)", f"{median(speeds):.0f}" if speeds else "-"
        if model == "add16" and concurrency == 64:
            name, best = best_peer(peers, lambda row: row["req_per_s"])
            yield f"throughput of the best peer's ({name})", where, ">= 2", paired(kinglet, best, throughput_ratio)
    for (model, protocol, _), found in cells(rate):
        kinglet, _, peers = split(found)
        name, best = best_peer(peers, lambda row: -row["cpu_s_per_1000"])
        yield (
            f"CPU of the best peer's ({name})",
            f"{model} {protocol}, {found[0]['offered_per_s']:g}/s",
            "<= 0.5",
            paired(kinglet, best, lambda ours, peer: ours["cpu_s_per_1000"] / peer["cpu_s_per_1000"]),
        )
    shares = [100 * row["core_share"] for row in idle if row["server"] == "kinglet"]
    if shares:
        yield "idle, % of a core", f"{idle[0]['models']} models", "< 0.2", f"{median(shares):.3f}"


def throughput_ratio(ours: dict, theirs: dict) -> float:
    return ours["req_per_s"] / theirs["req_per_s"]


def cells(rows: Rows) -> Iterator[tuple[tuple, Rows]]:
    """Cells that Kinglet was measured in; rows with no answer, with failures or short of the offered load prove nothing."""
    groups: dict[tuple, Rows] = {}
    for row in rows:
        reached = row["req_per_s"] >= 0.97 * (row["offered_per_s"] or 0)
        if row["requests"] and reached and not row["failures"]:
            groups.setdefault((row["model"], row["protocol"], row["concurrency"]), []).append(row)
    return ((cell, found) for cell, found in groups.items() if any(row["server"] == "kinglet" for row in found))


def split(found: Rows) -> tuple[dict[int, dict], dict[int, dict], dict[str, dict[int, dict]]]:
    """Kinglet, the echo and the peers by name; each row under its round."""
    servers: dict[str, dict[int, dict]] = {}
    for row in found:
        servers.setdefault(row["server"], {})[row["round"]] = row
    peers = {name: rows for name, rows in servers.items() if name != "kinglet" and name not in LIMITS}
    return servers.get("kinglet", {}), servers.get("echo", {}), peers


def best_peer(peers: dict[str, dict[int, dict]], worth: Callable[[dict], float]) -> tuple[str, dict[int, dict]]:
    if not peers:
        return "none", {}
    name = max(peers, key=lambda name: median(worth(row) for row in peers[name].values()))
    return name, peers[name]


def paired(ours: dict[int, dict], theirs: dict[int, dict], of: Callable[[dict, dict], float], digits: int = 2) -> str:
    values = [of(ours[round_], theirs[round_]) for round_ in ours if round_ in theirs]
    return f"{median(values):.{digits}f}" if values else "-"
