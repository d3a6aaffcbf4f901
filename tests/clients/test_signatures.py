"""Models signed by OpenSSF's model-signing, and what becomes of those that are not what was signed."""

import base64
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from model_signing import hashing, signing
from onnx import save_model
from tritonclient.utils import InferenceServerException

from server import Server, binary
from test_command_line import GRPCURL
from watching import metrics, wait_for
from wires import grpc_input
from zoo import plus

WIDTH = 4
ROW = np.ones((1, WIDTH), np.float32)


class Keys:
    """Pairs of keys, and certificates by an authority, in files."""

    def __init__(self, folder):
        self.folder = folder
        self._authority = ec.generate_private_key(ec.SECP256R1())
        self._root = self._issue("authority", self._authority, years=(-10, 10), ca=True)
        self._write("authority.pem", self._root)

    def pair(self, name, curve=ec.SECP256R1()):
        key = ec.generate_private_key(curve)
        public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        (self.folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*public))
        return self._private(name, key)

    def by_key(self, name, curve=ec.SECP256R1()):
        return signing.Config().use_elliptic_key_signer(private_key=self.pair(name, curve))

    def by_certificate(self, name, years):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._write(f"{name}.pem", self._issue(name, key, years))
        return signing.Config().use_certificate_signer(
            private_key=self._private(name, key), signing_certificate=leaf, certificate_chain=[self.folder / "authority.pem"]
        )

    def _private(self, name, key):
        private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path = self.folder / name
        path.write_bytes(key.private_bytes(*private))
        return path

    def _write(self, name, certificate):
        path = self.folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _issue(self, name, key, years, ca=False):
        named = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        begins, ends = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365 * year) for year in years)
        usages = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only", "decipher_only"], False
        )
        builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named("authority")).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        builder = builder.add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, **usages), True)
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
            names = x509.SubjectAlternativeName([x509.RFC822Name(f"{name}@example.com")])
            builder = builder.add_extension(names, False)
        return builder.sign(self._authority, hashes.SHA256())


def write_model(folder):
    """A model with weights of its own file, settings, labels, a warm-up and a variant."""
    for build in ("1", "1/variants/other"):
        (folder / build).mkdir(parents=True, exist_ok=True)
        outside = {"save_as_external_data": True, "location": "weights", "size_threshold": 0} if build == "1" else {}
        save_model(plus(1), folder / build / "model.onnx", **outside)
    (folder / "warmup").mkdir()
    (folder / "warmup/row").write_bytes(ROW.tobytes())
    (folder / "labels.txt").write_text("\n".join(f"class {at}" for at in range(WIDTH)))
    (folder / "config.pbtxt").write_text(f'name: "{folder.name}"\nplatform: "onnxruntime_onnx"\n')
    (folder / "manifest.toml").write_text(
        'outputs = [{ name = "y", labels_file = "labels.txt" }]\n'
        f'[[warm_up]]\ninputs.x = {{ datatype = "FP32", dims = [{WIDTH}], file = "row" }}\n'
    )


