"""DDS Security: certificates, governance and permissions of the participants, where the Cyclone DDS in use has it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

import pydantic
from cyclonedds.__library__ import library_path

from anywire.errors import ConfigError, TransportUnavailable
from anywire.files.private_files import read_private

_PLUGINS = {
    "Authentication": ("auth", "authentication"),
    "Cryptographic": ("crypto", "crypto"),
    "AccessControl": ("ac", "access_control"),
}
"""Cyclone's plugins: the names of their files, and of their functions."""

_FOLDER = "libddsc0debian"
"""Where Debian has them, beside Cyclone's own library."""


class SecurityConfig(pydantic.BaseModel):
    """DDS Security of a domain: files in PEM, and documents signed as the standard wants them (S/MIME)."""

    model_config = pydantic.ConfigDict(extra="forbid")

    identity_ca: Path = pydantic.Field(description="Certificate of the authority of all participants.")
    certificate: Path = pydantic.Field(description="Certificate of this process's participant.")
    private_key: Path = pydantic.Field(description="Its private key, readable by this user alone.")
    permissions_ca: Path = pydantic.Field(description="Certificate by which governance and permissions are signed.")
    governance: Path = pydantic.Field(description="Signed governance document of the domain.")
    permissions: Path = pydantic.Field(description="Signed permissions document of this participant.")
    plugins: Path | None = pydantic.Field(
        default=None,
        description="Folder with Cyclone's plugins for DDS Security. Default: where the Cyclone DDS in use has them.",
    )


class _Element(NamedTuple):
    name: str
    file: Path


def why_not(config: SecurityConfig) -> str:
    """Why there can be no DDS Security with the Cyclone DDS in use; empty when there can."""
    missing = [path.name for file, _ in _PLUGINS.values() if not (path := _library(config, file)).is_file()]
    return f"the Cyclone DDS in use has no plugins for it ({', '.join(missing)})" if missing else ""


def settings_xml(config: SecurityConfig) -> str:
    """The part of Cyclone's configuration that switches it on. Raises `TransportUnavailable` where there is none, for a
    file that is not there, and for a private key that others may read."""
    try:
        read_private(config.private_key)
    except FileNotFoundError:
        pass  # which is told beside what else is missing
    except ConfigError as error:
        raise TransportUnavailable(f"transports.dds.security.private_key: {error}") from error
    if reason := why_not(config):
        raise TransportUnavailable(
            f"transports.dds.security: not available, because {reason}. The wheel of cyclonedds has none: install the "
            "Cyclone DDS of Debian, and its Python package built against that (CYCLONEDDS_HOME)"
        )
    if missing := [str(path) for path in _files(config) if not path.is_file()]:
        raise TransportUnavailable(f"transports.dds.security: there is no file {', '.join(missing)}")
    authentication = _document(
        _Element("IdentityCA", config.identity_ca),
        _Element("IdentityCertificate", config.certificate),
        _Element("PrivateKey", config.private_key),
    )
    access = _document(
        _Element("PermissionsCA", config.permissions_ca),
        _Element("Governance", config.governance),
        _Element("Permissions", config.permissions),
    )
    parts = {"Authentication": authentication, "Cryptographic": "", "AccessControl": access}
    return "".join(["<DDSSecurity>", *(_plugin(config, name, part) for name, part in parts.items()), "</DDSSecurity>"])


def _document(*elements: _Element) -> str:
    return "".join(f"<{each.name}>{escape(f'file:{each.file.absolute()}')}</{each.name}>" for each in elements)


def _plugin(config: SecurityConfig, name: str, part: str) -> str:
    file, function = _PLUGINS[name]
    library = (
        f"<Library initFunction={quoteattr(f'init_{function}')} finalizeFunction={quoteattr(f'finalize_{function}')}"
        f" path={quoteattr(str(_library(config, file)))}/>"
    )
    return f"<{name}>{library}{part}</{name}>"


def _library(config: SecurityConfig, file: str) -> Path:
    name, beside = f"libdds_security_{file}.so", Path(library_path).resolve().parent
    folders = [config.plugins] if config.plugins is not None else [beside / _FOLDER, beside]
    return next((folder / name for folder in folders if (folder / name).is_file()), folders[0] / name)


def _files(config: SecurityConfig) -> list[Path]:
    return [
        config.identity_ca,
        config.certificate,
        config.private_key,
        config.permissions_ca,
        config.governance,
        config.permissions,
    ]
