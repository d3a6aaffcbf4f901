"""Who may call what, with clients' own ways to show a key or a token: every wire, every RPC, limits, and keys that change."""

import hashlib
import json
import signal
import time

import grpc
import httpx
import jwt
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.protobuf import message_factory
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_service_pb2_grpc
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from server import Server
from watching import wait_for
from wires import grpc_input, rest_input

ROW = np.arange(4, dtype=np.float32).reshape(1, 4)
MODEL, OTHER = "identity_fp32", "add"
ISSUER, AUDIENCE = "https://issuer.example", "kinglet"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def tenant(name: str, scopes: list[str], **limits) -> str:
    lines = [f"[tenants.{name}]", f"scopes = {json.dumps(scopes)}"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in limits.items()]
    return "\n".join([*lines, f'keys = [{{ name = "only", sha256 = "{digest(f"key of {name}")}" }}]', ""])


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def key_of(name: str) -> dict[str, str]:
    return bearer(f"key of {name}")


class House:
    """A server and the files that say who may call it."""

    def __init__(self, folder, repository, **settings):
        self.tenants, self.keys = folder / "tenants.toml", folder / "keys.json"
        self.write()
        own = {"TENANTS_FILE": self.tenants, "RELOAD_INTERVAL": "1h"}
        own = {f"KINGLET__ACCESS__{key}": str(value) for key, value in own.items()}
        own |= {"KINGLET__REPOSITORY__CONTROL": "explicit", "KINGLET__REPOSITORY__LOAD_AT_START": "*"}
        self.server = Server([repository], folder / "kinglet.log", {**own, **settings})

    def write(self, more: str = "") -> None:
        known = [
            tenant("root", ["*"]),
            tenant("runner", [f"infer:{MODEL}"]),
            tenant("reader", ["read:*"]),
            tenant("foreign", [f"infer:{OTHER}"]),
        ]
        self.tenants.write_text("\n".join([*known, more]))

    def reload(self) -> None:
        self.server.send(signal.SIGHUP)

    def get(self, path: str, headers=None, door: str = "http") -> httpx.Response:
        return httpx.get(f"http://{getattr(self.server, door)}{path}", headers=headers, timeout=20)

    def post(self, path: str, headers=None, door: str = "http", **body) -> httpx.Response:
        return httpx.post(f"http://{getattr(self.server, door)}{path}", headers=headers, timeout=20, **body)

    def infer(self, headers=None, model: str = MODEL, rows: int = 1) -> httpx.Response:
        data = [0.0] * (4 * rows)
        inputs = [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}]
        return self.post(f"/v2/models/{model}/infer", headers, json={"inputs": inputs})

    def metric(self, name: str, **labels: str) -> float:
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = self.get("/metrics", door="admin").text.splitlines()
        return sum(float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith(f"{name}{{") and all(w in x for w in wanted))

    def audit(self) -> list[dict]:
        lines = [json.loads(line) for line in self.server.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("target") == "kinglet::audit"]


@pytest.fixture(scope="module")
def house(zoo, tmp_path_factory):
    house = House(tmp_path_factory.mktemp("access"), zoo)
    with house.server:
        yield house


@pytest.fixture
def own(zoo, tmp_path):
    """A house whose files a test may change."""
    house = House(tmp_path, zoo)
    with house.server:
        yield house


def rest_call(server, headers):
    client = tritonclient.http.InferenceServerClient(server.http)
    return client.infer(MODEL, [rest_input("x", ROW, True)], headers=headers).as_numpy("y")


def grpc_call(server, headers):
    client = tritonclient.grpc.InferenceServerClient(server.grpc)
    return client.infer(MODEL, [grpc_input("x", ROW)], headers=headers).as_numpy("y")


@pytest.mark.parametrize("call, denied, forbidden", [
    (rest_call, "401", "403"),
    (grpc_call, "StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED"),
], ids=["rest", "grpc"])  # fmt: skip
def test_a_key_lets_its_tenant_in(house, call, denied, forbidden):
    for headers in (key_of("runner"), {"x-api-key": "key of runner"}, key_of("root")):
        np.testing.assert_array_equal(call(house.server, headers), ROW)
    for headers in (None, bearer("other"), {"x-api-key": "KEY OF RUNNER"}):
        with pytest.raises(InferenceServerException) as refused:
            call(house.server, headers)
        assert refused.value.status() == denied
    for name in ("foreign", "reader"):
        with pytest.raises(InferenceServerException) as refused:
            call(house.server, key_of(name))
        assert refused.value.status() == forbidden
        assert 'expected scope "infer:' in refused.value.message()


