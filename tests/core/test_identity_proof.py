"""Proofs of identity: what they cover, what is refused, and that no secret is shown."""

from __future__ import annotations

import base64
import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from anywire.errors import ConfigError
from anywire.identities.identity_proof import MAX_PROOF_BYTES, Identity, as_text, fingerprint, from_text, read_proof

SEED = bytes(range(32))
BINDING = as_text(bytes(32))


def test_a_proof_proves_one_end_in_one_life() -> None:
    identity = Identity(SEED)
    proof = read_proof(identity.prove("agent", "hub", "h", 7, BINDING))
    assert proof is not None
    assert (proof.public, proof.binding, proof.fingerprint) == (identity.public, BINDING, identity.fingerprint)
    assert proof.is_valid("agent", "hub", "h", 7)
    for plane, end, end_id, incarnation in (
        ("client", "hub", "h", 7),
        ("agent", "agent", "h", 7),
        ("agent", "hub", "other", 7),
        ("agent", "hub", "h", 8),
        ("agent", "hub", "h\0007", 7),
        ("agent", "hub", "\ud800", 7),
    ):
        assert not proof.is_valid(plane, end, end_id, incarnation)  # type: ignore[arg-type]


def test_every_changed_character_makes_it_worthless() -> None:
    identity = Identity(SEED)
    text = identity.prove("agent", "agent", "a", 1, BINDING)
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        proof = read_proof(changed)
        assert proof is None or not proof.is_valid("agent", "agent", "a", 1)


def test_what_is_no_proof_is_none() -> None:
    chance = random.Random(1)
    text = Identity(SEED).prove("agent", "agent", "a", 1)
    assert read_proof(text) is not None
    for wrong in ("", "aw1", text + "\n", text + ".", text.replace("aw1", "aw2"), "é" * 300, "\0", text * 4):
        assert read_proof(wrong) is None
    for _ in range(500):
        data = bytearray(text.encode())
        data[chance.randrange(len(data))] = chance.randrange(128)
        proof = read_proof(data.decode())
        assert (
            proof is None
            or proof.binding != ""
            or not proof.is_valid("agent", "agent", "a", 1)
            or data == text.encode()
        )
    assert len(Identity(SEED).prove("client", "agent", "a", 2**64, "x" * 128)) <= MAX_PROOF_BYTES


def test_the_fingerprint_is_that_of_ssh() -> None:
    public = Identity(SEED).public
    assert fingerprint(public) == "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def test_text_reads_in_one_way() -> None:
    assert from_text(as_text(b"\xff" * 32)) == b"\xff" * 32
    assert from_text("AB") is None  # its last bits say nothing
    assert from_text("A") is None
    assert from_text("é") is None


def test_a_file_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "identity.pem"
    made = Identity.from_file(path)
    assert Identity.from_file(path).public == made.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("content", [b"", b"planted-secret", b"-----BEGIN PRIVATE KEY-----\nplanted\n"])
def test_a_file_without_a_key_is_refused_without_repeating_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no private Ed25519 key") as refused:
        Identity.from_file(path)
    assert "planted" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_wide_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.pem"
    Identity.from_file(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Identity.from_file(path)


def test_an_identity_shows_its_fingerprint_alone() -> None:
    identity = Identity(SEED)
    assert repr(identity) == str(identity) == f"Identity({identity.fingerprint})"
    with pytest.raises(ValueError, match="32 bytes"):
        Identity(b"short")


def test_reading_a_proof_loads_no_cryptography() -> None:
    module = "anywire.identities.identity_proof"
    code = f"import sys, {module} as i; i.read_proof('aw1'); assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
