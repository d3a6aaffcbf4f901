"""The image as a cluster would run it: unpacked into an empty root, as its user, with its environment and command."""

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

REPOSITORY = Path(__file__).parents[2]
# An address that only a server on all addresses has.
HOST = "127.0.0.2"
# As it is fetched, and unpacked.
BYTES_TRAVELLED_MAX, BYTES_MAX = 30_000_000, 55_000_000


class Image:
    """What `docker save` would have written."""

    def __init__(self, path: Path, root: Path):
        with tarfile.open(path) as archive:
            manifest = json.load(archive.extractfile("manifest.json"))[0]
            self.config = json.load(archive.extractfile(manifest["Config"]))["config"]
            layers = [archive.extractfile(layer).read() for layer in manifest["Layers"]]
        self.bytes = sum(map(len, layers))
        self.bytes_travelled = sum(len(gzip.compress(layer, 6)) for layer in layers)
        self.root = root
        for layer in manifest["Layers"]:
            with tarfile.open(path) as archive, tarfile.open(fileobj=archive.extractfile(layer)) as files:
                files.extractall(root)
        root.chmod(0o755)

    def start(self, command: list[str], settings: dict[str, str] | None = None, **options) -> subprocess.Popen:
        environment = dict(entry.split("=", 1) for entry in self.config["Env"]) | (settings or {})
        changed = [shutil.which("chroot"), f"--userspec={self.config['User']}", str(self.root)]
        return subprocess.Popen(changed + command, env=environment, **options)

    def files(self) -> list[tuple[str, int]]:
        found = (path for path in self.root.rglob("*") if path.is_file())
        return sorted((str(path.relative_to(self.root)), path.stat().st_mtime_ns) for path in found)


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    return Image(Path(os.environ["IMAGE_ARCHIVE"]), tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def collector():
    """Takes one connection, and knows what came first."""
    with socket.create_server(("127.0.0.3", 4318)) as listening:
        listening.settimeout(20)
        yield listening


@pytest.fixture(scope="session")
def container(image, collector, tmp_path_factory):
    """Models lie where a volume would be, names of the network where runtimes put them; there is no /proc and no /dev, and nothing
    that its user may write to."""
    (image.root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.0.3 collector\n")
    for model in ("digits", "wine"):
        shutil.copytree(REPOSITORY / "models" / model, image.root / "models" / model, ignore=shutil.ignore_patterns(".*"))
    log = tmp_path_factory.mktemp("log") / "kinglet.log"
    with log.open("wb") as written:
        traced = {"KINGLET__TRACING__ENDPOINT": "http://collector:4318", "KINGLET__TRACING__SAMPLE_RATIO": "1"}
        running = image.start(image.config["Entrypoint"] + image.config["Cmd"], traced, stdout=written, stderr=written)
    try:
        until = time.monotonic() + 30
        while status("/v2/health/ready") != 200:
            assert running.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield running
    finally:
        running.kill()
        running.wait()


def status(path: str, port: int = 8000) -> int | None:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_it_says_how_it_is_run(image):
    config = image.config
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/kinglet"]
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp", "8002/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "/kinglet", "healthcheck"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "MIT OR Apache-2.0"
    assert len(labels["org.opencontainers.image.revision"]) in (0, 40)
    crate = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]
    assert labels["org.opencontainers.image.version"] == crate["version"]


def test_it_holds_one_program_and_is_small(image):
    files = [name for name, _ in image.files()]
    assert files == ["etc/kinglet/config.toml", "kinglet", "licenses/LICENSE-APACHE", "licenses/LICENSE-MIT", "sbom.cdx.json"]
    print(f"{image.bytes:,} bytes, {image.bytes_travelled:,} as they travel")
    assert image.bytes_travelled < BYTES_TRAVELLED_MAX
    assert image.bytes < BYTES_MAX


def test_the_program_needs_no_other_file(image):
    said = subprocess.run(["readelf", "--program-headers", "--dynamic", image.root / "kinglet"], check=True, capture_output=True, text=True)
    assert "INTERP" not in said.stdout and "NEEDED" not in said.stdout
    # Addresses are drawn at every start, as for any program.
    assert "DYN" in subprocess.run(["readelf", "--file-header", image.root / "kinglet"], check=True, capture_output=True, text=True).stdout


def test_its_parts_are_listed(image):
    parts = json.loads((image.root / "sbom.cdx.json").read_text())
    assert parts["metadata"]["component"]["name"] == "kinglet"
    named = {part["name"] for part in parts["components"]}
    assert {"tract-onnx", "tokio", "kinglet-kernels", "glibc"} <= named
    # These run while it is compiled.
    assert not {"serde_derive", "protox"} & named
    assert all(part["licenses"] for part in parts["components"])


def test_tritons_clients_are_answered(image, container):
    request = json.loads((REPOSITORY / "models" / "digits" / "sample_request.json").read_text())["inputs"][0]
    image_of_three = np.array(request["data"], np.float32).reshape(request["shape"])
    for library, port in ((tritonclient.http, 8000), (tritonclient.grpc, 8001)):
        with library.InferenceServerClient(f"{HOST}:{port}") as client:
            given = library.InferInput(request["name"], request["shape"], request["datatype"])
            given.set_data_from_numpy(image_of_three)
            assert client.infer("digits", [given]).as_numpy("logits").argmax() == 3
            assert client.is_model_ready("wine")


def test_names_of_the_network_are_known(container, collector):
    """Without the files of a C library: the calls before are sent to a collector by its name."""
    connection, _ = collector.accept()
    with connection:
        assert connection.recv(64).startswith(b"POST /v1/traces")


def test_metrics_and_health_are_for_the_network(image, container):
    assert status("/metrics", 8002) == 200
    assert status("/v2/health/live", 8002) == 200
    assert image.start(["/kinglet", "healthcheck"]).wait(10) == 0


# Last: it ends the server.
def test_it_writes_nothing_and_ends_when_it_is_told_to(image, container):
    before = image.files()
    assert image.start(["/kinglet", "serve", "--check"], stdout=subprocess.DEVNULL).wait(30) == 0
    container.send_signal(signal.SIGTERM)
    assert container.wait(20) == 0
    assert image.files() == before
    assert image.start(["/kinglet", "healthcheck"], stderr=subprocess.DEVNULL).wait(10) == 1