def test_refusals_say_how_to_come_in(house):
    refused = house.infer()
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="kinglet"')
    assert "x-api-key" in refused.json()["error"]
    assert house.infer({"authorization": "Digest x"}).status_code == 401
    # Whether there is such a model is nothing for who may not use it.
    assert house.infer(key_of("runner"), model="absent").status_code == 403
    assert house.infer(key_of("root"), model="absent").status_code == 404


def test_health_and_metrics_are_open(house):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/health/startup"):
        assert house.get(path).status_code == 200
        assert house.get(path, door="admin").status_code == 200
    assert house.get("/metrics", door="admin").status_code == 200
    assert tritonclient.grpc.InferenceServerClient(house.server.grpc).is_server_ready()


def test_lists_tell_of_models_that_the_caller_may_read(house):
    def rest(path, name, **post):
        return (house.post(path, key_of(name), **post) if post else house.get(path, key_of(name))).json()

    assert rest("/v2/models", "runner") == {"models": [MODEL]}
    assert rest("/v1/models", "runner") == {"models": [MODEL]}
    assert len(rest("/v2/models", "reader")["models"]) > 10
    assert {entry["name"] for entry in rest("/v2/models/stats", "runner")["model_stats"]} == {MODEL}
    assert {entry["name"] for entry in rest("/v2/repository/index", "runner", json={})} == {MODEL}
    client = tritonclient.grpc.InferenceServerClient(house.server.grpc)
    index = client.get_model_repository_index(headers=key_of("foreign"))
    assert {entry.name for entry in index.models} == {OTHER}
    statistics = client.get_inference_statistics(headers=key_of("foreign"))
    assert {entry.name for entry in statistics.model_stats} == {OTHER}


def test_operators_calls_are_theirs(house):
    for door, method, path in [
        ("admin", "GET", "/ui/"),
        ("admin", "GET", "/admin/energy"),
        ("admin", "POST", "/admin/config/reload"),
        ("admin", "GET", "/v2/logging"),
        ("http", "POST", "/v2/logging"),
        ("http", "POST", f"/v2/repository/models/{OTHER}/unload"),
        ("http", "POST", f"/v2/repository/models/{OTHER}/load"),
        ("http", "GET", "/v2/systemsharedmemory/status"),
        ("http", "GET", f"/v2/models/{MODEL}/trace/setting"),
    ]:
        url = f"http://{getattr(house.server, door)}{path}"
        assert httpx.request(method, url).status_code == 401, path
        assert httpx.request(method, url, headers=key_of("runner")).status_code == 403, path
        assert httpx.request(method, url, headers=key_of("root")).status_code not in (401, 403), path


def test_a_browser_is_asked_for_a_password(house):
    asked = house.get("/ui/", door="admin")
    assert asked.status_code == 401 and asked.headers["www-authenticate"].startswith("Basic realm=")
    with httpx.Client(auth=("anybody", "key of root")) as browser:
        page = f"http://{house.server.admin}"
        assert browser.get(f"{page}/ui/").status_code == 200
        own = {"origin": page}
        foreign = {"origin": "http://evil.example"}
        url = f"{page}/v2/models/{MODEL}/infer"
        assert browser.post(url, headers=own, json={}).status_code == 400
        assert browser.post(url, headers=foreign, json={}).status_code == 403
        # The same over REST's own port, where other sites may ask for inference.
        assert browser.post(f"http://{house.server.http}/v2/models/{MODEL}/infer", headers=foreign, json={}).status_code == 403


def every_call():
    """Each RPC of the protocol with a message that names a model, where one can."""
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in service.methods:
        message = message_factory.GetMessageClass(method.input_type)()
        fields = method.input_type.fields_by_name
        named = "model_name" if "model_name" in fields else "name" if method.name.startswith("Model") else None
        if named:
            setattr(message, named, MODEL)
        yield pytest.param(service.full_name, method, message, bool(named), id=method.name)


@pytest.mark.parametrize("service, method, message, names_a_model", list(every_call()))
def test_every_rpc_asks(house, service, method, message, names_a_model):
    open_calls = ("ServerLive", "ServerReady")
    with grpc.insecure_channel(house.server.grpc) as channel:
        path = f"/{service}/{method.name}"
        reply = message_factory.GetMessageClass(method.output_type).FromString

        def code(headers: dict):
            metadata = list(headers.items())
            try:
                if method.client_streaming:
                    call = channel.stream_stream(path, type(message).SerializeToString, reply)
                    answers = list(call(iter([message]), metadata=metadata, timeout=20))
                    # A stream tells in its answers.
                    return grpc.StatusCode.PERMISSION_DENIED if "may not do this" in answers[0].error_message else None
                channel.unary_unary(path, type(message).SerializeToString, reply)(message, metadata=metadata, timeout=20)
                return None
            except grpc.RpcError as error:
                return error.code()

        if method.name in open_calls:
            assert code({}) is None
            return
        assert code({}) == grpc.StatusCode.UNAUTHENTICATED
        assert code(bearer("other")) == grpc.StatusCode.UNAUTHENTICATED
        strangers = grpc.StatusCode.PERMISSION_DENIED
        is_read = method.name in ("ServerMetadata", "RepositoryIndex")
        assert code(key_of("foreign")) == (None if is_read else strangers)
        if not (names_a_model and "Unload" in method.name):
            assert code(key_of("root")) not in (strangers, grpc.StatusCode.UNAUTHENTICATED)


