"""The chart: what it renders, what it refuses, and that what it renders holds together."""

import copy
import re
import tarfile
import tomllib

import pytest
from helm_python import Chart, HelmError, lint, package

from chart import CASES, DIGEST, container, objects, one, pod, texts
from files import CHART, DEFAULTS, END_SECONDS, METRICS, PORTS, PROBES, ROOT, RULES, VALUES, metrics, seconds, size
from server import checks
from validators import OPERATORS, VERSIONS, kind_of, problems

ALWAYS = ["ConfigMap", "Deployment", "Pod", "Service", "Service"]
USUALLY = [*ALWAYS, "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"]
KINDS = {
    "defaults": USUALLY,
    "everything": [*USUALLY, "HorizontalPodAutoscaler", "PrometheusRule", "ServiceMonitor"],
    "keda, one port": [*USUALLY, "ScaledObject", "ServiceMonitor"],
    "as little as may be": ALWAYS,
}
# Each is one mistake in values, and a part of what is said of it.
MISTAKES = [
    ({"replica": 2}, "replica"),
    ({"replicas": "2"}, "replicas"),
    ({"image": {"digest": "sha256:abc"}}, "digest"),
    ({"image": {"registry": "here"}}, "registry"),
    ({"autoscaling": {"kind": "cpu"}}, "kind"),
    ({"autoscaling": {"minReplicas": 0}}, "minReplicas"),
    ({"config": {"drain": {"delay": "10"}}}, "delay"),
    ({"config": {"drain": {"delay": "1m30s"}}}, "delay"),
    ({"config": {"http": {"listen": "unix:/run/kinglet.sock"}}}, "listen"),
    ({"models": {"existingClaim": ""}}, "models"),
    ({"models": {"volume": {"nfs": {}, "emptyDir": {}}}}, "volume"),
    ({"serviceMonitor": {"scrapeTimeout": "1s"}}, "scrapeTimeout"),
    ({"networkPolicy": {"monitoring": []}}, "monitoring"),
    ({"podAnnotations": {"a": 1}}, "podAnnotations"),
    ({"extraEnv": [{"value": "b"}]}, "extraEnv"),
    ({"topologySpread": [{"topologyKey": "zone"}]}, "topologySpread"),
    ({"probes": {"readiness": {"httpGet": {}}}}, "readiness"),
    ({"service": {"httpPort": 70000}}, "httpPort"),
    ({"config": {"tls": {"certificate": "/tls/tls.crt"}}}, "tls"),
    ({"config": {"tls": {"listeners": ["http", "admin"]}}}, "tls"),
    ({"config": {"signatures": {"policy": "off"}}}, "signatures"),
    ({"signatures": {"policy": "off"}}, "policy"),
]


@pytest.mark.parametrize("case", CASES)
def test_helm_has_nothing_to_say(case):
    report = lint(CHART, CASES[case], strict=True)
    said = [message for message in report["messages"] if "icon is recommended" not in message["error"]]
    assert (said, report["errors"]) == ([], [])


@pytest.mark.parametrize(("values", "named"), MISTAKES, ids=[str(values) for values, _ in MISTAKES])
def test_mistakes_in_values_are_refused(values, named):
    with pytest.raises(HelmError, match=named):
        Chart.load(CHART).render(values, name="kinglet", namespace="birds")


def test_every_value_is_described():
    """And nothing is that does not exist; the page for people names all of them."""
    properties = Chart.load(CHART).schema["properties"]
    page = (ROOT / "docs/kubernetes.md").read_text()
    rows = "".join(line for line in page.splitlines() if line.startswith("| `"))
    assert [name for name in VALUES if f"`{name}" not in rows] == []
    assert set(properties) - {"global"} == set(VALUES)
    for name, described in properties.items():
        if "properties" in described and not isinstance(described.get("additionalProperties"), dict):
            assert set(described["properties"]) == set(VALUES[name]), name


@pytest.mark.parametrize("case", CASES)
def test_objects_are_what_is_wanted_and_valid(case):
    found = objects(case)
    assert sorted(document["kind"] for document in found) == sorted(KINDS[case])
    for document in found:
        if kind_of(document) not in OPERATORS:
            assert problems(document) == [], document["metadata"]["name"]


@pytest.mark.parametrize("case", [case for case in CASES if KINDS[case] not in (USUALLY, ALWAYS)])
def test_objects_of_operators_are_valid(case):
    for document in objects(case):
        if kind_of(document) in OPERATORS:
            assert problems(document) == [], document["metadata"]["name"]


@pytest.mark.parametrize("case", CASES)
def test_names_follow_the_release(case):
    for release, full in (("kinglet", "kinglet"), ("blue", "blue-kinglet"), ("kinglet-2", "kinglet-2")):
        names = {document["metadata"]["name"] for document in objects(case, release)} - {"mine"}
        assert names <= {full, f"{full}-headless", f"{full}-test"}
        environment = f"{full.upper().replace('-', '_')}_SERVICE_HOST"
        assert f"$({environment}):" in one(case, "Pod", release=release)["spec"]["containers"][0]["args"][2]


