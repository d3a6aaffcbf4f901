"""Runs a program on an emulated processor with AVX-512: `python3 guest.py FOLDER PROGRAM [ARGUMENTS...]`.

Boots a kernel in Bochs with nothing but the program and its shared libraries, prints what it prints, and ends with its
exit code; with 125 if it did not come to an end. FOLDER is where `setup` has put the parts; BOCHS and KERNEL name others.
"""

import os
import re
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

MEMORY_MIB = 1024
SECONDS_MAX = 1800

# Physical addresses; the first two are known to rom.S too. The kernel unpacks itself to 16 MiB and up.
PARAMETERS, KERNEL, FILES = 0x10000, 0x100000, 0x8000000

# Emulated time is counted in instructions: as many to a second as the model claims cycles, or the kernel's clocks disagree.
INSTRUCTIONS_PER_SECOND = 2_200_000_000

# Linux wants XFD with AMX, which Bochs lacks; page tables of five levels only cost time.
FEATURES_EXCLUDED = "amx,amx_int8,amx_bf16,la57"

# clearcpuid=580 is FSRM: the model has it, but says that fast strings are off. Linux 6.1 then drops ERMS, still takes
# FSRM to imply it, and its memmove reads past the end.
KERNEL_OPTIONS = (
    "console=ttyS0 quiet clearcpuid=580 nokaslr mitigations=off cryptomgr.notests tsc=reliable no_timer_check "
    "oops=panic panic=-1 reboot=t"
)

BOCHS_OPTIONS = """
cpu: model=sapphire_rapids, count=1, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1
cpu: exclude_features="{excluded}"
memory: guest={memory}, host={memory}
romimage: file="{parts}/rom"
# The display insists on a ROM, which nothing runs.
vgaromimage: file="{parts}/rom"
vga: extension=none
optramimage1: file="{work}/parameters", address={parameters:#x}
optramimage2: file="{work}/kernel", address={kernel:#x}
optramimage3: file="{work}/files", address={files:#x}
clock: sync=none, time0=utc
display_library: nogui
com1: enabled=1, mode=file, dev="{work}/console"
port_e9_hack: enabled=1
speaker: enabled=0
log: {work}/log
panic: action=fatal
error: action=ignore
"""


def archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive of executable files and their folders, as the kernel unpacks it."""
    folders = {str(folder) for name in files for folder in Path(name).parents if folder.name}
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in sorted(folders)]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    # The kernel wants the name; without a device behind it, it goes on without a console.
    entries += [("/dev", stat.S_IFDIR | 0o755, b""), ("/dev/console", stat.S_IFCHR | 0o600, b"")]
    entries += [("TRAILER!!!", 0, b"")]
    made = bytearray()
    for inode, (name, mode, content) in enumerate(entries, 1):
        path = name.lstrip("/").encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        made += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        made += b"\0" * (-len(made) % 4) + content
        made += b"\0" * (-len(made) % 4)
    return bytes(made)


def libraries(program: str) -> list[str]:
    """The loader and the shared libraries of a program, by the paths at which it finds them."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", told)


def parameters(kernel: bytes, files_size: int) -> bytes:
    """The kernel's boot parameters (Documentation/arch/x86/zero-page.rst) and, a page later, its command line."""
    page = bytearray(0x1000)
    header = slice(0x1F1, 0x202 + kernel[0x201])
    page[header] = kernel[header]
    page[0x210] = 0xFF  # a loader without a number
    struct.pack_into("<II", page, 0x218, FILES, files_size)
    struct.pack_into("<I", page, 0x228, PARAMETERS + len(page))
    usable = [(0, 0x9F000), (0x100000, (MEMORY_MIB << 20) - 0x100000)]
    page[0x1E8] = len(usable)
    for at, (start, size) in enumerate(usable):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * at, start, size, 1)
    return bytes(page) + KERNEL_OPTIONS.encode() + b"\0"


def prepare(parts: Path, work: Path, command: list[str]) -> None:
    program = os.path.abspath(command[0])
    files = {path: Path(path).read_bytes() for path in [program, *libraries(program)]}
    files["/init"] = (parts / "init").read_bytes()
    files["/arguments"] = b"".join(word.encode() + b"\0" for word in [program, *command[1:]])
    packed = archive(files)
    kernel = Path(os.environ.get("KERNEL") or parts / "kernel").read_bytes()
    (work / "files").write_bytes(packed)
    (work / "parameters").write_bytes(parameters(kernel, len(packed)))
    # Before its 32-bit half stands one of whole sectors for loaders in real mode.
    (work / "kernel").write_bytes(kernel[(kernel[0x1F1] + 1) * 512 :])
    options = BOCHS_OPTIONS.format(
        ips=INSTRUCTIONS_PER_SECOND, excluded=FEATURES_EXCLUDED, memory=MEMORY_MIB, parts=parts, work=work,
        parameters=PARAMETERS, kernel=KERNEL, files=FILES,
    )  # fmt: skip
    (work / "bochsrc").write_text(options)


def relay(said) -> int | None:
    """Prints what the program prints, as it comes; gives its exit code, or none if the machine stopped before."""
    held, begun, code = b"", False, None
    while code is None and (chunk := said.read1()):
        held += chunk
        if not begun:
            _, begun, rest = held.partition(b"\x01begin\x02")
            held = rest if begun else held
        if begun:
            if end := re.search(rb"\x01end (\d+)\x02", held):
                code, held = int(end[1]), held[: end.start()]
            show, mark, rest = held.partition(b"\x01")  # perhaps the first half of the end
            sys.stdout.buffer.write(show)
            sys.stdout.flush()
            held = mark + rest
    sys.stdout.buffer.write(held)
    sys.stdout.flush()
    return code


def run(parts: Path, command: list[str]) -> int:
    bochs = os.environ.get("BOCHS") or parts / "bochs"
    with tempfile.TemporaryDirectory(prefix="emulated-") as folder:
        work = Path(folder)
        prepare(parts, work, command)
        call = [bochs, "-q", "-f", work / "bochsrc"]
        machine = subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        clock = threading.Timer(SECONDS_MAX, machine.kill)
        clock.start()
        try:
            code = relay(machine.stdout)
        finally:
            clock.cancel()
            machine.kill()
            machine.wait()
        if code is None:
            print(f"expected the program's end within {SECONDS_MAX} s, came none; last words:", file=sys.stderr)
            for name in ("console", "log"):
                if (work / name).exists():
                    lines = (work / name).read_text(errors="replace").splitlines()
                    print(*lines[-20:], sep="\n", file=sys.stderr)
        return 125 if code is None else code


if __name__ == "__main__":
    # So that `finally` is reached.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(run(Path(sys.argv[1]).resolve(), sys.argv[2:]))
