"""render.sh: settings become a configuration, or a sentence."""

import datetime
import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stack.binaries import find
from tests.gateway.conftest import Services
from tests.gateway.running import HOST, Gateway, gateway, render
from tests.users.driver import ADMIN_KEY

SERVICES = ("USERS", "CHECKPOINTS", "ENDPOINTS", "INFERENCE", "DATASETS", "TRAINING")
UPSTREAMS = {f"{name}_UPSTREAM": "server 127.0.0.1:9;" for name in SERVICES}


def nginx_accepts(folder: Path) -> bool:
    command = [str(find("nginx")), "-p", str(folder), "-c", "nginx.conf", "-t"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"GATEWAY_LISTEN": "127.0.0.1:18099 [::1]:18099"},
        {"BASE_PATH": "/v1/"},
        {"TRUSTED_PROXIES": "10.0.0.0/8,192.168.1.1 fd00::/8"},
        {"CORS_ORIGINS": "*"},
        {"CORS_ORIGINS": "http://localhost:3000 https://a.example"},
        {"GATEWAY_ACCESS_LOG": "off"},
        {
            "USERS_UPSTREAM": "server users:8000 resolve max_fails=1 fail_timeout=2s;",
            "RESOLVER": "127.0.0.11",
        },
    ],
    ids=str,
)
def test_nginx_accepts_what_is_rendered(tmp_path: Path, settings: dict[str, str]) -> None:
    rendered = render(tmp_path, **(UPSTREAMS | settings))
    assert rendered.returncode == 0, rendered.stderr
    assert nginx_accepts(tmp_path)
    rendered = "".join(path.read_text() for path in tmp_path.glob("*.conf"))
    assert not re.search("@[A-Z_]+@", rendered)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_LISTEN", "8080; include /etc/passwd"),
        ("GATEWAY_LISTEN", "127.0.0.1:8080\ninclude x"),
        ("BASE_PATH", "a/b"),
        ("BASE_PATH", "a|b"),
        ("BASE_PATH", "users"),
        ("BASE_PATH", "(.*)"),
        ("USERS_UPSTREAM", ""),
        ("USERS_UPSTREAM", "127.0.0.1:8101"),
        ("USERS_UPSTREAM", "server a:1; } include /x; #"),
        ("USERS_UPSTREAM", "server users:8000 resolve;"),
        ("RESOLVER", "127.0.0.11; x"),
        ("TRUSTED_PROXIES", "everybody"),
        ("TRUSTED_PROXIES", "10.0.0.0/8; allow all"),
        ("CORS_ORIGINS", 'https://a.example"; x'),
        ("CORS_ORIGINS", "~.*"),
        ("MAX_BODY_MB", "0"),
        ("MAX_BODY_MB", "32m"),
        ("GATEWAY_TIMEOUT_SECONDS", "1 s"),
        ("GATEWAY_ACCESS_LOG", "/tmp/a b"),
        ("GATEWAY_TLS_CERT", "/tmp/only-one.pem"),
        ("GATEWAY_USER", "a;b"),
    ],
)
def test_a_bad_value_is_told_by_the_name_of_its_variable(tmp_path: Path, variable: str, value: str) -> None:
    rendered = render(tmp_path, **(UPSTREAMS | {variable: value}))
    assert rendered.returncode == 2
    assert variable in rendered.stderr
    assert rendered.stderr.startswith("gateway: ")
    assert not (tmp_path / "nginx.conf").exists()


def test_the_base_path_is_what_the_setting_says(services: Services, gate: Gateway, tmp_path: Path) -> None:
    with gateway(tmp_path, **(services.upstreams | {"BASE_PATH": "v1"})) as other:
        assert other.call("GET", "/v1/ping").status_code == 200
        assert other.call("GET", "/ping").status_code == 200
        assert other.call("GET", "/prod/ping").status_code == 404


def test_a_trusted_proxy_says_who_the_client_is(services: Services, gate: Gateway, tmp_path: Path) -> None:
    with gateway(tmp_path, **(services.upstreams | {"TRUSTED_PROXIES": "127.0.0.0/8"})) as behind:
        behind.token = gate.token
        said = {"X-Forwarded-For": "192.0.2.1, 203.0.113.9, 127.0.0.5", "X-Forwarded-Proto": "https"}
        told = behind.call("GET", "/checkpoints", headers=said).json()["headers"]
    assert told["x-forwarded-for"] == "203.0.113.9"
    assert told["x-forwarded-proto"] == "https"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    moment = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "tls.pem", folder / "tls.key"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_file, key_file


def test_with_certificate_and_key_the_gateway_speaks_https_only(services: Services, tmp_path: Path) -> None:
    certificate_file, key_file = certificate(tmp_path)
    settings = {"GATEWAY_TLS_CERT": str(certificate_file), "GATEWAY_TLS_KEY": str(key_file)}
    with gateway(tmp_path, **(services.upstreams | settings)) as secure:
        secure.certificate = certificate_file
        answer = secure.call("GET", "/ping")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["Strict-Transport-Security"]
        plain = secure.raw(
            f"GET /ping HTTP/1.1\r\nHost: x\r\nx-api-key: {ADMIN_KEY}\r\nConnection: close\r\n\r\n".encode()
        )
        assert b" 400 " in plain.splitlines()[0]
        assert b'"statusCode":400' in plain
