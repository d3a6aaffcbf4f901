"""The unit for systemd: what systemd-analyze says of it, and its times and paths."""

import shutil
import subprocess
from pathlib import Path

import pytest

from files import DEFAULTS, DEPLOY, END_SECONDS, seconds

SYSTEMD = DEPLOY / "systemd"
# Of 100; what is left is the network, which a server has, and the scheduler, which priorities of threads need.
EXPOSURE_MAX = 15
# Of one that may read every file.
EXPOSURE_MAX_RAPL = 20


def settings(text: str) -> list[tuple[str, str]]:
    """Keys may stand several times, as they may in a unit."""
    lines = (line for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return [tuple(line.split("=", 1)) for line in lines]


UNIT = dict(settings((SYSTEMD / "kinglet.service").read_text()))


def analyze(*arguments: str | Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze here")
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path) -> Path:
    """The unit beside a program that exists, without which systemd takes none."""
    text = (SYSTEMD / "kinglet.service").read_text()
    assert text.count("/usr/local/bin/kinglet ") == 1
    placed = tmp_path / "kinglet.service"
    placed.write_text(text.replace("/usr/local/bin/kinglet ", "/bin/true "))
    return placed


def with_rapl(unit: Path) -> Path:
    folder = unit.with_name("kinglet.service.d")
    folder.mkdir()
    shutil.copy(SYSTEMD / "rapl.conf", folder)
    return unit


def test_systemd_takes_it(unit):
    analyze("verify", "--man=no", unit)


def test_systemd_takes_it_with_rapl(unit):
    analyze("verify", "--man=no", with_rapl(unit))


def test_systemd_refuses_a_mistake(unit):
    unit.write_text(unit.read_text().replace("Type=exec", "Type=exect"))
    with pytest.raises(AssertionError, match="exect"):
        analyze("verify", "--man=no", unit)


def test_little_is_exposed(unit):
    analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", unit)
    with pytest.raises(AssertionError):
        analyze("security", "--offline=true", "--no-pager", "--threshold=1", unit)


def test_little_more_is_exposed_with_rapl(unit):
    merged = (SYSTEMD / "rapl.conf").read_text().partition("[Service]")[2]
    unit.write_text(unit.read_text().replace("\n[Install]", f"{merged}\n[Install]"))
    analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX_RAPL}", unit)


def test_the_server_is_given_the_time_that_it_takes_to_end():
    drain = DEFAULTS["drain"]
    assert int(UNIT["TimeoutStopSec"]) == seconds(drain["delay"]) + seconds(drain["grace"]) + END_SECONDS
    assert UNIT["KillSignal"] == "SIGTERM" and UNIT["ExecReload"].endswith("-HUP $MAINPID")


def test_its_restarts_follow_the_exit_codes():
    """2 is a configuration that does not hold, 64 a wrong command."""
    assert (UNIT["Restart"], UNIT["RestartPreventExitStatus"]) == ("on-failure", "2 64")
