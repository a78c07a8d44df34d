"""The keys of a fleet, created at its first start inside its volumes, never in the image or the repository.

The authority (the SuperLink's container) creates a certificate authority and the TLS certificate of its server. Every
device creates its own node key and hands over only the public half, so no private key leaves its owner's volume.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFETIME = datetime.timedelta(days=825)
_DAY = datetime.timedelta(days=1)


def make_authority(folder: Path, names: Sequence[str]) -> bool:
    """Create ca.crt, ca.key, server.pem and server.key in `folder`; return False if they exist already.

    names: the host names under which clients reach the server.
    """
    if (folder / "server.pem").exists():
        return False
    ca_key = ec.generate_private_key(ec.SECP384R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fed_asi fleet authority")])
    ca = _certificate(ca_name, ca_key, ca_name, ca_key, authority=True)
    server_key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    server = _certificate(subject, server_key, ca_name, ca_key, authority=False, names=names)
    write(folder / "ca.key", _private_pem(ca_key), 0o600)
    write(folder / "ca.crt", ca.public_bytes(serialization.Encoding.PEM), 0o644)
    write(folder / "server.key", _private_pem(server_key), 0o600)
    write(folder / "server.pem", server.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def make_node_key(folder: Path) -> tuple[bytes, bool]:
    """Return the public half (SSH form) of the ECDSA P-384 key in `folder`, and whether it was created now."""
    private = folder / "node"
    if private.exists():
        key = serialization.load_ssh_private_key(private.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return _public_ssh(key.public_key()), False
    new = ec.generate_private_key(ec.SECP384R1())
    pem = new.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    write(private, pem, 0o600)
    return _public_ssh(new.public_key()), True


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically, with `mode` from its first byte on."""
    part = path.with_suffix(path.suffix + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    part.replace(path)


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    names: Sequence[str] = (),
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(_usage(authority), critical=True)
    )
    if names:
        hosts: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        hosts.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_ssh(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
