"""The plain manifests: the chart's, and what the overlay makes of them is what the chart makes of its value."""

import copy
import shutil
import subprocess
import sys

import jsonpatch
import pytest
import yaml
from helm_python import Chart

from files import CHART, DEPLOY, documents, read
from validators import problems

KUBERNETES = DEPLOY / "kubernetes"
BASE = documents((KUBERNETES / "base/kinglet.yaml").read_text())
# Labels that manifests without Helm do not have.
OF_HELM = {"helm.sh/chart", "app.kubernetes.io/managed-by"}


def by_name(found: list[dict]) -> dict[tuple[str, str], dict]:
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def of_chart(values: dict) -> list[dict]:
    rendered = Chart.load(CHART).render(values, name="kinglet", namespace="default")
    found = [document for name, text in rendered.items() if name.endswith(".yaml") for document in documents(text)]
    found = [document for document in found if "helm.sh/hook" not in document["metadata"].get("annotations", {})]
    for document in found:
        labels = document["metadata"]["labels"]
        document["metadata"]["labels"] = {key: value for key, value in labels.items() if key not in OF_HELM}
    return found


def test_they_are_what_the_chart_renders(tmp_path):
    written = tmp_path / "kinglet.yaml"
    subprocess.run([sys.executable, KUBERNETES / "render", written], check=True, timeout=50)
    assert written.read_text() == (KUBERNETES / "base/kinglet.yaml").read_text(), "just manifests"
    assert by_name(BASE) == by_name(of_chart({}))


def test_they_are_valid():
    assert [(document["kind"], said) for document in BASE for said in problems(document)] == []


def test_the_kustomizations_name_what_there_is():
    for folder in (KUBERNETES / "base", KUBERNETES / "rapl"):
        kustomization = read(folder / "kustomization.yaml")
        assert (kustomization["apiVersion"], kustomization["kind"]) == ("kustomize.config.k8s.io/v1beta1", "Kustomization")
        assert kustomization.keys() <= {"apiVersion", "kind", "resources", "patches"}
        assert all((folder / resource).exists() for resource in kustomization["resources"])


def test_the_overlay_is_the_value_of_the_chart():
    found = by_name(copy.deepcopy(BASE))
    (patch,) = read(KUBERNETES / "rapl/kustomization.yaml")["patches"]
    target = (patch["target"]["kind"], patch["target"]["name"])
    found[target] = jsonpatch.apply_patch(found[target], yaml.safe_load(patch["patch"]))
    assert found == by_name(of_chart({"rapl": {"enabled": True}}))


@pytest.mark.parametrize(("folder", "values"), [("base", {}), ("rapl", {"rapl": {"enabled": True}})])
def test_kustomize_makes_the_same_of_them(folder, values):
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl here, which has kustomize")
    command = ["kubectl", "kustomize", KUBERNETES / folder]
    built = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert built.returncode == 0, built.stderr
    assert by_name(documents(built.stdout)) == by_name(of_chart(values))
