"""When a record was sealed at the latest: the answer of a time-stamping authority (RFC 3161) over its manifest.

Nothing is asked over the network here: whoever wants a timestamp sends the SHA-256 of ``manifest.json`` to an authority
of his choice and adds its answer to the record. It is read by `rfc3161-client`, which is an extra.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anywire.errors import ConfigError
from anywire_experiment.record.manifest import MANIFEST, TIMESTAMP
from anywire_experiment.record.storage import RecordError, write_whole

_LONGEST = 256 * 1024
"""Bytes of an answer."""
_EXTRA = "pip install 'anywire-experiment[timestamp]'"


def add(record: Path, file: Path) -> str:
    """Make the answer in ``file`` part of a sealed record. Returns its time. Raises `RecordError` when it is not over
    this record's manifest, or nothing here can read it."""
    try:
        with file.open("rb") as opened:
            answer = opened.read(_LONGEST + 1)
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from error
    found = _read(answer, str(file))
    if (fault := _fault(record, found)) is not None:
        raise RecordError(f"{file} {fault}")
    write_whole(record / TIMESTAMP, answer)
    return _time(found)


def checked(record: Path, authority: Path | None = None) -> tuple[list[str], str]:
    """What is wrong with the timestamp of a sealed record, a sentence each, and what it tells, both empty without one.
    With ``authority``, a PEM file of certificates, its signature must be of a certificate that one of them vouches for;
    without, its time is told as what it says of itself."""
    path = record / TIMESTAMP
    if not path.exists() and not path.is_symlink():
        return ([f"{TIMESTAMP}: missing, and a timestamp of {authority} is asked for"] if authority else []), ""
    if path.is_symlink() or not path.is_file():
        return [f"{TIMESTAMP}: is no plain file, and a record holds nothing else"], ""
    try:
        import rfc3161_client  # noqa: F401
    except ImportError:
        said = f"its timestamp was not looked at, for which `{_EXTRA}` is needed"
        return ([f"{TIMESTAMP}: {said}"], "") if authority else ([], said)
    try:
        with path.open("rb") as file:
            found = _read(file.read(_LONGEST + 1), TIMESTAMP)
    except (OSError, RecordError) as error:
        return [f"{TIMESTAMP}: {error}"], ""
    if (fault := _fault(record, found)) is not None:
        return [f"{TIMESTAMP}: {fault}"], ""
    when = _time(found)
    if authority is None:
        return [], (
            f"its timestamp is over this manifest and says {when}; that an authority said so is not shown "
            "(`--authority FILE` with its certificates checks it)"
        )
    if (reason := _refused(record, found, authority)) is not None:
        return [f"{TIMESTAMP}: is not of an authority that {authority} vouches for: {reason}"], ""
    return [], f"an authority that {authority} vouches for says that it was sealed before {when}"


def _read(answer: bytes, where: str) -> Any:
    try:
        from rfc3161_client import decode_timestamp_response
    except ImportError:
        raise RecordError(f"{where} cannot be read here: {_EXTRA}") from None
    if len(answer) > _LONGEST:
        raise RecordError(f"{where} is no timestamp: it has more than {_LONGEST} bytes")
    try:
        found = decode_timestamp_response(answer)
        found.tst_info.message_imprint.message  # noqa: B018 (it is read here, where what is wrong is told)
        return found
    except Exception as error:  # whatever a library says of a stranger's file
        raise RecordError(f"{where} is no answer of a time-stamping authority (RFC 3161): {error}") from error


def _fault(record: Path, found: Any) -> str | None:
    imprint = found.tst_info.message_imprint
    manifest = (record / MANIFEST).read_bytes()
    if imprint.message in {hashlib.new(each, manifest).digest() for each in ("sha256", "sha384", "sha512")}:
        return None
    return f"is not over this {MANIFEST}: it is of another record, or the record was sealed again since"


def _time(found: Any) -> str:
    return str(found.tst_info.gen_time.isoformat(timespec="seconds"))


def _refused(record: Path, found: Any, authority: Path) -> str | None:
    """Why its signature is not of one of the certificates in ``authority``; None when it is."""
    from rfc3161_client import VerifierBuilder

    builder = VerifierBuilder()
    for each in _certificates(authority):
        builder = builder.add_root_certificate(each)
    try:
        builder.build().verify_message(found, (record / MANIFEST).read_bytes())
    except Exception as error:  # whatever a library says of a stranger's file
        return str(error) or type(error).__name__
    return None


def _certificates(file: Path) -> Sequence[Any]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} has no certificates as PEM: {error}") from error
