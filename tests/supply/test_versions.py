"""A release is not made of files that name other versions."""

import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ROOT / "deploy" / "versions"
FILES = [
    "Cargo.toml",
    "Cargo.lock",
    "Dockerfile",
    "deploy/helm/kinglet/Chart.yaml",
    "deploy/kserve/runtime.yaml",
    "deploy/kubernetes/base/kinglet.yaml",
    *(str(path.relative_to(ROOT)) for path in ROOT.glob("crates/*/Cargo.toml")),
]
CHANGES = "# Changelog\n\n## [Unreleased]\n\n## [{}] - {}\n\n### Added\n\n- Everything.\n"


class Versions(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for file in FILES:
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, self.folder / file)
        self.version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
        self.write_changes(CHANGES.format(self.version, datetime.date.today()))

    def write_changes(self, text: str) -> None:
        (self.folder / "CHANGELOG.md").write_text(text)

    def asked(self, version: str) -> tuple[int, list[str]]:
        told = subprocess.run([sys.executable, VERSIONS, version, self.folder], stderr=subprocess.PIPE, text=True)
        return told.returncode, told.stderr.splitlines()

    def expect(self, *words: str) -> None:
        status, lines = self.asked(self.version)
        self.assertEqual((status, len(lines)), (1, 1), lines)
        for word in words:
            self.assertIn(word, lines[0])

    def test_files_that_agree(self):
        self.assertEqual(self.asked(self.version), (0, []))

    def test_every_file_is_looked_at(self):
        """Those of another version: each is named."""
        status, lines = self.asked("99.0.0")
        self.assertEqual(status, 1)
        for file in [*FILES, "CHANGELOG.md"]:
            self.assertTrue(any(line.startswith(f"{file}:") for line in lines), file)

    def test_one_file_that_lags(self):
        for file in FILES:
            path = self.folder / file
            text = path.read_text()
            # In the lock file, of our own crate.
            at = text.index(self.version, text.index('name = "kinglet"') if file == "Cargo.lock" else 0)
            path.write_text(text[:at] + "0.0.9" + text[at + len(self.version) :])
            with self.subTest(file):
                self.expect(file, "0.0.9")
            path.write_text(text)

    def test_what_is_no_version(self):
        for wrong in ("", "1.2", "v1.2.3", "1.02.3", "latest"):
            status, lines = self.asked(wrong)
            self.assertEqual((status, len(lines)), (1, 1), wrong)

    def test_changes(self):
        rows = [
            ("# Changelog\n", "[Unreleased]"),
            (f"## [{self.version}] - 2027-01-31\n", "[Unreleased]"),
            ("## [Unreleased]\n", "came nothing"),
            ("## [Unreleased]\n\n## [0.0.9] - 2027-01-31\n", "came 0.0.9"),
            (f"## [Unreleased]\n\n## [{self.version}]\n", "a day"),
            (f"## [Unreleased]\n\n### Fixed\n\n- A thing.\n\n## [{self.version}] - 2027-01-31\n", "1 entries"),
        ]
        for text, word in rows:
            self.write_changes(text)
            self.expect("CHANGELOG.md", word)

    def test_a_release_of_a_tree_with_changes(self):
        """Looked at before anything else."""
        shutil.copytree(ROOT / "deploy", self.folder / "deploy", dirs_exist_ok=True)
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", "-C", str(self.folder)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
            subprocess.run([*git, *arguments], check=True, env=environment)
        (self.folder / "Cargo.toml").write_text("")
        told = subprocess.run([self.folder / "deploy/release", self.version], capture_output=True, text=True, env=environment)
        self.assertEqual(told.returncode, 1)
        self.assertIn("clean tree", told.stderr)


if __name__ == "__main__":
    unittest.main()
