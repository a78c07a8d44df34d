"""The fleet's keys: created once, private from their first byte on, and signed by the fleet's own authority."""

from __future__ import annotations

import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy import keys


def test_authority_is_made_once_and_signs_its_server(tmp_path):
    assert keys.make_authority(tmp_path, ["superlink", "superlink-operator"])
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["superlink", "superlink-operator"]
    for secret in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600
    before = (tmp_path / "server.pem").read_bytes()
    assert not keys.make_authority(tmp_path, ["superlink"])
    assert (tmp_path / "server.pem").read_bytes() == before


def test_node_key_is_p384_private_and_kept(tmp_path):
    public_key, new = keys.make_node_key(tmp_path)
    assert new
    assert keys.make_node_key(tmp_path) == (public_key, False)
    loaded = serialization.load_ssh_public_key(public_key)
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.curve.name == "secp384r1"
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o600


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "secret"
    keys.write(path, b"old", 0o600)
    with pytest.raises(TypeError):
        keys.write(path, "text, not bytes", 0o600)
    assert path.read_bytes() == b"old"
    keys.write(path, b"new", 0o600)  # what the failed one left is in nobody's way
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
