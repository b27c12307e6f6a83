"""A certificate for this machine, signed by itself, made once and used again."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quantscope.errors import OutputError
from quantscope.report.tables import write_whole

_VALID_DAYS = 365
_RENEWED_DAYS = 14


def folder() -> Path:
    """Where the certificate and its key are kept, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "quantscope" / "tls"


def certificate(hosts: Sequence[str], place: Path | None = None) -> tuple[Path, Path]:
    """Return the files of a certificate for these names and numbers, and of its key, which only its owner can read.

    Those of the last time are taken if they are valid for two more weeks and name the same hosts.

    Raises:
        OutputError: they cannot be written.
    """
    place = place or folder()
    certificate_file, key_file = place / "certificate.pem", place / "key.pem"
    if _usable(certificate_file, key_file, hosts):
        return certificate_file, key_file
    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_file.unlink(missing_ok=True)
        with open(os.open(key_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise OutputError(
            f"cannot write {key_file}: {error.strerror}", next_step="give your own with --cert and --key"
        ) from error
    write_whole(certificate_file, _signed(key, hosts).public_bytes(serialization.Encoding.PEM))
    return certificate_file, key_file


def fingerprint(certificate_file: Path) -> str:
    """The SHA-256 fingerprint as browsers show it: pairs of digits with colons."""
    found = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    return found.fingerprint(hashes.SHA256()).hex(":").upper()


def _usable(certificate_file: Path, key_file: Path, hosts: Sequence[str]) -> bool:
    try:
        found = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    until = found.not_valid_after_utc - datetime.timedelta(days=_RENEWED_DAYS)
    return (
        key_file.stat().st_mode & 0o777 == 0o600
        and datetime.datetime.now(datetime.UTC) < until
        and found.public_key() == key.public_key()
        and set(_names(hosts)) <= set(names)
    )


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names


def _signed(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"quantscope on {socket.gethostname()}"[:64])])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
