"""The program of the image reaches API servers of every kind: its OpenSSL has TLS's algorithms alone
(deploy/static_openssl_provider.c), so each that a server may ask for is tried here."""
import base64
import contextlib
import datetime
import ipaddress
import ssl
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from .conftest import SOURCE
from .test_image import NATIVE, unpack

sys.path.insert(0, str(SOURCE / "tests" / "peers"))
from api_server import ApiServer, Authority  # noqa: E402

KEYS = {
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
FORMATS = {"PKCS8": serialization.PrivateFormat.PKCS8, "own": serialization.PrivateFormat.TraditionalOpenSSL}
PEM = serialization.Encoding.PEM


class AuthorityOf(Authority):
    """All its keys are of one kind."""

    def __init__(self, kind):
        self.make, self.hash = KEYS[kind], None if kind == "Ed25519" else hashes.SHA256()
        self.key = self.make()
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test-ca")])
        self.certificate = self._sign(self.name, self.key, [(x509.BasicConstraints(ca=True, path_length=None), True)])

    def _sign(self, subject, key, extensions):
        now = datetime.datetime.utcnow()
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number(),
                                          now - datetime.timedelta(hours=1), now + datetime.timedelta(days=2))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, self.hash)

    def issue(self, common_name, names=(), addresses=(), private=FORMATS["PKCS8"]):
        key = self.make()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        alternatives = [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
        extensions = [(x509.SubjectAlternativeName(alternatives), False)] if alternatives else []
        return (self._sign(subject, key, extensions).public_bytes(PEM), key.private_bytes(PEM, private, serialization.NoEncryption()))


@pytest.fixture(scope="module")
def program(make_image, tmp_path_factory):
    return unpack(make_image(NATIVE), tmp_path_factory.mktemp("root")) / "usr/local/bin/ambient-installer"


@contextlib.contextmanager
def server(folder, kind):
    with ApiServer(folder / "api") as api:
        api.authority = AuthorityOf(kind)
        api.use_certificate("good")
        api.for_people = {"/api/v1/namespaces/shop/pods": {"items": []}, "/api/v1/namespaces/shop": {
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "uid-shop", "labels": {}}}}
        yield api
        api.check()


def talks(program, api, **user):
    """One command that asks the server."""
    kubeconfig = api.write_kubeconfig(api.folder / "kubeconfig", user=user, host="localhost")
    done = subprocess.run([program, "preview", "shop", "--kubeconfig", kubeconfig], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(api.requests) >= 2


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1", None])
@pytest.mark.parametrize("kind", KEYS)
def test_certificates(program, tmp_path, kind, curve):
    with server(tmp_path, kind) as api:
        if curve:  # else X25519: what both like best, and Python can't name
            api._context.set_ecdh_curve(curve)
        talks(program, api)


@pytest.mark.parametrize("kind, suite", [
    (kind, prefix + suite) for kind, prefix in (("RSA", "ECDHE-RSA-"), ("P-256", "ECDHE-ECDSA-"), ("RSA", ""))
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", *(["CHACHA20-POLY1305"] if prefix else []), "AES128-SHA", "AES256-SHA")])
def test_suites_of_tls_1_2(program, tmp_path, kind, suite):
    with server(tmp_path, kind) as api:
        api._context.maximum_version = ssl.TLSVersion.TLSv1_2
        api._context.set_ciphers(suite)
        talks(program, api)


@pytest.mark.parametrize("kind, private", [(kind, name) for kind in KEYS for name in FORMATS if (kind, name) != ("Ed25519", "own")])
def test_client_certificates(program, tmp_path, kind, private):
    with server(tmp_path, kind) as api:
        api._context.verify_mode = ssl.CERT_REQUIRED
        certificate, key = api.authority.issue("agent", private=FORMATS[private])
        talks(program, api, **{"client-certificate-data": base64.b64encode(certificate).decode(),
                               "client-key-data": base64.b64encode(key).decode()})


def test_a_server_of_another_authority_is_refused(program, tmp_path):
    with server(tmp_path, "RSA") as api:
        api.use_certificate("unknown-ca")
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        done = subprocess.run([program, "preview", "shop", "--kubeconfig", kubeconfig], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode != 0 and "is not trusted" in done.stdout + done.stderr
