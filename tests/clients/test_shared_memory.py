"""Tensors in memory that client and server share, by tritonclient's own calls; and what a client may not do with it."""

import contextlib
import http.client
import json
import os
import queue
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import serialize_byte_tensor

from caller import CLIENTS, Caller
from server import Server
from watching import metrics, wait_for
from wires import REFUSALS, refused
from zoo import DATATYPES, SLOW_LAYERS, SLOW_WIDTH, add, identity, manifest, save, slow, sum_difference

SEGMENTS = Path("/dev/shm")
PREFIX = f"/kinglet_{uuid.uuid4().hex[:8]}_"
SETTINGS = {"KINGLET__SHARED_MEMORY__ENABLED": "true", "KINGLET__SHARED_MEMORY__PREFIX": PREFIX}
MODULES = {"rest": tritonclient.http, "grpc": tritonclient.grpc}
ROW = np.arange(16, dtype=np.float32).reshape(1, 16)
LARGE = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for datatype, element in DATATYPES.items():
        save(root / f"identity_{datatype.lower()}", identity(element, ["batch", "width"]))
    save(root / "add", add())
    save(root / "both", sum_difference())
    save(root / "kept", identity(DATATYPES["FP32"], ["batch", "width"]))
    (root / "kept" / "manifest.toml").write_text("response_cache = true\n")
    save(root / "slow", slow(8 * SLOW_LAYERS))
    manifest(root / "slow", {"batching.batch_size_max": "1", "instances.max": "1"})
    return root


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    with Server([models], tmp_path_factory.mktemp("log") / "log", SETTINGS) as running:
        yield running


@pytest.fixture(params=CLIENTS)
def caller(request, server):
    with registered_by(Caller(request.param, server)) as caller:
        yield caller


@pytest.fixture(params=MODULES)
def blocking(request, server):
    with registered_by(Caller(request.param, server)) as caller:
        yield caller


@contextlib.contextmanager
def registered_by(caller):
    """Leaves nothing registered behind."""
    caller.regions = []
    try:
        yield caller
    finally:
        caller.call("unregister_system_shared_memory")
        for region in caller.regions:
            shm.destroy_shared_memory_region(region)


def region(caller, name: str, byte_size: int, *arrays: np.ndarray):
    """A segment of its own that is registered as a region."""
    made = shm.create_shared_memory_region(name, f"{PREFIX}{name}", byte_size)
    caller.regions.append(made)
    if arrays:
        shm.set_shared_memory_region(made, list(arrays))
    caller.call("register_system_shared_memory", name, f"{PREFIX}{name}", byte_size)
    return made


def floats(made, shape: tuple, offset: int = 0) -> np.ndarray:
    """A copy: a view would keep the segment from being closed."""
    return shm.get_contents_as_numpy(made, np.float32, shape, offset).copy()


def segment(name: str) -> Path:
    return SEGMENTS / f"{PREFIX}{name}".lstrip("/")


def wanted(caller, name: str, *placed, **options):
    output = module(caller).InferRequestedOutput(name, **options)
    if placed:
        output.set_shared_memory(*placed)
    return output


def module(caller):
    return tritonclient.http if caller.is_rest else tritonclient.grpc


def placed(caller, name: str, shape, datatype: str, region_name: str, byte_size: int, offset: int = 0):
    tensor = module(caller).InferInput(name, list(shape), datatype)
    tensor.set_shared_memory(region_name, byte_size, offset)
    return tensor


def told(answer, output: str) -> dict:
    """An output as the answer has it."""
    found = answer.get_output(output)
    if isinstance(found, dict):
        return found
    parameters = {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in found.parameters.items()}
    return {"shape": list(found.shape), "datatype": found.datatype, "parameters": parameters}


