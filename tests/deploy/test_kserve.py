"""The runtime for KServe and its samples: valid, and what Knative would be given is something that it takes."""

import pytest

from chart import container
from files import DEFAULTS, END_SECONDS, METRICS, PORTS, PROBES, RUNTIME, SAMPLES, metrics, seconds, size
from server import checks
from validators import problems

(CONTAINER,) = RUNTIME["spec"]["containers"]
ENVIRONMENT = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
ARGUMENTS = dict(argument.split("=") for argument in CONTAINER["args"][1:])
# What a pod is given where nothing is said.
TERMINATION_SECONDS = 30
# The port of the container for REST in KServe's own runtimes, and ours.
PORT = 8080


def merged(sample: dict) -> dict:
    """The container as KServe makes it of runtime and service: ports of one number are one, the service's."""
    ports = {port["containerPort"]: port for port in CONTAINER["ports"]}
    ports |= {port["containerPort"]: port for port in sample["spec"]["predictor"]["model"].get("ports", [])}
    name = sample["metadata"]["name"]
    arguments = [argument.replace("{{.Name}}", name) for argument in CONTAINER["args"]]
    return CONTAINER | {"args": arguments, "ports": list(ports.values())}


@pytest.mark.parametrize("document", [RUNTIME, *SAMPLES.values()], ids=["runtime", *SAMPLES])
def test_it_is_valid(document):
    assert problems(document) == []


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_served_by_the_runtime(name):
    predictor = SAMPLES[name]["spec"]["predictor"]
    model = predictor["model"]
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    formats = [{"name": known["name"], "version": known["version"]} for known in RUNTIME["spec"]["supportedModelFormats"]]
    assert model["modelFormat"] in formats
    # Both a canary and no replica at all are Knative's.
    mode = SAMPLES[name]["metadata"]["annotations"]["serving.kserve.io/deploymentMode"]
    assert (mode == "Serverless") == ("canaryTrafficPercent" in predictor or predictor["minReplicas"] == 0)
    for metric in predictor.get("autoScaling", {}).get("metrics", []):
        query = metric["external"]["metric"]["query"]
        assert metrics(query) == {"kinglet_queue_requests"} <= METRICS
        assert f'model="{SAMPLES[name]["metadata"]["name"]}"' in query


@pytest.mark.parametrize("name", SAMPLES)
def test_knative_takes_its_container(name):
    """One port, which probes ask, too: HTTP/2 in the clear where gRPC is to be spoken."""
    sample = SAMPLES[name]
    made = merged(sample)
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": sample["metadata"]["name"]},
        "spec": {"template": {"metadata": {"annotations": sample["metadata"]["annotations"]}, "spec": {"containers": [made]}}},
    }
    assert problems(service) == []
    (port,) = made["ports"]
    grpc = sample["spec"]["predictor"]["model"]["protocolVersion"].startswith("grpc")
    assert port == {"name": "h2c" if grpc else "http1", "containerPort": PORT, "protocol": "TCP"}


def test_ports_and_probes_agree():
    listens = {ARGUMENTS["--http"], ARGUMENTS["--grpc"]}
    assert listens == {f"0.0.0.0:{PORT}"}
    assert ARGUMENTS["--admin"] == f"0.0.0.0:{PORTS['admin']}"
    annotations = RUNTIME["spec"]["annotations"]
    assert annotations == {"prometheus.kserve.io/port": str(PORTS["admin"]), "prometheus.kserve.io/path": "/metrics"}
    for probe, path in (("readinessProbe", "/v2/health/ready"), ("livenessProbe", "/v2/health/live")):
        assert CONTAINER[probe]["httpGet"] == {"path": path, "port": PORT} and path in PROBES


def test_a_pod_is_given_the_time_that_it_takes_to_end():
    drain = [ENVIRONMENT["KINGLET__DRAIN__DELAY"], ENVIRONMENT["KINGLET__DRAIN__GRACE"]]
    assert sum(map(seconds, drain)) + END_SECONDS == TERMINATION_SECONDS


def test_requests_leave_room_for_a_model():
    bounds = [ENVIRONMENT["KINGLET__ADMISSION__BYTES_MAX"], ENVIRONMENT["KINGLET__ADMISSION__RECEIVING_BYTES_MAX"]]
    bounds.append(DEFAULTS["cache"]["bytes_max"])
    assert sum(map(size, bounds)) <= size(CONTAINER["resources"]["limits"]["memory"]) / 2


def test_variables_are_those_of_keys():
    for name in ENVIRONMENT:
        prefix, room, key = name.lower().split("__")
        assert prefix == "kinglet" and key in DEFAULTS[room]


def test_it_has_the_rights_and_the_image_of_the_chart():
    assert CONTAINER["image"] == container("defaults")["image"]
    assert CONTAINER["securityContext"].items() >= container("defaults")["securityContext"].items()


def test_the_server_takes_its_arguments():
    """With a model of this repository where KServe has put one."""
    served = merged(SAMPLES["rest"])["args"][1:]
    arguments = [argument.replace("/mnt/models", "models/digits") for argument in served]
    assert "digits " in checks(*arguments, environment=ENVIRONMENT)