@pytest.mark.parametrize("case", CASES)
def test_selectors_find_the_server_alone(case):
    server = one(case, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    tester = one(case, "Pod")["metadata"]["labels"].items()
    for document in objects(case):
        spec = document.get("spec", {})
        selectors = [spec.get("selector", {}), spec.get("podSelector", {})]
        selectors += [constraint["labelSelector"] for constraint in pod(case).get("topologySpreadConstraints", [])]
        for selector in (selector.get("matchLabels", selector) for selector in selectors if selector):
            assert selector.items() <= server and not selector.items() <= tester, document["kind"]


@pytest.mark.parametrize("case", CASES)
def test_the_server_takes_its_configuration(case, tmp_path):
    """By the file of defaults, which has all keys, and by the binary itself."""
    text = one(case, "ConfigMap")["data"]["config.toml"]
    config = tomllib.loads(text)
    wanted = copy.deepcopy(VALUES["config"])
    for room, fields in CASES[case].get("config", {}).items():
        wanted.setdefault(room, {}).update(fields)
    if "tls" in CASES[case]:
        secret = {"certificate": "/tls/tls.crt", "key": "/tls/tls.key", "client_authorities": "/tls/ca.crt"}
        wanted["tls"] = {**secret, "listeners": ["http", "grpc"]}
    if "access" in CASES[case]:
        wanted["access"] |= {"tenants_file": "/access/tenants.toml", "jwks_file": "/access/jwks.json"}
    if "signatures" in CASES[case]:
        found = {"keys": ["/signatures/a.pub", "/signatures/b.pub"], "certificates": ["/signatures/root.pem"], "policy": "warn"}
        wanted["signatures"] |= found
        assert {"name": "signatures", "configMap": {"name": "signers"}} in pod(case)["volumes"]
    assert config == wanted
    for room, fields in config.items():
        for key, value in fields.items():
            assert key in DEFAULTS[room], f"{room}.{key}"
            default = type(DEFAULTS[room][key])
            assert isinstance(value, (float, int) if default is float else default), f"{room}.{key}"
    file = tmp_path / "config.toml"
    file.write_text(text)
    # Neither secrets nor signers' keys are not here.
    without = {f"KINGLET__TLS__{key}": "" for key in ("CERTIFICATE", "KEY", "CLIENT_AUTHORITIES")}
    without |= {f"KINGLET__ACCESS__{key}": "" for key in ("TENANTS_FILE", "JWKS_FILE")}
    without["KINGLET__SIGNATURES__POLICY"] = "off"
    assert "valid" in checks("--config", file, "--repository", "models", environment=without)


def test_another_configuration_starts_other_pods():
    sums = {}
    for case in CASES:
        annotations = one(case, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        sums.setdefault(annotations["checksum/config"], set()).add(one(case, "ConfigMap")["data"]["config.toml"])
        assert container(case)["args"] == ["serve", "--config", "/etc/kinglet/config.toml"]
    assert len(sums) > 1 and all(len(configurations) == 1 for configurations in sums.values())


@pytest.mark.parametrize("case", CASES)
def test_a_pod_is_given_the_time_that_it_takes_to_end(case):
    drain = tomllib.loads(one(case, "ConfigMap")["data"]["config.toml"])["drain"]
    wanted = seconds(drain["delay"]) + seconds(drain["grace"]) + END_SECONDS
    assert pod(case)["terminationGracePeriodSeconds"] == wanted
    assert seconds(DEFAULTS["tracing"]["flush_time_max"]) < END_SECONDS


def test_the_delay_is_longer_than_readiness_takes_to_notice():
    readiness = container("defaults")["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert seconds(VALUES["config"]["drain"]["delay"]) >= noticed


@pytest.mark.parametrize("case", CASES)
def test_services_say_what_their_ports_speak(case):
    ports = [port for service in objects(case) if service["kind"] == "Service" for port in service["spec"]["ports"]]
    spoken = {port["appProtocol"] for port in ports if port["name"] != "admin"}
    assert spoken == ({"https"} if "tls" in CASES[case] else {"http", "kubernetes.io/h2c"})


@pytest.mark.parametrize("case", CASES)
def test_probes_ask_what_there_is(case):
    paths = {name: container(case)[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {probe["path"] for probe in paths.values()} == PROBES
    assert {name: probe["path"].rpartition("/")[2] for name, probe in paths.items()} == {
        "startup": "startup",
        "readiness": "ready",
        "liveness": "live",
    }
    assert {probe["port"] for probe in paths.values()} == {"admin" if "tls" in CASES[case] else "http"}


@pytest.mark.parametrize("case", CASES)
def test_ports_agree(case):
    config = tomllib.loads(one(case, "ConfigMap")["data"]["config.toml"])
    listens = {room: int(config[room]["listen"].rpartition(":")[2]) for room in PORTS}
    ports = {port["name"]: port["containerPort"] for port in container(case)["ports"]}
    if listens["grpc"] == listens["http"]:
        del listens["grpc"]
    assert ports == listens
    assert ports.items() <= PORTS.items()
    targets = [port["targetPort"] for document in objects(case) if document["kind"] == "Service" for port in document["spec"]["ports"]]
    assert set(targets) == set(ports)
    service = {port["name"]: port["port"] for port in one(case, "Service")["spec"]["ports"]}
    asked = one(case, "Pod")["spec"]["containers"][0]["args"]
    assert asked[:2] == ["healthcheck", "--address"] and asked[2].endswith(f":{service['http']}")
    if case != "as little as may be":
        rules = one(case, "NetworkPolicy")["spec"]["ingress"]
        assert [[port["port"] for port in rule["ports"]] for rule in rules] == [[name for name in ports if name != "admin"], ["admin"]]
        assert rules[1]["from"]


@pytest.mark.parametrize("case", CASES)
def test_pods_have_no_more_rights_than_they_need(case):
    for spec in (pod(case), one(case, "Pod")["spec"]):
        (only,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"]["allowPrivilegeEscalation"] is False
        assert only["securityContext"]["readOnlyRootFilesystem"] is True
        assert only["securityContext"]["capabilities"]["drop"] == ["ALL"]
    host = [volume for volume in pod(case)["volumes"] if "hostPath" in volume]
    root = pod(case)["securityContext"]["runAsUser"] == 0
    rapl = CASES[case].get("rapl", {}).get("enabled", False)
    assert bool(host) == root == rapl
    assert pod(case)["securityContext"]["runAsNonRoot"] is not rapl
    assert ("add" in container(case)["securityContext"]["capabilities"]) == rapl
    read_only = {mount["mountPath"] for mount in container(case)["volumeMounts"] if mount.get("readOnly")}
    assert {"/etc/kinglet", "/models"} <= read_only


def test_no_pod_is_missed_while_others_come():
    assert one("defaults", "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert one("defaults", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_versions_agree():
    metadata = Chart.load(CHART).metadata
    server = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert (metadata["version"], metadata["appVersion"]) == (server, server)
    assert metadata["kubeVersion"] == f">={VERSIONS[0]}.0-0"


def test_an_image_has_a_tag_or_a_digest():
    version = Chart.load(CHART).metadata["appVersion"]
    images = {case: container(case)["image"] for case in CASES}
    assert images["defaults"] == f"kinglet:{version}"
    assert images["everything"] == f"kinglet@{DIGEST}"
    assert images["as little as may be"] == "kinglet:latest"
    for case in CASES:
        assert one(case, "Pod")["spec"]["containers"][0]["image"] == images[case]


def test_requests_leave_room_for_models():
    config = VALUES["config"] | {"cache": DEFAULTS["cache"]}
    bounds = [config["admission"][f"{what}bytes_max"] for what in ("", "receiving_", "leaving_")] + [config["cache"]["bytes_max"]]
    assert sum(map(size, bounds)) <= size(VALUES["resources"]["limits"]["memory"]) / 2


def test_replicas_are_decided_once():
    for case in CASES:
        kind = CASES[case].get("autoscaling", {}).get("kind", "none")
        assert ("replicas" in one(case, "Deployment")["spec"]) == (kind == "none")


def test_autoscalers_look_at_the_queue():
    (metric,) = one("everything", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"] == {
        "metric": {"name": "kinglet_queue_requests"},
        "target": {"type": "AverageValue", "averageValue": "8"},
    }
    (trigger,) = one("keda, one port", "ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert metrics(query) == {"kinglet_queue_requests"} <= METRICS
    # Of this release: Prometheus finds the pods through the headless service, whose name is the label `service`.
    (port,) = [endpoint["port"] for endpoint in one("keda, one port", "ServiceMonitor")["spec"]["endpoints"]]
    headless = one("keda, one port", "Service", "-headless")
    assert port in {port["name"] for port in headless["spec"]["ports"]}
    assert f'service="{headless["metadata"]["name"]}"' in query and 'namespace="birds"' in query


def test_prometheus_reads_what_it_reads_elsewhere():
    monitor = one("everything", "ServiceMonitor")
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    labels = one("everything", "Service", "-headless")["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    # The alerts' job.
    assert labels["app.kubernetes.io/name"] == "kinglet"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_rules_are_those_of_the_files():
    assert one("everything", "PrometheusRule")["spec"]["groups"] == RULES


def test_a_packaged_chart_is_whole(tmp_path):
    """The folder of rules is a link here, and must not be one there."""
    archive = package(CHART, destination=tmp_path)
    with tarfile.open(archive) as packed:
        rules = {member.name for member in packed if "/rules/" in member.name and member.isfile()}
    assert rules == {"kinglet/rules/alerts.yaml", "kinglet/rules/recording.yaml"}


@pytest.mark.parametrize("case", CASES)
def test_notes_name_what_there_is(case):
    notes = next(text for name, text in texts(case).items() if name.endswith("NOTES.txt"))
    assert "kinglet.birds" in notes and not re.search(r"\{\{|<no value>", notes)
    assert (" https://" in notes) == ("tls" in CASES[case])
    assert ("every client may run every model" in notes) == ("access" not in CASES[case])
    assert ("whoever reaches the admin port" in notes) == (case == "as little as may be")