def post(address: str, path: str, body: dict | None = None, headers: dict | None = None) -> tuple[int, dict | None]:
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("POST", path, json.dumps(body) if body is not None else b"", headers or {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else None


def test_it_is_advertised(caller):
    metadata = caller.call("get_server_metadata")
    assert "system_shared_memory" in metadata["extensions"]
    assert "cuda_shared_memory" not in metadata["extensions"]


def test_inputs_and_outputs_lie_in_shared_memory(caller):
    region(caller, "in", 2 * ROW.nbytes, ROW, ROW + 1)
    result = region(caller, "out", ROW.nbytes)
    inputs = [
        placed(caller, "left", ROW.shape, "FP32", "in", ROW.nbytes),
        placed(caller, "right", ROW.shape, "FP32", "in", ROW.nbytes, ROW.nbytes),
    ]
    answer = caller.call("infer", "add", inputs, outputs=[wanted(caller, "sum", "out", ROW.nbytes)])
    assert (floats(result, ROW.shape) == 2 * ROW + 1).all()
    output = told(answer, "sum")
    assert "data" not in output and output["shape"] == [1, 16] and output["datatype"] == "FP32"
    there = {"shared_memory_region": "out", "shared_memory_byte_size": ROW.nbytes}
    assert output.get("parameters") == (None if caller.is_rest else there), "Triton's clients would not know them over REST"


def test_some_tensors_lie_there_and_others_travel(caller):
    region(caller, "in", ROW.nbytes, ROW)
    result = region(caller, "out", 4 * ROW.nbytes)
    at = 2 * ROW.nbytes
    for names in (("INPUT0", "INPUT1"), ("INPUT1", "INPUT0")):
        lies, travels = names
        inputs = {
            lies: placed(caller, lies, ROW.shape, "FP32", "in", ROW.nbytes),
            travels: caller.tensor(travels, np.ones_like(ROW)),
        }
        outputs = [wanted(caller, "OUTPUT1", "out", ROW.nbytes, at), wanted(caller, "OUTPUT0")]
        answer = caller.call("infer", "both", [inputs["INPUT0"], inputs["INPUT1"]], outputs=outputs)
        assert (answer.as_numpy("OUTPUT0") == ROW + 1).all()
        sign = 1 if lies == "INPUT0" else -1
        assert (floats(result, ROW.shape, at) == sign * (ROW - 1)).all()
        if not caller.is_rest:
            assert told(answer, "OUTPUT1")["parameters"]["shared_memory_offset"] == at


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype(blocking, datatype):
    if datatype == "BYTES":
        array = np.array([["one", ""], ["käse", "x" * 300]], dtype=object)
        content = serialize_byte_tensor(array).item()
    else:
        sizes = {"BOOL": 1, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
        size = sizes.get(datatype) or int(datatype.lstrip("UINT")) // 8
        content = bytes(range(1, 1 + 4 * size)) if datatype != "BOOL" else b"\x01\x00\x01\x01"
    region(blocking, "in", len(content))
    segment("in").write_bytes(content)
    region(blocking, "out", len(content) + 10)
    inputs = [placed(blocking, "x", (2, 2), datatype, "in", len(content))]
    outputs = [wanted(blocking, "y", "out", len(content) + 5)]
    answer = blocking.call("infer", f"identity_{datatype.lower()}", inputs, outputs=outputs)
    assert segment("out").read_bytes() == content + bytes(10)
    output = told(answer, "y")
    if not blocking.is_rest:
        assert output["parameters"]["shared_memory_byte_size"] == len(content), "of what was written"
    assert (output["datatype"], output["shape"]) == (datatype, [2, 2])


def test_large_tensors(caller):
    array = np.random.default_rng(1).random((1, LARGE), np.float32)
    region(caller, "in", array.nbytes, array)
    result = region(caller, "out", array.nbytes)
    inputs = [placed(caller, "x", array.shape, "FP32", "in", array.nbytes)]
    caller.call("infer", "identity_fp32", inputs, outputs=[wanted(caller, "y", "out", array.nbytes)])
    assert (floats(result, array.shape) == array).all()


def test_regions_are_told_as_they_were_registered(caller):
    region(caller, "a", 100)
    caller.call("register_system_shared_memory", "b", f"{PREFIX}a", 50, 10)
    status = regions(caller.call("get_system_shared_memory_status"))
    a = {"name": "a", "key": f"{PREFIX}a", "offset": 0, "byte_size": 100}
    b = {"name": "b", "key": f"{PREFIX}a", "offset": 10, "byte_size": 50}
    assert status == {"a": a, "b": b}
    assert regions(caller.call("get_system_shared_memory_status", "b")) == {"b": b}
    counted = metrics(caller.server)
    assert (counted["kinglet_shared_memory_regions"], counted["kinglet_shared_memory_bytes"]) == (2, 150)
    refused(lambda: caller.call("get_system_shared_memory_status", "c"), "not found", '"c"')
    caller.call("unregister_system_shared_memory", "c")
    caller.call("unregister_system_shared_memory", "b")
    assert set(regions(caller.call("get_system_shared_memory_status"))) == {"a"}
    caller.call("unregister_system_shared_memory")
    assert regions(caller.call("get_system_shared_memory_status")) == {}
    assert metrics(caller.server)["kinglet_shared_memory_bytes"] == 0


def regions(status) -> dict[str, dict]:
    if isinstance(status, list):
        return {line["name"]: line for line in status}
    found = status.get("regions", {}).values()
    number = {"offset": 0, "byte_size": 0}
    return {line["name"]: number | {k: int(v) if k in number else v for k, v in line.items()} for line in found}


def test_a_name_stands_for_one_region(caller):
    region(caller, "a", 100)
    again = ("StatusCode.ALREADY_EXISTS", "400")
    with pytest.raises(Exception) as error:
        caller.call("register_system_shared_memory", "a", f"{PREFIX}a", 10)
    assert error.value.status() in again and "registered already" in error.value.message()


@pytest.fixture
def strangers(tmp_path):
    """What lies in the folder and is nobody's to register."""
    links = {"link": "/etc/passwd", "inside": segment("real").name}
    for name, target in links.items():
        segment(name).symlink_to(target)
    segment("real").write_bytes(bytes(64))
    os.mkfifo(segment("pipe"))
    segment("folder").mkdir()
    segment("twice").write_bytes(bytes(64))
    os.link(segment("twice"), segment("second"))
    other = SEGMENTS / f"other_{uuid.uuid4().hex}"
    other.write_bytes(bytes(64))
    yield other.name
    for name in ("link", "inside", "real", "pipe", "twice", "second"):
        segment(name).unlink()
    segment("folder").rmdir()
    other.unlink()


def test_keys_lead_to_segments_of_the_prefix_and_nowhere_else(blocking, strangers):
    keys = [f"{PREFIX}{name}" for name in ("none", "link", "inside", "pipe", "folder", "second", "x/../real", "real/")]
    keys += [f"/{strangers}", strangers, "/etc/passwd", "../etc/passwd", f"/../shm{PREFIX}real", f"{PREFIX}real\0", ""]
    keys += [PREFIX + "x" * 300, PREFIX + "é"]
    for key in keys:
        told = refused(lambda: blocking.call("register_system_shared_memory", "new", key, 64), "invalid", "key")
        shown = [part for part in (key, strangers, str(SEGMENTS), PREFIX) if part and part in told]
        assert not shown, f"{key!r}: {told}"
    assert regions(blocking.call("get_system_shared_memory_status")) == {}
    blocking.call("register_system_shared_memory", "new", f"{PREFIX}real", 64)


@pytest.mark.parametrize(
    ("offset", "byte_size"), [(0, 65), (64, 1), (1, 64), (0, 0), (2**63 - 1, 2**63 - 1), (2**63 - 1, 1), (0, 2**62)]
)
def test_a_region_lies_within_its_segment(blocking, offset, byte_size):
    blocking.regions.append(shm.create_shared_memory_region("a", f"{PREFIX}a", 64))
    with pytest.raises(Exception) as error:
        blocking.call("register_system_shared_memory", "a", f"{PREFIX}a", byte_size, offset)
    assert error.value.status() in REFUSALS["invalid"] + REFUSALS["overloaded"], error.value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": 5, "byte_size": 64},
        {"key": "KEY"},
        {"key": "KEY", "byte_size": -1},
        {"key": "KEY", "byte_size": 1.5},
        {"key": "KEY", "byte_size": "64"},
        {"key": "KEY", "byte_size": 64, "offset": -1},
        {"key": "KEY", "byte_size": 2**64},
        {"key": ["KEY"], "byte_size": 64},
    ],
)
def test_what_is_no_registration(server, body):
    status, told = post(server.http, "/v2/systemsharedmemory/region/a/register", body)
    assert status == 400 and "KEY" not in told["error"], told


def test_tensors_that_do_not_fit(blocking):
    region(blocking, "in", 128)
    region(blocking, "out", 128)

    def infer(inputs: tuple = ("in", 64), outputs: tuple = ("out", 64), **wish):
        one = placed(blocking, "left", (1, 16), "FP32", *inputs)
        two = placed(blocking, "right", (1, 16), "FP32", "in", 64)
        return blocking.call("infer", "add", [one, two], outputs=[wanted(blocking, "sum", *outputs, **wish)])

    infer()
    refused(lambda: infer(inputs=("in", 60)), "invalid", '"left"', "needs 64 bytes, got 60")
    refused(lambda: infer(inputs=("in", 64, 65)), "invalid", '"left"', "128 bytes", "offset 65")
    refused(lambda: infer(inputs=("in", 64, 2**63 - 1)), "invalid", '"left"', "128 bytes")
    refused(lambda: infer(inputs=("nope", 64)), "not found", '"left"', '"nope"')
    refused(lambda: infer(outputs=("out", 60)), "invalid", '"sum"', "at least 64 bytes", "got byte_size 60")
    refused(lambda: infer(outputs=("out", 129)), "invalid", '"sum"', "128 bytes")
    refused(lambda: infer(outputs=("nope", 64)), "not found", '"sum"', '"nope"')
    infer()


def test_classes_are_not_written_there(blocking):
    region(blocking, "out", 640)
    output = wanted(blocking, "sum", class_count=2)
    # tritonclient itself refuses to ask for both.
    asked = [{"name": "sum", "parameters": {"classification": 2, "shared_memory_region": "out", "shared_memory_byte_size": 640}}]
    if blocking.is_rest:
        tensors = [{"name": n, "shape": [1, 16], "datatype": "FP32", "data": [1] * 16} for n in ("left", "right")]
        status, told_ = post(blocking.server.http, "/v2/models/add/infer", {"inputs": tensors, "outputs": asked})
        assert status == 400 and "classes" in told_["error"], told_
        return
    output._output.parameters["shared_memory_region"].string_param = "out"
    output._output.parameters["shared_memory_byte_size"].int64_param = 640
    inputs = [blocking.tensor(name, ROW) for name in ("left", "right")]
    refused(lambda: blocking.call("infer", "add", inputs, outputs=[output]), "invalid", "classes")


@pytest.mark.parametrize("extra", [{"data": [1] * 16}, {"parameters": {"binary_data_size": 64}}])
def test_an_input_has_one_place(server, extra):
    with registered_by(Caller("rest", server)) as caller:
        region(caller, "in", 64)
        there = {"shared_memory_region": "in", "shared_memory_byte_size": 64} | extra.get("parameters", {})
        one = {"name": "left", "shape": [1, 16], "datatype": "FP32"} | extra | {"parameters": there}
        status, told_ = post(server.http, "/v2/models/add/infer", {"inputs": [one]})
    assert status == 400 and "has both" in told_["error"] and "shared_memory_region" in told_["error"], told_


def test_a_segment_that_becomes_shorter_costs_nobody_the_server(blocking):
    """Whoever reads a mapped page beyond the end of its file is ended by the system."""
    nbytes = 4 * LARGE
    region(blocking, "in", nbytes, np.zeros((1, LARGE), np.float32))
    region(blocking, "out", nbytes)
    process = blocking.server.process

    def infer():
        inputs = [placed(blocking, "x", (1, LARGE), "FP32", "in", nbytes)]
        return blocking.call("infer", "identity_fp32", inputs, outputs=[wanted(blocking, "y", "out", nbytes)])

    infer()
    os.truncate(segment("out"), 5000)
    refused(infer, "invalid", '"y"', "shorter")
    assert segment("out").stat().st_size == 5000
    os.truncate(segment("in"), 0)
    refused(infer, "invalid", '"x"', "shorter")
    assert process.poll() is None
    for name in ("in", "out"):
        os.truncate(segment(name), nbytes)
    infer()


def test_a_segment_that_changes_all_the_time(blocking):
    nbytes = 4 * LARGE
    region(blocking, "in", nbytes)
    region(blocking, "out", nbytes)
    ended = threading.Event()

    def change():
        while not ended.is_set():
            for size in (nbytes, 4096, 0, nbytes // 2):
                os.truncate(segment("in"), size)
                os.truncate(segment("out"), size)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            inputs = [placed(blocking, "x", (1, LARGE), "FP32", "in", nbytes)]
            with contextlib.suppress(tritonclient.utils.InferenceServerException):
                blocking.call("infer", "identity_fp32", inputs, outputs=[wanted(blocking, "y", "out", nbytes)])
    finally:
        ended.set()
        thread.join()
    assert blocking.server.process.poll() is None
    blocking.infer("add", {"left": ROW, "right": ROW})


def test_a_request_goes_on_with_a_region_that_is_unregistered(blocking):
    shape, nbytes = (1, 1, SLOW_WIDTH), 4 * SLOW_WIDTH
    region(blocking, "in", nbytes, np.ones(shape, np.float32))
    results = [region(blocking, f"out{n}", nbytes) for n in range(8)]
    plain = blocking.infer("slow", {"x": np.ones(shape, np.float32)}).as_numpy("y")

    def infer(n: int):
        inputs = [placed(blocking, "x", shape, "FP32", "in", nbytes)]
        other = Caller(blocking.kind, blocking.server)
        return other.call("infer", "slow", inputs, outputs=[wanted(blocking, "y", f"out{n}", nbytes)])

    waiting = lambda: metrics(blocking.server)["kinglet_in_flight_requests"]
    with ThreadPoolExecutor(8) as clients:
        pending = [clients.submit(infer, n) for n in range(8)]
        wait_for(lambda: waiting() >= 4)
        blocking.call("unregister_system_shared_memory")
        under_way = waiting()
        assert regions(blocking.call("get_system_shared_memory_status")) == {}
        answered = sum(future.exception() is None for future in pending)
    assert under_way > 0 and answered >= under_way, "those under way were answered"
    written = [floats(result, shape) for result in results]
    for future, found in zip(pending, written, strict=True):
        assert future.exception() is not None or np.allclose(found, plain)
    blocking.call("register_system_shared_memory", "in", f"{PREFIX}in", nbytes)


@pytest.mark.parametrize("kind", MODULES)
def test_nothing_passes_a_limit_by_shared_memory(models, tmp_path, kind):
    small = {
        "KINGLET__LIMITS__BODY_BYTES_MAX": "4KiB",
        "KINGLET__ADMISSION__BYTES_MAX": "6KiB",
        "KINGLET__SHARED_MEMORY__REGIONS_MAX": "2",
        "KINGLET__SHARED_MEMORY__BYTES_MAX": "16KiB",
    }
    with Server([models], tmp_path / "log", SETTINGS | small) as running:
        with registered_by(Caller(kind, running)) as caller:
            region(caller, "in", 8192)

            def infer(floats: int, model: str = "identity_fp32"):
                return caller.call("infer", model, [placed(caller, "x", (1, floats), "FP32", "in", 4 * floats)])

            infer(1024)
            refused(lambda: infer(1025), "too large", "4KiB")
            two = [placed(caller, name, (1, 640), "FP32", "in", 2560) for name in ("left", "right")]
            refused(lambda: caller.call("infer", "add", two), "too large", "4KiB")
            register = lambda name, size: caller.call("register_system_shared_memory", name, f"{PREFIX}in", size)
            register("more", 8192)
            refused(lambda: register("many", 1), "overloaded", "regions", "2")
            caller.call("unregister_system_shared_memory", "more")
            segment("in").write_bytes(bytes(8193))
            refused(lambda: register("more", 8193), "overloaded", "bytes", "16384")
            register("more", 8192)


@pytest.mark.parametrize("kind", MODULES)
def test_bytes_in_flight_count(models, tmp_path, kind):
    """Three requests of 1 KiB each pass the 2 KiB that may be in flight, wherever their bytes lie."""
    shape, nbytes = (1, 1, SLOW_WIDTH), 4 * SLOW_WIDTH
    small = {"KINGLET__LIMITS__BODY_BYTES_MAX": "2KiB", "KINGLET__ADMISSION__BYTES_MAX": "2KiB"}
    with Server([models], tmp_path / "log", SETTINGS | small) as running:
        with registered_by(Caller(kind, running)) as caller:
            region(caller, "in", nbytes)

            def infer(_):
                own = Caller(kind, running)
                with contextlib.suppress(tritonclient.utils.InferenceServerException):
                    own.call("infer", "slow", [placed(caller, "x", shape, "FP32", "in", nbytes)])

            with ThreadPoolExecutor(8) as clients:
                list(clients.map(infer, range(8)))
            assert metrics(running)['kinglet_admission_refused_total{reason="bytes"}'] > 0


def test_answers_are_kept_by_what_lies_there(blocking):
    made = region(blocking, "in", 64, ROW)
    result = region(blocking, "out", 64)

    def infer() -> np.ndarray:
        inputs = [placed(blocking, "x", ROW.shape, "FP32", "in", 64)]
        blocking.call("infer", "kept", inputs, outputs=[wanted(blocking, "y", "out", 64)])
        return floats(result, ROW.shape)

    hits = lambda: metrics(blocking.server).get(
        'kinglet_cache_lookups_total{model="kept",outcome="hit",version="1"}', 0
    )
    before = hits()
    mine = ROW + {"rest": 100, "grpc": 200}[blocking.kind]
    shm.set_shared_memory_region(made, [mine])
    assert (infer() == mine).all() and hits() == before
    segment("out").write_bytes(bytes(64))
    assert (infer() == mine).all() and hits() == before + 1
    shm.set_shared_memory_region(made, [mine + 1])
    assert (infer() == mine + 1).all() and hits() == before + 1


def test_many_at_a_time(blocking):
    """Requests of many clients that share batches, each with a place of its own in the same two regions."""
    count, nbytes = 32, ROW.nbytes
    region(blocking, "in", count * nbytes, np.concatenate([ROW + n for n in range(count)]))
    result = region(blocking, "out", count * nbytes)

    def infer(n: int):
        own = Caller(blocking.kind, blocking.server)
        inputs = [
            placed(blocking, "left", ROW.shape, "FP32", "in", nbytes, n * nbytes),
            own.tensor("right", np.full_like(ROW, n)),
        ]
        own.call("infer", "add", inputs, outputs=[wanted(blocking, "sum", "out", nbytes, n * nbytes)])

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(infer, range(count)))
    found = floats(result, (count, 16))
    assert (found == np.concatenate([ROW + 2 * n for n in range(count)])).all()


def test_a_stream(server):
    count, nbytes = 40, ROW.nbytes
    with registered_by(Caller("grpc", server)) as caller:
        region(caller, "in", count * nbytes, np.concatenate([ROW + n for n in range(count)]))
        result = region(caller, "out", count * nbytes)
        answers: queue.Queue = queue.Queue()
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            for n in range(count):
                inputs = [placed(caller, "x", ROW.shape, "FP32", "in", nbytes, n * nbytes)]
                outputs = [wanted(caller, "y", "out", nbytes, n * nbytes)]
                client.async_stream_infer("identity_fp32", inputs, outputs=outputs, request_id=str(n))
            inputs = [placed(caller, "x", ROW.shape, "FP32", "in", nbytes, count * nbytes)]
            client.async_stream_infer("identity_fp32", inputs, request_id="beyond")
            got = [answers.get(timeout=30) for _ in range(count + 1)]
            client.stop_stream()
        errors = [error for _, error in got if error]
        assert len(errors) == 1 and "beyond" in errors[0].message() and '"in"' in errors[0].message()
        found = floats(result, (count, 16))
        assert (found == np.concatenate([ROW + n for n in range(count)])).all()


def test_pages_are_refused(server):
    """A page of any site can have a visitor's browser send a plain POST to here."""
    with registered_by(Caller("rest", server)) as caller:
        region(caller, "out", 64, np.zeros((1, 16), np.float32))
        tensors = [{"name": n, "shape": [1, 16], "datatype": "FP32", "data": [1] * 16} for n in ("left", "right")]
        there = {"shared_memory_region": "out", "shared_memory_byte_size": 64}
        request = {"inputs": tensors, "outputs": [{"name": "sum", "parameters": there}]}
        plain = {"inputs": tensors}
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert post(server.http, "/v2/models/add/infer", plain, headers)[0] == 200
            assert post(server.http, "/v2/models/add/infer", request, headers)[0] == 403
            body = {"key": f"{PREFIX}out", "byte_size": 64}
            assert post(server.http, "/v2/systemsharedmemory/region/new/register", body, headers)[0] == 403
            assert post(server.http, "/v2/systemsharedmemory/unregister", None, headers)[0] == 403
        assert segment("out").read_bytes() == bytes(64)
        assert post(server.http, "/v2/models/add/infer", request)[0] == 200
        assert segment("out").read_bytes() == np.full((1, 16), 2, np.float32).tobytes()


def test_the_admin_listener_has_it_too(server):
    with registered_by(Caller("rest", server)) as caller:
        region(caller, "a", 64)
        connection = http.client.HTTPConnection(server.admin, timeout=30)
        connection.request("GET", "/v2/systemsharedmemory/region/a/status")
        [line] = json.load(connection.getresponse())
        assert line["byte_size"] == 64
        assert post(server.admin, "/v2/systemsharedmemory/unregister")[0] == 200
        assert regions(caller.call("get_system_shared_memory_status")) == {}


def test_no_file_stays_open(server):
    with registered_by(Caller("grpc", server)) as caller:
        region(caller, "a", 64)
        opened = metrics(server)["process_open_fds"]
        for _ in range(20):
            caller.call("register_system_shared_memory", "b", f"{PREFIX}a", 64)
            caller.call("unregister_system_shared_memory", "b")
        assert abs(metrics(server)["process_open_fds"] - opened) < 10
