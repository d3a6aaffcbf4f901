"""compose.yaml: by the specification of Compose, and its paths and ports by the files that they belong to."""

import re

import yaml
from compose_spec import PyCompose

from files import COMPOSE, DEFAULTS, DEPLOY, END_SECONDS, PORTS, ROOT, read, seconds

SERVICES = COMPOSE["services"]
PROMETHEUS_PORT, GRAFANA_PORT = 9090, 3000


def mistakes_of_compose(document: dict) -> list[str]:
    try:
        PyCompose.from_yaml(interpolated(yaml.safe_dump(document)))
    except ValueError as error:
        return [str(error)]
    return []


def interpolated(text: str) -> str:
    """With the defaults of variables, as Compose reads it."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


def test_it_is_valid():
    assert mistakes_of_compose(COMPOSE) == []


def test_ports_are_open_on_this_machine_alone():
    published = [port.rsplit(":", 2) for port in SERVICES["kinglet"]["ports"]]
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    assert [int(outer) for _, outer, _ in published] == [int(inner) for _, _, inner in published]
    assert [int(inner) for _, _, inner in published] == [*PORTS.values(), PROMETHEUS_PORT, GRAFANA_PORT]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["kinglet"]


def test_services_have_no_more_rights_than_they_need():
    for service in SERVICES.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service and "cap_add" not in service
    assert SERVICES["kinglet"]["user"] == "65532:65532"
    assert SERVICES["kinglet"]["healthcheck"]["test"] == ["CMD", "/kinglet", "healthcheck"]


def test_folders_exist_and_stand_where_they_are_looked_for():
    mounts = {}
    for name, service in SERVICES.items():
        for volume in service["volumes"]:
            source, target, *mode = interpolated(volume).split(":")
            mounts[name, target] = source
            if source.startswith("."):
                assert (DEPLOY / source).is_dir() and mode == ["ro"], volume
            else:
                assert source in COMPOSE["volumes"]
    assert mounts["kinglet", "/models"] == "../models"
    (flag,) = [flag for flag in SERVICES["prometheus"]["command"] if flag.startswith("--config.file=")]
    file = flag.partition("=")[2].removeprefix("/etc/prometheus/")
    assert (DEPLOY / mounts["prometheus", "/etc/prometheus"] / file).is_file()
    (provider,) = read(DEPLOY / "grafana/provisioning/dashboards/kinglet.yaml")["providers"]
    assert ("grafana", provider["options"]["path"]) in mounts


def test_all_find_each_other():
    """In one network, at the addresses that are in the files."""
    assert {SERVICES[name]["network_mode"] for name in ("prometheus", "grafana")} == {"service:kinglet"}
    (job,) = read(DEPLOY / "prometheus/prometheus.yaml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"127.0.0.1:{PORTS['admin']}"]}]
    (source,) = read(DEPLOY / "grafana/provisioning/datasources/kinglet.yaml")["datasources"]
    assert source["url"] == f"http://127.0.0.1:{PROMETHEUS_PORT}"


def test_the_server_is_given_the_time_that_it_takes_to_end():
    drain = DEFAULTS["drain"]
    wanted = seconds(drain["delay"]) + seconds(drain["grace"]) + END_SECONDS
    assert seconds(SERVICES["kinglet"]["stop_grace_period"]) == wanted


def test_images_have_versions():
    assert SERVICES["kinglet"]["image"] == "kinglet:latest"
    assert (DEPLOY / SERVICES["kinglet"]["build"]).resolve() == ROOT
    for name in ("prometheus", "grafana"):
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", SERVICES[name]["image"])
