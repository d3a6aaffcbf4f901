"""That each validator bites: an object that is right, and the same with one mistake."""

import copy

import pytest

from chart import one
from files import COMPOSE, RUNTIME, SAMPLES
from test_compose import mistakes_of_compose
from validators import problems

DEPLOYMENT = one("defaults", "Deployment")
NETWORK_POLICY = one("defaults", "NetworkPolicy")
AUTOSCALER = one("everything", "HorizontalPodAutoscaler")
MONITOR = one("everything", "ServiceMonitor")
RULE = one("everything", "PrometheusRule")
SCALED = one("keda, one port", "ScaledObject")
KNATIVE = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "digits"},
    "spec": {"template": {"spec": {"containers": RUNTIME["spec"]["containers"]}}},
}
POD = "spec.template.spec"
# An object, the place of a mistake in it, and the mistake; None takes away what is there.
MISTAKES = [
    (DEPLOYMENT, "kind", "Deploymnet"),
    (DEPLOYMENT, "apiVersion", "extensions/v1beta1"),
    (DEPLOYMENT, "spec.replicas", "2"),
    (DEPLOYMENT, "spec.replcas", 2),
    (DEPLOYMENT, "spec.selector", None),
    (DEPLOYMENT, "metadata.annotations", {"number": 1}),
    (DEPLOYMENT, f"{POD}.containers.0.ports.0.containerPort", "8000"),
    (DEPLOYMENT, f"{POD}.containers.0.securityContext.readOnlyRootFileSystem", True),
    (DEPLOYMENT, f"{POD}.containers.0.readinessProbe.httpGet.port", None),
    (NETWORK_POLICY, "spec.ingress.0.from", {}),
    (AUTOSCALER, "spec.metrics.0.pods.metric", "kinglet_queue_requests"),
    (MONITOR, "spec.endpoints.0.scrape_timeout", "5s"),
    (MONITOR, "spec.endpoints.0.port", 8002),
    (MONITOR, "spec.endpoints.0.interval", "15 seconds"),
    (MONITOR, "spec.selector", None),
    (RULE, "spec.groups.0.rules.0.lables", {}),
    (RULE, "spec.groups.0.name", None),
    (SCALED, "spec.triggers.0.metadata.threshold", 16),
    (SCALED, "spec.triggers.0.metrikType", "AverageValue"),
    (SCALED, "spec.triggers", None),
    (SCALED, "spce", {}),
    (KNATIVE, f"{POD}.containers.0.portz", []),
    (KNATIVE, f"{POD}.containers.0.ports.0.containerPort", "h2c"),
    (RUNTIME, "spec.annotations.prometheus.kserve.io/port", 8002),
    (RUNTIME, "spec.supportedModelFormats.0.version", 1),
    (RUNTIME, "spec.supportedModelFormats.0.priority", 0),
    (RUNTIME, "spec.protocolVersions.0", "v3"),
    (RUNTIME, "spec.containers.0.name", "kinglet"),
    (RUNTIME, "spec.containers.0.readinessProbe.httpGet.pth", "/"),
    (RUNTIME, "spec.containerz", []),
    (SAMPLES["canary"], "spec.predictor.canaryTrafficPercent", "10"),
    (SAMPLES["canary"], "spec.predictor.canaryTrafficPercent", 101),
    (SAMPLES["canary"], "metadata.annotations.serving.kserve.io/enable-tag-routing", True),
    (SAMPLES["rest"], "spec.predictor.model.storageURI", "pvc://models"),
    (SAMPLES["rest"], "spec.predictor.model.modelFormat.version", 1),
    (SAMPLES["rest"], "spec.predictor.autoScaling.metrics.0.external.metric.qurey", "up"),
    (SAMPLES["grpc"], "spec.predictor.model.ports.0.containerPort", "8080"),
    (SAMPLES["grpc"], "spec.predictor.model.protocolVersion", "grpc"),
    (SAMPLES["scale-to-zero"], "spec.predictor.minReplicas", -1),
]


def with_mistake(document: dict, place: str, mistake: object) -> dict:
    """Keys with dots in them are those of annotations, which come last."""
    changed = copy.deepcopy(document)
    before, found, key = place.partition("annotations.")
    path = [*before.split("."), "annotations", key] if found else place.split(".")
    *path, last = [int(step) if step.isdigit() else step for step in path if step]
    inner = changed
    for step in path:
        inner = inner[step]
    if mistake is None:
        del inner[last]
    else:
        inner[last] = mistake
    return changed


@pytest.mark.parametrize(
    ("document", "place", "mistake"),
    MISTAKES,
    ids=[f"{document['kind']} {place}: {mistake}" for document, place, mistake in MISTAKES],
)
def test_a_mistake_is_found(document, place, mistake):
    assert problems(document) == []
    assert problems(with_mistake(document, place, mistake))


@pytest.mark.parametrize(
    ("place", "mistake"),
    [
        ("services.kinglet.read_onli", True),
        ("services.kinglet.cap_drop", "ALL"),
        ("services.kinglet.ports.0", "127.0.0.1:REST:8000"),
        ("services.kinglet.healthcheck.tset", []),
        ("services.grafana.depends_on.kinglet.condition", "service_well"),
    ],
)
def test_a_mistake_of_compose_is_found(place, mistake):
    assert mistakes_of_compose(COMPOSE) == []
    assert mistakes_of_compose(with_mistake(COMPOSE, place, mistake))