def altered(path):
    """One bit of the last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rebundled(path, change):
    bundle = json.loads(path.read_text())
    change(bundle)
    path.write_text(json.dumps(bundle))


FILES = ["1/model.onnx", "1/weights", "1/variants/other/model.onnx", "manifest.toml", "config.pbtxt", "labels.txt", "warmup/row"]


class Repository:
    """Models that were signed, and copies of them with something wrong."""

    def __init__(self, folder):
        self.folder = folder / "models"
        self.folder.mkdir()
        self.keys = Keys(folder)
        self.signers = {"key": self.keys.by_key("key"), "wide": self.keys.by_key("wide", ec.SECP384R1()),
                        "stranger": self.keys.by_key("stranger"), "release": self.keys.by_certificate("release", (-1, 1)),
                        "ended": self.keys.by_certificate("ended", (-3, -1)), "nobody": self.keys.by_certificate("nobody", (-1, 1))}
        self.good = ["by_command", "by_wide", "by_release", "by_version", "digested"]
        self.model("by_command")
        command = [sys.executable, "-m", "model_signing", "sign", "key", "--private_key", folder / "key", "--signature"]
        signed = self.folder / "by_command"
        subprocess.run([*command, signed / "model.sig", signed], check=True, timeout=60)
        for signer in ("wide", "release", "stranger", "ended", "nobody"):
            self.signed(f"by_{signer}", signer)
        version = self.folder / "by_version/1"
        version.mkdir(parents=True)
        save_model(plus(1), version / "model.onnx")
        self.signers["key"].set_hashing_config(hashing.Config()).sign(version, version / "model.sig")
        self.bad = {"by_stranger": "signer is not trusted", "by_ended": "its certificate has ended",
                    "by_nobody": "expected one of signatures.identities"}
        self.digested()
        for file in FILES:
            name = "altered_" + file.replace("/", "_").replace(".", "_")
            altered(self.signed(name) / file)
            self.bad[name] = "is not what was signed"
        self.wrong("added", "1/extra is not covered", lambda model: (model / "1/extra").write_text("x"))
        self.wrong("removed", "1/weights is missing", lambda model: (model / "1/weights").unlink())
        self.wrong("unsigned", "it is not signed", lambda model: (model / "model.sig").unlink())
        other = self.signed("swapped_from")
        altered(other / "labels.txt")
        self.sign(other)
        self.good.append("swapped_from")
        self.wrong("swapped", "is not what was signed", lambda model: shutil.copy(other / "model.sig", model / "model.sig"))
        self.wrong("cut", "cannot be read", lambda model: os.truncate(model / "model.sig", (model / "model.sig").stat().st_size // 2))
        retyped = lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain")
        self.wrong("retyped", "expected payload type", lambda model: rebundled(model / "model.sig", retyped))
        payload = base64.b64encode(b'{"_type": "x"}').decode()
        repaid = lambda bundle: bundle["dsseEnvelope"].update(payload=payload)
        self.wrong("repaid", "does not belong to its contents", lambda model: rebundled(model / "model.sig", repaid))

    def model(self, name):
        write_model(self.folder / name)
        return self.folder / name

    def sign(self, model, signer="key"):
        # A signature that is there already would be signed, too.
        (model / "model.sig").unlink(missing_ok=True)
        self.signers[signer].set_hashing_config(hashing.Config()).sign(model, model / "model.sig")

    def signed(self, name, signer="key"):
        model = self.model(name)
        self.sign(model, signer)
        return model

    def wrong(self, name, why, change):
        change(self.signed(name))
        self.bad[name] = why

    def digested(self):
        """Two models whose manifests have digests of their weights, one of which is another's."""
        for name, digest in [("digested", None), ("wrong_digest", "0" * 64)]:
            model = self.model(name)
            digest = digest or subprocess.run(["sha256sum", model / "1/weights"], capture_output=True, text=True).stdout.split()[0]
            with (model / "manifest.toml").open("a") as manifest:
                manifest.write(f'[digests]\n"1/weights" = "{digest}"\n')
            self.sign(model)
        self.bad["wrong_digest"] = "is not what the manifest says"

    def settings(self, **more):
        pem = lambda *names: ",".join(str(self.keys.folder / name) for name in names)
        own = {"POLICY": "require", "KEYS": pem("key.pub", "wide.pub"), "CERTIFICATES": pem("authority.pem"),
               "IDENTITIES": "release@example.com,ended@example.com", **more}
        return {f"KINGLET__SIGNATURES__{name}": value for name, value in own.items()}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("signed"))


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    """A server that requires signatures and has tried every model."""
    settings = repository.settings() | {"KINGLET__REPOSITORY__CONTROL": "explicit", "KINGLET__REPOSITORY__LOAD_AT_START": "*"}
    with Server([repository.folder], tmp_path_factory.mktemp("log") / "log", settings) as running:
        yield running


def properties(server, name):
    """Of a model's metadata over gRPC; tritonclient's message has none."""
    call = ["-plaintext", "-d", json.dumps({"name": name}), server.grpc, "inference.GRPCInferenceService/ModelMetadata"]
    return json.loads(subprocess.run([GRPCURL, *call], capture_output=True, check=True, timeout=20).stdout)["properties"]


def index(server):
    return {line["name"]: line for line in httpx.post(f"http://{server.http}/v2/repository/index").json()}


def test_what_is_signed_is_served_and_says_by_whom(server, repository):
    lines = index(server)
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        told = {model.name: model.reason for model in client.get_model_repository_index().models}
        for name in repository.good:
            assert (lines[name]["state"], lines[name]["reason"]) == ("READY", ""), lines[name]
            signer = lines[name]["signer"]
            expected = "certificate CN=release, release@example.com" if name == "by_release" else "key sha256:"
            assert signer.startswith(expected), signer
            assert httpx.get(f"http://{server.http}/v2/models/{name}").json()["signer"] == signer
            assert properties(server, name)["signer"] == signer
            assert f"signer: {signer}" in told[name]
            answer = client.infer(name, [grpc_input("x", ROW)]).as_numpy("y")
            assert (answer == 2).all()
    variants = lines["by_command"]["variants"]
    assert [(line["name"], line["state"], line["signer"]) for line in variants] == [("other", "READY", lines["by_command"]["signer"])]


