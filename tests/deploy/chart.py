"""The chart, rendered with sets of values that between them turn everything on."""

import copy
from functools import cache

from helm_python import Chart

from files import CHART, documents

DIGEST = "sha256:" + "0123456789abcdef" * 4
ONLY_CLIENTS = [{"podSelector": {"matchLabels": {"app": "gateway"}}}]
CASES = {
    "defaults": {},
    "everything": {
        "image": {"digest": DIGEST},
        "imagePullSecrets": [{"name": "pull"}],
        "config": {
            "access": {"token_issuer": "https://login.example.org", "token_audience": "kinglet"},
            "drain": {"delay": "1500ms", "grace": "1m"},
            "engine": {"loop_rounds_max": 5_000_000, "mapped": False},
            "metering": {"carbon_intensity": 300},
            "signatures": {"identities": ["release@example.com"]},
            "repository": {"control": "explicit", "load_at_start": ["digits", "a \"<quoted>\" name"]},
            "tracing": {"endpoint": "http://collector:4318", "sample_ratio": 0.5},
        },
        "tls": {"secretName": "kinglet-tls", "clientAuthorities": "ca.crt"},
        "access": {"secretName": "kinglet-access", "jwks": "jwks.json"},
        "signatures": {"configMapName": "signers", "keys": ["a.pub", "b.pub"], "certificates": ["root.pem"], "policy": "warn"},
        "service": {"type": "LoadBalancer", "httpPort": 80, "annotations": {"a": "b"}},
        "serviceAccount": {"name": "mine", "annotations": {"a": "b"}},
        "autoscaling": {"kind": "hpa", "queueRequests": 8},
        "networkPolicy": {"clients": ONLY_CLIENTS, "egress": [{"ports": [{"port": 4318}]}]},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "rapl": {"enabled": True},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "tolerations": [{"key": "inference", "operator": "Exists"}],
        "priorityClassName": "high",
        "podLabels": {"team": "birds"},
        "podAnnotations": {"a": "b"},
        "extraEnv": [{"name": "KINGLET__TELEMETRY__LOG_LEVEL", "value": "debug"}],
        "extraVolumes": [{"name": "temporary", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "temporary", "mountPath": "/tmp"}],
    },
    "keda, one port": {
        "autoscaling": {"kind": "keda"},
        "serviceMonitor": {"enabled": True},
        "config": {"grpc": {"listen": "0.0.0.0:8000"}},
        "models": {"volume": {"nfs": {"server": "files", "path": "/models"}}},
        "networkPolicy": {"clients": ONLY_CLIENTS},
    },
    "as little as may be": {
        "image": {"tag": "latest"},
        "replicas": 1,
        "models": {"volume": {"configMap": {"name": "small-model"}}},
        "serviceAccount": {"create": False},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "topologySpread": [],
    },
}


@cache
def _rendered(case: str, release: str) -> dict[str, str]:
    return Chart.load(CHART).render(CASES[case], name=release, namespace="birds")


def texts(case: str, release: str = "kinglet") -> dict[str, str]:
    """What each template has become, by its name."""
    return _rendered(case, release)


def objects(case: str, release: str = "kinglet") -> list[dict]:
    rendered = texts(case, release)
    return [document for name, text in rendered.items() if name.endswith(".yaml") for document in documents(text)]


def one(case: str, kind: str, suffix: str = "", release: str = "kinglet") -> dict:
    """The only object of a kind, or the one whose name ends so."""
    found = [document for document in objects(case, release) if document["kind"] == kind]
    (wanted,) = [document for document in found if document["metadata"]["name"] == release + suffix] if len(found) > 1 else found
    return copy.deepcopy(wanted)


def pod(case: str) -> dict:
    return one(case, "Deployment")["spec"]["template"]["spec"]


def container(case: str) -> dict:
    (only,) = pod(case)["containers"]
    return only
