"""What is wrong with an object, by the schema of its kind. A kind that is not known here is wrong: validators pass over such."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

HERE = Path(__file__).parent
# The oldest that the chart takes, and the newest there is.
VERSIONS = ("1.27", "1.37")
KUBERNETES = {
    ("apps/v1", "Deployment"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
}
OPERATORS = {
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("serving.knative.dev/v1", "Service"),
}
KSERVE = {
    ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"),
    ("serving.kserve.io/v1beta1", "InferenceService"),
}


def problems(document: dict) -> list[str]:
    kind = kind_of(document)
    if kind in KUBERNETES:
        return of_kubernetes(document)
    if kind in OPERATORS:
        return of_operators(document)
    if kind in KSERVE:
        return of_kserve(document)
    return [f"expected a kind that is known here, got {kind}"]


def kind_of(document: dict) -> tuple[str, str]:
    return document.get("apiVersion"), document.get("kind")


def of_kubernetes(document: dict, versions: tuple[str, ...] = VERSIONS) -> list[str]:
    found = []
    for version in versions:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {error.message}")
    return found


def of_operators(document: dict) -> list[str]:
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("there is no node with npm here, whose packages have the schemas of operators")
    command = ["node", HERE / "operators.mjs"]
    done = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_kserve(document: dict) -> list[str]:
    schema = json.loads((HERE / "kserve.schema.json").read_text())["definitions"]
    own = jsonschema.Draft7Validator({"$ref": f"#/definitions/{document['kind']}", "definitions": schema})
    found = [error.message for error in own.iter_errors(document)]
    containers = document["spec"].get("containers") or [container_of(document)]
    return found + of_kubernetes(pod_of(containers), VERSIONS[-1:])


def container_of(service: dict) -> dict:
    """What an InferenceService says of its model's container."""
    model = service["spec"]["predictor"].get("model", {})
    ours = {key: value for key, value in model.items() if key in {"args", "env", "ports", "resources"}}
    return {"name": "kserve-container", "image": "any"} | ours


def pod_of(containers: list[dict]) -> dict:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": {"containers": containers}}
