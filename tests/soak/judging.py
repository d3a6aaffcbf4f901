"""What must hold at the end of a soak."""

import collections
import re
import time

from operations import Operations
from questions import EXPLICIT, POLLED
from report import Points, Verdicts, line_told, quantile
from samples import Sample, Samples, lowest, second_half, slope_per_hour
from watching import metrics

# By the line through the second half of the run, of the least of each stretch of a minute.
MIB_PER_HOUR_MAX = 20.0
FILES_PER_HOUR_MAX = 20.0
THREADS_PER_HOUR_MAX = 2.0
# Below capacity there are none, but what else runs on the machine takes from that, too.
OVERLOADED_SHARE_MAX = 0.001
# Shorter ones have no slope that means something: what they may have grown by, from the third quarter to the last.
SLOPE_SECONDS_MIN = 1200
MIB_GROWN_MAX = 64
# Quiet before, quiet after. What asks for metrics is a connection, too.
FILES_MORE_MAX, THREADS_MORE_MAX = 2, 0
# Nothing waits at the end.
AT_REST = ("kinglet_in_flight_requests", "kinglet_in_flight_bytes", "kinglet_receiving_bytes", "kinglet_panics_total", "kinglet_log_lines_dropped_total")


class Judged:
    """Made when the servers are quiet, before the load."""

    def __init__(self, servers: dict, before: dict[str, Sample]):
        self.servers, self.quiet = servers, before
        self.began = time.monotonic()
        self.counted = {kind: counted(server) for kind, server in servers.items()}

    def clients(self, verdicts: Verdicts, told: list[dict], operations: Operations, mischief: dict) -> None:
        total = sum_of(told)
        outcomes = collections.Counter()
        for name, count in total.items():
            outcomes[name.split(" ", 2)[2]] += count
        asked = sum(one["asked"] for one in told)
        settled = sum(outcomes.values())
        details = [detail for one in told for detail in one["details"]]
        verdicts.judge("requests, those that measured the capacity included, each with one outcome", f"{asked:,}", f"{settled:,}", asked == settled > 0)
        verdicts.judge("wrong answers", "0", str(outcomes["wrong"]), outcomes["wrong"] == 0)
        verdicts.judge("lost", "0", str(outcomes["lost"]), outcomes["lost"] == 0)
        unfair = unfair_refusals([each for one in told for each in one["away"]], operations.away)
        verdicts.judge("refused though their model was there", "0", str(unfair), unfair == 0)
        overloaded = outcomes["refused overloaded"]
        bound = OVERLOADED_SHARE_MAX * asked
        verdicts.judge("refused for load", f"at most {100 * OVERLOADED_SHARE_MAX:g} %", f"{overloaded:,} of {asked:,}", overloaded <= bound)
        wanted = {f"refused {code}" for code in ("overloaded", "not_found", "invalid_argument", "deadline_exceeded", "unavailable")}
        other = {name: count for name, count in outcomes.items() if name not in wanted | {"ok", "wrong", "lost", "left"}}
        verdicts.judge("other outcomes", "none", str(other or "none"), not other)
        did = mischief["done"]
        verdicts.judge("slow readers that got another byte, other mischief that went wrong", "0", str(did.get("wrong", 0) + mischief["failed"]), not did.get("wrong") and not mischief["failed"])
        verdicts.judge("operations that failed", "0", str(len(operations.failures)), not operations.failures)
        verdicts.note("clients: " + ", ".join(f"{count:,} {name}" for name, count in sorted(outcomes.items())))
        verdicts.note("mischief: " + ", ".join(f"{count:,} {name}" for name, count in did.items()))
        versions = {version for one in told for version in one["versions"]}
        verdicts.note("operations: " + ", ".join(f"{count} {name}" for name, count in operations.done.items()) + f"; {len(versions)} versions answered")
        for detail in [*details, *mischief["failures"], *operations.failures]:
            verdicts.note(f"detail: {detail}".replace("|", "/"))

    def counters(self, verdicts: Verdicts, told: list[dict], mischief: dict) -> None:
        """What clients cannot know, because they left, may count as anything, or not at all; all else exactly."""
        certain, unknown = expected(told, mischief)
        now = {kind: counted(server) for kind, server in self.servers.items()}
        codes, wrong, unsure = collections.Counter(), [], sum(unknown.values())
        for kind, page in now.items():
            for (code, model), count in page.items():
                more = count - self.counted[kind].get((code, model), 0)
                codes[code] += more
                if code == "ok" and model != "_unknown":
                    least = certain["ok", kind, model]
                    if not least <= more <= least + unknown[kind, model]:
                        wrong.append(f"{kind} {model}: {more:.0f} answered, clients got {least}")
        sure = collections.Counter()
        for (code, *_), count in certain.items():
            sure[code] += count
        wrong += [f"{code}: {codes[code]:.0f}, clients were told {sure[code]}" for code in sure | codes if not sure[code] <= codes[code] <= sure[code] + unsure]
        all_sure, all_counted = sum(sure.values()), sum(codes.values())
        verdicts.judge("models whose successes, and codes whose refusals, are not what clients counted", "none", "; ".join(wrong) or "none", not wrong)
        verdicts.judge(f"requests that the servers counted; {unsure:,} clients left", f"{all_sure:,} to {all_sure + unsure:,}", f"{all_counted:,.0f}", all_sure <= all_counted <= all_sure + unsure)
        rest = {f"{kind} {name}": value for kind, server in self.servers.items() for name, value in metrics(server).items() if name in AT_REST and value}
        verdicts.judge("in flight, arriving, panics, lines of the log lost", "0", str(rest or 0), not rest)

    def footprints(self, verdicts: Verdicts, samples: Samples, after: dict[str, Sample], seconds: float) -> None:
        stretch = min(60.0, seconds / 20)
        for kind, taken in samples.taken.items():
            memory, files, threads = (second_half(lowest(taken, what, stretch)) for what in ("mib", "files", "threads"))
            if seconds >= SLOPE_SECONDS_MIN:
                for what, points, bound in (("memory, MiB", memory, MIB_PER_HOUR_MAX), ("open files", files, FILES_PER_HOUR_MAX), ("threads", threads, THREADS_PER_HOUR_MAX)):
                    verdicts.judge(f"{kind} server, {what}, second half", f"under {bound:+.0f} an hour", line_told(points), slope_per_hour(points) < bound)
            else:
                grown = mean(memory[len(memory) // 2 :]) - mean(memory[: len(memory) // 2])
                verdicts.judge(f"{kind} server, memory, third quarter to last", f"under {MIB_GROWN_MAX:+} MiB", f"{grown:+.1f} MiB", grown < MIB_GROWN_MAX)
            before, now = self.quiet[kind], after[kind]
            files_more, threads_more = now.files - before.files, now.threads - before.threads
            held = files_more <= FILES_MORE_MAX and threads_more <= THREADS_MORE_MAX
            verdicts.judge(f"{kind} server, open files and threads, quiet before and after", f"at most {FILES_MORE_MAX} and {THREADS_MORE_MAX} more", f"{before.files} → {now.files}, {before.threads} → {now.threads}", held)
            most = max(one.mib for one in taken)
            verdicts.note(f"{kind} server: {before.mib:.0f} MiB before, {most:.0f} at most, {now.mib:.0f} after; at most {max(one.files for one in taken)} files, {max(one.threads for one in taken)} threads")

    def latencies(self, verdicts: Verdicts, latencies: Points) -> None:
        took = [1e3 * value for _, value in latencies]
        told = ", ".join(f"p{100 * share:g} {quantile(took, share):.1f}" for share in (0.5, 0.9, 0.99, 0.999))
        verdicts.note(f"latency from when a request was due, ms: {told}, slowest {max(took, default=0):.0f}")

    def ends(self, verdicts: Verdicts, servers: dict) -> None:
        for server in servers.values():
            server.terminate()
        codes = [server.wait_exit() for server in servers.values()]
        panicked = sum("panicked" in server.log.read_text(errors="replace") for server in servers.values())
        verdicts.judge("exit codes, logs with a panic", "0, 0; 0", f"{codes[0]}, {codes[1]}; {panicked}", codes == [0, 0] and not panicked)


def counted(server) -> dict[tuple[str, str], float]:
    """Requests by code and model, over versions and variants."""
    found: collections.Counter = collections.Counter()
    for name, value in metrics(server).items():
        if name.startswith("kinglet_requests_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            found[labels["code"], labels["model"]] += value
    return found


def sum_of(told: list[dict]) -> collections.Counter:
    total: collections.Counter = collections.Counter()
    for one in told:
        total.update(one["outcomes"])
    return total


def expected(told: list[dict], mischief: dict) -> tuple[collections.Counter, collections.Counter]:
    """What the servers must have counted, by code, server and model; and what may have reached them, by server and model."""
    certain, unknown = collections.Counter(), collections.Counter()
    for name, count in sum_of(told).items():
        kind, model, outcome = name.split(" ", 2)
        if outcome in ("ok", "wrong"):
            certain["ok", kind, model] += count
        elif outcome.startswith("refused "):
            certain[outcome.removeprefix("refused "), kind, model] += count
        else:
            unknown[kind, model] += count
    did = mischief["done"]
    certain["ok", EXPLICIT, "echo"] += did.get("read slowly", 0) + did.get("wrong", 0)
    unknown[EXPLICIT, "echo"] += did.get("took nothing", 0)
    unknown[POLLED, "touched"] += did.get("sent half", 0) + did.get("sent half over gRPC", 0)
    return certain, unknown


def unfair_refusals(refused: list, away: list[tuple[float, float]]) -> int:
    """A refusal is fair if the model was away at any time between question and answer."""
    return sum(not any(began <= done and due <= ended for began, ended in away) for due, done, _ in refused)


def mean(points: Points) -> float:
    return sum(value for _, value in points) / max(1, len(points))