def test_what_is_not_as_it_was_signed_is_refused_with_the_reason(server, repository):
    lines = index(server)
    for name, why in repository.bad.items():
        line = lines[name]
        if name == "altered_1_variants_other_model_onnx":
            assert line["state"] == "READY"
            [line] = line["variants"]
        assert line["state"] == "UNAVAILABLE" and why in line["reason"], (name, line)
        assert "signer" not in line and str(repository.folder) not in line["reason"], line
    counted = metrics(server)
    outcome = lambda word: counted[f'kinglet_model_verifications_total{{outcome="{word}"}}']
    for word in ("verified", "unsigned", "altered", "untrusted", "broken"):
        assert outcome(word) > 0, word
    assert counted["kinglet_model_verification_bytes_total"] > 0
    assert "model failed to load" in server.log.read_text()


def test_files_that_come_with_a_request_are_signed_by_nobody(server):
    client = tritonclient.http.InferenceServerClient(server.http)
    inline = {"file:1/model.onnx": plus(7).SerializeToString()}
    with pytest.raises(InferenceServerException, match="files that come with a request are signed by nobody"):
        client.load_model("by_wide", config='{"name": "by_wide"}', files=inline)
    assert client.is_model_ready("by_wide"), "what served goes on"


def test_the_package_agrees(repository):
    verify = [sys.executable, "-m", "model_signing", "verify", "key", "--public_key", repository.keys.folder / "key.pub", "--signature"]
    for name, code in [("by_command", 0), ("added", 1)]:
        model = repository.folder / name
        done = subprocess.run([*verify, model / "model.sig", model], capture_output=True, text=True, timeout=60)
        assert done.returncode == code, (name, done.stderr)
        assert not list(model.rglob(".kinglet*")), "a folder that was signed stays as it is"


def test_a_warning_is_all_where_that_is_asked_for(repository, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for name in ("added", "by_command", "unsigned", "wrong_digest"):
        shutil.copytree(repository.folder / name, few / name)
    with Server([few], tmp_path / "log", repository.settings(POLICY="warn")) as running:
        lines = index(running)
        states = {name: line["state"] for name, line in lines.items()}
        assert states == {"added": "READY", "by_command": "READY", "unsigned": "READY", "wrong_digest": "UNAVAILABLE"}
        assert [name for name, line in lines.items() if "signer" in line] == ["by_command"]
        assert running.log.read_text().count("nobody whom signatures trust vouches for it") >= 2


def test_keys_are_taken_anew_at_a_reload(repository, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(repository.folder / "by_command", few / "by_command")
    key = tmp_path / "trusted.pub"
    shutil.copy(repository.keys.folder / "stranger.pub", key)
    with Server([few], tmp_path / "log", repository.settings(KEYS=str(key))) as running:
        assert "signer is not trusted" in index(running)["by_command"]["reason"]
        shutil.copy(repository.keys.folder / "key.pub", key)
        running.send(signal.SIGHUP)
        wait_for(lambda: index(running)["by_command"]["state"] == "READY")
        key.write_text("no key")
        running.send(signal.SIGHUP)
        wait_for(lambda: "keys were not taken anew" in running.log.read_text())
        assert index(running)["by_command"]["state"] == "READY"
        shutil.copy(repository.keys.folder / "stranger.pub", key)
        running.send(signal.SIGHUP)
        wait_for(lambda: "reload failed" in index(running)["by_command"]["reason"])
        assert index(running)["by_command"]["state"] == "READY", "what serves goes on, as after any load that failed"


def test_the_command_line_says_what_would_be_refused(repository):
    environment = {**os.environ, **repository.settings()}
    run = lambda *command: subprocess.run([binary(), *command], env=environment, capture_output=True, text=True, timeout=30)
    good = run("inspect", "--verify", repository.folder / "by_release")
    assert (good.returncode, good.stdout) == (0, "signed by certificate CN=release, release@example.com\n"), good.stderr
    bad = run("inspect", "--verify", repository.folder / "altered_1_weights")
    assert bad.returncode == 1 and "1/weights is not what was signed" in bad.stderr, bad
    assert "signer    none: " in run("inspect", repository.folder / "added").stdout
    assert "signer    key sha256:" in run("inspect", repository.folder / "by_command").stdout
    checked = run("serve", "--check", "--repository", repository.folder / "by_stranger")
    assert checked.returncode == 2 and "signer is not trusted" in checked.stderr, checked
    nobody = {**environment, "KINGLET__SIGNATURES__KEYS": "", "KINGLET__SIGNATURES__CERTIFICATES": "", "KINGLET__SIGNATURES__IDENTITIES": ""}
    refused = subprocess.run([binary(), "serve", "--check"], env=nobody, capture_output=True, text=True, timeout=30)
    assert refused.returncode == 2 and "signatures.keys" in refused.stderr, refused
