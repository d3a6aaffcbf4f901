"""What was wanted, what came, whether that is enough; the files a run leaves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Verdict:
    what: str
    wanted: str
    got: str
    passed: bool


@dataclass
class Report:
    """One mode. `found` goes to the JSON, `notes` are lines for a reader."""

    mode: str
    verdicts: list[Verdict] = field(default_factory=list)
    found: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def judge(self, what: str, wanted: str, got: str, passed: bool) -> None:
        verdict = Verdict(what, wanted, got, bool(passed))
        print(f"{self.mode}: {'ok    ' if passed else 'MISSED'} {what}: wanted {wanted}, got {got}", flush=True)
        self.verdicts.append(verdict)

    def note(self, text: str) -> None:
        print(f"{self.mode}: {text}", flush=True)
        self.notes.append(text)

    def passed(self) -> bool:
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)


def write(folder: Path, machine: dict, reports: list[Report]) -> None:
    (folder / "results.json").write_text(json.dumps({"machine": machine, "modes": [asdict(report) for report in reports]}, indent=1))
    commit = f"{machine['commit'] or 'none'}{' with changes' if machine['changed'] else ''}"
    parts = [f"# Endurance\n\n{machine['cpu']}, kernel {machine['kernel']}, commit {commit}, {machine['when']}, `run {' '.join(machine['arguments'])}`"]
    for report in reports:
        rows = [f"| {each.what} | {each.wanted} | {each.got} | {'yes' if each.passed else '**no**'} |" for each in report.verdicts]
        table = "\n".join(["| what | wanted | got | passed |", "|---|---|---|---|", *rows])
        parts.append(f"## {report.mode}\n\n{table}")
        parts += ["\n".join(f"- {note}" for note in report.notes)] if report.notes else []
    (folder / "summary.md").write_text("\n\n".join(parts) + "\n")