def test_tensorflow_serving_asks_too(house):
    with grpc.insecure_channel(house.server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=MODEL))
        for headers, wanted in (({}, "UNAUTHENTICATED"), (key_of("foreign"), "PERMISSION_DENIED"), (key_of("root"), "INVALID_ARGUMENT")):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Predict(request, metadata=list(headers.items()), timeout=20)
            assert refused.value.code().name == wanted


def test_who_changes_something_and_who_is_not_let_is_told(house):
    # Not more than a few refusals a second are written.
    time.sleep(1.2)
    house.post(f"/v2/repository/models/{MODEL}/unload", key_of("foreign"))
    house.post("/v2/logging", key_of("root"), json={})
    told = wait_for(lambda: [line for line in house.audit() if line.get("path") == "/v2/logging" and line.get("tenant")])[-1]
    assert (told["tenant"], told["credential"], told["status"], told["scope"]) == ("root", "only", 200, "admin")
    assert told["peer"].startswith("127.0.0.1:")
    refused = [line for line in house.audit() if line.get("path", "").endswith("/unload") and line.get("reason") == "scope"]
    assert refused and "load:identity_fp32" in refused[-1]["error"]
    assert "key of" not in house.server.log.read_text()


def test_metrics_count_refusals_and_tenants(house):
    before = [house.metric("kinglet_access_refused_total", reason=reason) for reason in ("missing", "unknown", "scope")]
    rows = house.metric("kinglet_tenant_rows_total", tenant="runner")
    house.infer()
    house.infer(bearer("x"))
    house.infer(key_of("foreign"))
    assert house.infer(key_of("runner"), rows=3).status_code == 200
    after = [house.metric("kinglet_access_refused_total", reason=reason) for reason in ("missing", "unknown", "scope")]
    assert [b - a for a, b in zip(before, after)] == [1, 1, 1]
    wait_for(lambda: house.metric("kinglet_tenant_rows_total", tenant="runner") == rows + 3)


def test_limits_of_a_tenant_are_its_own(own):
    own.write(
        tenant("slow", ["infer:*"], requests_per_second=2, burst="2s")
        + tenant("narrow", ["infer:*"], rows_per_second=10)
        + tenant("frugal", ["infer:*"], joules_per_second=1e-6)
    )
    own.reload()
    wait_for(lambda: own.infer(key_of("slow")).status_code != 401)
    answers = [own.infer(key_of("slow")) for _ in range(8)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 3 <= len(refused) <= 6
    assert refused[0].headers["retry-after"] == "1" and "requests, 2 a second" in refused[0].json()["error"]
    assert own.infer(key_of("runner")).status_code == 200
    with pytest.raises(InferenceServerException) as error:
        grpc_call(own.server, key_of("slow"))
    assert error.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    # More than there is goes once, and is paid for by waiting; what was refused costs nothing.
    assert own.infer(key_of("narrow"), rows=25).status_code == 200
    late = own.infer(key_of("narrow"))
    assert late.status_code == 429 and late.headers["retry-after"] in ("1", "2")
    wait_for(lambda: own.infer(key_of("narrow")).status_code == 200)
    assert own.infer(key_of("frugal")).status_code == 200
    assert own.infer(key_of("frugal")).status_code == 429
    assert own.metric("kinglet_tenant_energy_joules_total", tenant="frugal") > 0
    assert own.metric("kinglet_access_refused_total", reason="joules") == 1


def test_a_key_that_is_taken_away_ends_streams_too(own):
    own.write(tenant("passing", ["infer:*"]))
    own.reload()
    wait_for(lambda: own.infer(key_of("passing")).status_code == 200)
    answers = []
    client = tritonclient.grpc.InferenceServerClient(own.server.grpc)
    client.start_stream(lambda result, error: answers.append(error), headers=key_of("passing"))
    client.async_stream_infer(MODEL, [grpc_input("x", ROW)])
    wait_for(lambda: answers == [None])
    own.write()
    own.reload()
    wait_for(lambda: own.infer(key_of("passing")).status_code == 401)
    client.async_stream_infer(MODEL, [grpc_input("x", ROW)])
    wait_for(lambda: len(answers) == 2)
    assert "the API key is not known" in answers[1].message()
    client.stop_stream()


def test_files_that_are_wrong_leave_those_before(own):
    own.tenants.write_text("[tenants.root]\nscopes = [")
    own.reload()
    wait_for(lambda: "not taken anew" in own.server.log.read_text())
    assert own.infer(key_of("runner")).status_code == 200
    own.write()
    own.reload()


class Issuer:
    """Signs tokens as identity providers do."""

    def __init__(self, key, algorithm: str, name: str):
        self.key, self.algorithm, self.name = key, algorithm, name

    def jwk(self) -> dict:
        public = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.key.public_key(), as_dict=True)
        return {**public, "kid": self.name, "use": "sig", "alg": self.algorithm}

    def token(self, **claims) -> str:
        now = int(time.time())
        own = {"iss": ISSUER, "aud": AUDIENCE, "sub": "robot", "iat": now, "exp": now + 60, **claims}
        return jwt.encode(own, self.key, self.algorithm, headers={"kid": self.name})


