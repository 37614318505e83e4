"""Certificates and signed documents for DDS Security, as its administrator would make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID

GOVERNANCE = """<?xml version="1.0" encoding="utf-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:noNamespaceSchemaLocation="https://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_governance.xsd">
  <domain_access_rules><domain_rule>
    <domains><id_range><min>0</min><max>230</max></id_range></domains>
    <allow_unauthenticated_participants>false</allow_unauthenticated_participants>
    <enable_join_access_control>true</enable_join_access_control>
    <discovery_protection_kind>ENCRYPT</discovery_protection_kind>
    <liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
    <rtps_protection_kind>SIGN</rtps_protection_kind>
    <topic_access_rules><topic_rule>
      <topic_expression>*</topic_expression>
      <enable_discovery_protection>true</enable_discovery_protection>
      <enable_liveliness_protection>true</enable_liveliness_protection>
      <enable_read_access_control>true</enable_read_access_control>
      <enable_write_access_control>true</enable_write_access_control>
      <metadata_protection_kind>ENCRYPT</metadata_protection_kind>
      <data_protection_kind>ENCRYPT</data_protection_kind>
    </topic_rule></topic_access_rules>
  </domain_rule></domain_access_rules>
</dds>
"""

PERMISSIONS = """<?xml version="1.0" encoding="utf-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:noNamespaceSchemaLocation="https://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_permissions.xsd">
  <permissions><grant name="{name}">
    <subject_name>CN={name}</subject_name>
    <validity><not_before>2020-01-01T00:00:00</not_before><not_after>2050-01-01T00:00:00</not_after></validity>
    <allow_rule>
      <domains><id_range><min>0</min><max>230</max></id_range></domains>
      <publish><topics><topic>*</topic></topics><partitions><partition>*</partition></partitions></publish>
      <subscribe><topics><topic>*</topic></topics><partitions><partition>*</partition></partitions></subscribe>
    </allow_rule>
    <default>DENY</default>
  </grant></permissions>
</dds>
"""


class Authority:
    """Signs certificates, governance and permissions; all its files are in ``folder``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._certified(name, self._key.public_key(), is_authority=True)
        self._ca = self._write(f"{name}.pem", self._certificate.public_bytes(Encoding.PEM))
        self._governance = self._signed("governance", GOVERNANCE)

    def options(self, name: str) -> dict[str, str]:
        """The option `security` of the participant with this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certified(name, key.public_key(), is_authority=False)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files = {
            "identity_ca": self._ca,
            "certificate": self._write(f"{name}.pem", certificate.public_bytes(Encoding.PEM)),
            "private_key": self._write(f"{name}.key", private),
            "permissions_ca": self._ca,
            "governance": self._governance,
            "permissions": self._signed(name, PERMISSIONS.format(name=name)),
        }
        return {option: str(path) for option, path in files.items()}

    def _certified(self, name: str, public: ec.EllipticCurvePublicKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = "authority" if not is_authority else name
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self._key, SHA256())
        )

    def _signed(self, name: str, text: str) -> Path:
        signer = PKCS7SignatureBuilder().set_data(text.encode()).add_signer(self._certificate, self._key, SHA256())
        options = [PKCS7Options.Text, PKCS7Options.DetachedSignature]
        return self._write(f"{name}.p7s", signer.sign(Encoding.SMIME, options))

    def _write(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
