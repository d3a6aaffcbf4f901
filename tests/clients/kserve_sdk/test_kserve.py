"""The clients of the KServe SDK. In a process of their own: its protocol module and tritonclient's
both register the package `inference`, and protobuf allows that once."""

import asyncio

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.infer_type import RequestedOutput

from server import Server

LEFT = np.arange(16, dtype=np.float32).reshape(1, 16)
RIGHT = np.full((1, 16), 2, np.float32)


def request(binary: bool, outputs: list[str] | None = None) -> InferRequest:
    inputs = []
    for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT)):
        tensor = InferInput(name=name, shape=list(array.shape), datatype="FP32")
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    wanted = [RequestedOutput(name, parameters={"binary_data": binary}) for name in outputs or []]
    return InferRequest("sum_difference", inputs, request_id="from kserve", request_outputs=wanted)


def rest(server, call):
    async def run():
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            return await call(client, f"http://{server.http}")

    return asyncio.run(run())


def over_grpc(server, call):
    async def run():
        async with InferenceGRPCClient(server.grpc) as client:
            return await call(client)

    return asyncio.run(run())


def values(response) -> dict[str, np.ndarray]:
    return {output.name: output.as_numpy() for output in response.outputs}


def test_rest_health(server):
    """The SDK reads the bodies: {"live": true} and {"ready": true}."""
    assert rest(server, lambda client, url: client.is_server_live(url)) is True
    assert rest(server, lambda client, url: client.is_server_ready(url)) is True


@pytest.mark.parametrize(("model", "ready"), [("add", True), ("nope", False)])
def test_rest_model_ready(server, model, ready):
    assert rest(server, lambda client, url: client.is_model_ready(url, model)) is ready


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("outputs", [["OUTPUT0", "OUTPUT1"], ["OUTPUT1"], None])
def test_rest_infer(server, binary, outputs):
    response = rest(
        server, lambda client, url: client.infer(url, request(binary, outputs), model_name="sum_difference")
    )
    assert response.id == "from kserve" and response.model_name == "sum_difference"
    got = values(response)
    assert set(got) == set(outputs or ["OUTPUT0", "OUTPUT1"])
    assert (got["OUTPUT1"] == LEFT - 2).all()


def test_rest_infer_of_a_plain_dictionary(server):
    body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}]}
    response = rest(server, lambda client, url: client.infer(url, body, model_name="identity_bytes"))
    assert response.outputs[0].data == ["a", "b"]


def test_rest_errors_carry_the_reason(server):
    with pytest.raises(httpx.HTTPStatusError, match="nope") as failure:
        rest(server, lambda client, url: client.infer(url, request(True), model_name="nope"))
    assert failure.value.response.status_code == 404


def test_grpc_health(server):
    assert over_grpc(server, lambda client: client.is_server_live()) is True
    assert over_grpc(server, lambda client: client.is_server_ready()) is True


def test_grpc_model_ready(server):
    assert over_grpc(server, lambda client: client.is_model_ready("add")) is True


@pytest.mark.parametrize("binary", [True, False])
def test_grpc_infer(server, binary):
    """Raw contents or typed ones, as the SDK's user chose."""
    response = over_grpc(server, lambda client: client.infer(request(binary)))
    assert response.id == "from kserve"
    assert (values(response)["OUTPUT0"] == LEFT + 2).all()


def test_grpc_errors_carry_the_reason(server):
    asked = request(True)
    asked.model_name = "nope"
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        over_grpc(server, lambda client: client.infer(asked))
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND and "nope" in failure.value.details()


def test_metadata_in_kserves_messages(server):
    """KServe's own protocol file: its metadata has a field 6 that Triton's has not."""

    async def ask(client):
        return await client._client_stub.ModelMetadata(messages.ModelMetadataRequest(name="add"))

    metadata = over_grpc(server, ask)
    assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [
        ("left", "FP32", [-1, 16]),
        ("right", "FP32", [-1, 16]),
    ]


def test_load_in_kserves_messages(server):
    """KServe's load names the model in field 1, Triton's repository name: the model is still found,
    and refused for the control mode only."""

    async def ask(client):
        return await client._client_stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="add"))

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        over_grpc(server, ask)
    assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_loads_are_told_in_kserves_messages(zoo, tmp_path):
    """KServe's answers name the model and say what became of it, where Triton's are empty."""

    async def ask(client):
        stub = client._client_stub
        loaded = await stub.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="add"))
        unloaded = await stub.RepositoryModelUnload(messages.RepositoryModelUnloadRequest(model_name="add"))
        return loaded, unloaded

    with Server([zoo], tmp_path / "log", {"KINGLET__REPOSITORY__CONTROL": "explicit"}) as explicit:
        loaded, unloaded = over_grpc(explicit, ask)
    assert (loaded.model_name, loaded.isLoaded) == ("add", True)
    assert (unloaded.model_name, unloaded.isUnloaded) == ("add", True)