def test_tokens_by_keys_that_change(zoo, tmp_path):
    first = Issuer(rsa.generate_private_key(65537, 2048), "RS256", "first")
    second = Issuer(ec.generate_private_key(ec.SECP256R1()), "ES256", "second")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [first.jwk()]}))
    settings = {"JWKS_FILE": keys, "TOKEN_ISSUER": ISSUER, "TOKEN_AUDIENCE": AUDIENCE, "TOKEN_LEEWAY": "0s"}
    settings = {f"KINGLET__ACCESS__{key}": str(value) for key, value in settings.items()}
    house = House(tmp_path, zoo, **settings)
    with house.server:
        good = first.token(scope=f"openid infer:{MODEL}")
        np.testing.assert_array_equal(rest_call(house.server, bearer(good)), ROW)
        np.testing.assert_array_equal(grpc_call(house.server, bearer(good)), ROW)
        assert house.infer(bearer(good), model=OTHER).status_code == 403
        # Scopes of the tenant in the file, where the token has none.
        assert house.infer(bearer(first.token(sub="runner"))).status_code == 200
        for wrong, says in [
            (first.token(exp=int(time.time()) - 1), "has ended"),
            (first.token(aud="other"), '"aud"'),
            (first.token(iss="other"), '"iss"'),
            (first.token(nbf=int(time.time()) + 60), "has not begun"),
            (second.token(), "another algorithm or key"),
            (good[:-4] + "AAAA", "signature"),
            (jwt.encode({"sub": "robot"}, None, "none"), "another algorithm or key"),
        ]:
            refused = house.infer(bearer(wrong))
            assert refused.status_code == 401 and says in refused.json()["error"], refused.text
        brief = first.token(scope="infer:*", exp=int(time.time()) + 2)
        assert house.infer(bearer(brief)).status_code == 200
        wait_for(lambda: house.infer(bearer(brief)).status_code == 401)
        keys.write_text(json.dumps({"keys": [second.jwk()]}))
        house.reload()
        wait_for(lambda: house.infer(bearer(good)).status_code == 401)
        assert house.infer(bearer(second.token(scope="infer:*"))).status_code == 200


@pytest.mark.parametrize("is_open", [False, True])
def test_control_by_an_address_that_others_reach(zoo, tmp_path, is_open):
    settings = {"KINGLET__REPOSITORY__CONTROL": "explicit", "KINGLET__REPOSITORY__LOAD_AT_START": MODEL}
    settings["KINGLET__ACCESS__OPEN_CONTROL"] = str(is_open).lower()
    server = Server([zoo], tmp_path / "kinglet.log", settings)
    # Flags go before the environment: the addresses themselves must be the open ones.
    local = {name: getattr(server, name) for name in ("http", "grpc", "admin")}
    for name, address in local.items():
        setattr(server, name, address.replace("127.0.0.1", "0.0.0.0"))
    with server:
        rest = tritonclient.http.InferenceServerClient(local["http"])
        rpc = tritonclient.grpc.InferenceServerClient(local["grpc"])
        np.testing.assert_array_equal(rest.infer(MODEL, [rest_input("x", ROW, True)]).as_numpy("y"), ROW)
        assert httpx.get(f"http://{local['admin']}/metrics").status_code == 200
        assert httpx.get(f"http://{local['admin']}/ui/").status_code == (200 if is_open else 403)
        for client in (rest, rpc):
            if is_open:
                client.load_model(OTHER)
                client.unload_model(OTHER)
            else:
                with pytest.raises(InferenceServerException, match="access.tenants_file"):
                    client.load_model(OTHER)
