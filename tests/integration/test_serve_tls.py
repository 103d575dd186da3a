"""`penstock serve` with a certificate: of an authority of the test's own, which clients are told to trust."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from serve_world import BEGIN, DAY, OURS, Served, iso

sys.path.insert(0, str(Path(__file__).parent))
from test_serve_server import ANSWERED, server

from penstock.cli import execute
from penstock.client import RemoteAnalytics
from penstock.errors import UnavailableError
from penstock.query import Analytics
from penstock.sender import Sender

DAYS: dict[str, Any] = {"start": iso(BEGIN), "end": iso(BEGIN + 5 * DAY)}


class Authority:
    """Certificates for 127.0.0.1, in a folder. The chain has one between: what is served is a chain, and not a certificate alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root, root_key = self._made("root", None, None)
        between, between_key = self._made("between", root, root_key)
        leaf, key = self._made("127.0.0.1", between, between_key, leaf=True)
        self.trusted = self._written("root.pem", self._pem(root))
        self.chain = self._written("chain.pem", self._pem(leaf) + self._pem(between))
        self.key = self._written("key.pem", self._plain(key))
        self.other_key = self._written("other.pem", self._plain(root_key))
        form = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
        self.locked_key = self._written("locked.pem", key.private_bytes(serialization.Encoding.PEM, *form))

    def context(self) -> ssl.SSLContext:
        """What a client that trusts the authority, and no other, connects with."""
        return ssl.create_default_context(cafile=str(self.trusted))

    def _made(self, name: str, issuer: Any, issuer_key: Any, leaf: bool = False) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.timezone.utc)
        signer = issuer_key or key
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if leaf:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
            built = built.add_extension(names, critical=False)
        else:
            signs = {name: name == "key_cert_sign" for name in _USES}
            built = built.add_extension(x509.KeyUsage(**signs), critical=True)
        return built.sign(signer, hashes.SHA256()), key

    def _written(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @staticmethod
    def _pem(certificate: x509.Certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)

    @staticmethod
    def _plain(key: ec.EllipticCurvePrivateKey) -> bytes:
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("served"), 400)
    yield made
    made.close()


@pytest.fixture(scope="module", params=["1", "2"], ids=["a process", "two workers"])
def url(request: Any, served: Served, authority: Authority) -> Iterator[str]:
    assert served.deployment.directory is not None
    options = ("--tls-cert", str(authority.chain), "--tls-key", str(authority.key), "--workers", request.param)
    with server(served.deployment.directory, *options) as (address, _):
        yield address


def test_who_trusts_the_authority_is_answered_and_nobody_else(served: Served, authority: Authority, url: str) -> None:
    assert url.startswith("https://127.0.0.1:")
    headers = {"Authorization": f"Bearer {served.key(OURS)}"}
    with httpx.Client(base_url=url, verify=authority.context(), headers=headers, timeout=ANSWERED) as client:
        answer = client.get("/v1/rollups/by_site/query", params=DAYS)
        assert answer.status_code == 200
        assert answer.json()["rows"][0]["views"] == Analytics(served.deployment).query("by_site", entity=OURS, **DAYS).rows[0]["views"]
        assert "Secure" in client.post("/v1/session").headers["set-cookie"]
        assert client.get("/v1/me", headers={"Authorization": ""}).json()["via"] == "session"
        assert client.get("/dashboard").status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{url}/health", timeout=ANSWERED)
    with pytest.raises(httpx.ConnectError, match="mismatch"):
        httpx.get(f"{url.replace('127.0.0.1', 'localhost')}/health", verify=authority.context(), timeout=ANSWERED)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url.replace('https', 'http')}/health", timeout=ANSWERED)


def test_our_own_clients_take_what_they_are_to_trust(served: Served, authority: Authority, url: str) -> None:
    with RemoteAnalytics(url, key=served.key(OURS), verify=authority.context()) as analytics:
        assert analytics.query("by_site", **DAYS).rows == Analytics(served.deployment).query("by_site", entity=OURS, **DAYS).rows
        live = analytics.live("by_site", minutes=5, clock="events")
        assert next(live).entity == OURS
        live.close()
    with pytest.raises(UnavailableError), RemoteAnalytics(url, key=served.key(OURS), timeout=10) as analytics:
        analytics.rollups()
    key = served.key(actions=("write",))
    with Sender(url, "visits", key, context=authority.context()) as sender:
        sender.send({"ts": 1})
        sender.flush(ANSWERED)
        assert sender.rejected == 1  # for it lacks fields, which only who reads it can tell
    stranger = Sender(url, "visits", key, backoff=(0.01, 0.1), linger=0.01)
    stranger.send({"ts": 1})
    deadline = time.monotonic() + ANSWERED
    while not stranger.last_error and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "certificate verify failed" in stranger.last_error
    with pytest.raises(UnavailableError):
        stranger.close(0.01)


def test_the_command_line_and_a_client_trust_the_authorities_of_a_file(
    served: Served, authority: Authority, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"ts": 1}\n')
    monkeypatch.setenv("PENSTOCK_KEY", served.key(actions=("write",)))
    send = ["send", "visits", str(events), "--url", url, "--timeout", "10s"]
    assert execute(send) == 1 and "certificate verify failed" in capsys.readouterr().err
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.trusted))
    assert execute(send) == 1
    out, err = capsys.readouterr()
    assert ("rejected", "1") in [tuple(line.split()) for line in out.splitlines()] and '"event": {"ts": 1}' in err
    with Analytics.on(url, served.key(OURS)) as analytics:
        assert analytics.query("by_site", entity=OURS, **DAYS).rows


def test_a_pair_that_cannot_work_is_said_before_anything_is_served(
    served: Served, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    for certificate, key, said in (
        (authority.chain, authority.other_key, "do not belong together"),
        (authority.chain, authority.locked_key, "is locked by a passphrase"),
        (authority.key, authority.key, "are not both PEM"),
        (authority.chain, authority.chain, "are not both PEM"),
        (authority.chain, authority.folder / "missing", "is not there"),
    ):
        on = ("--on", f"local:{served.deployment.directory}")
        assert execute(["serve", "--port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), "--workers", "2", *on]) == 2
        out, err = capsys.readouterr()
        assert said in err and not out
    assert execute(["serve", "--port", "0", "--tls-cert", str(authority.chain)]) == 2
    assert "both a certificate and its key" in capsys.readouterr().err
