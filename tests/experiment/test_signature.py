"""Who has sealed a record, and when at the latest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.experiment.fabricated import SMALL, fabricate
from typer.testing import CliRunner, Result

from anywire.errors import ConfigError
from anywire.identities.identity_proof import Identity, as_text
from anywire_experiment import outcome, report
from anywire_experiment.cli import app
from anywire_experiment.outcome import conclusion
from anywire_experiment.record import signature, timestamp
from anywire_experiment.record.manifest import MANIFEST, SIGNATURE, TIMESTAMP, seal
from anywire_experiment.record.storage import RecordError

pytestmark = pytest.mark.usefixtures("computed_once")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/anywire"


def told(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_a_key_is_made_once_for_this_user_alone(config: Path) -> None:
    found = told("key")
    assert found.exit_code == 0
    path = config / "record-author.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    identity = Identity.from_file(path)
    assert as_text(identity.public) in found.output
    assert identity.fingerprint in found.output
    assert told("key").output == found.output
    assert path.read_text() not in found.output


def test_without_a_key_nothing_is_signed_and_that_is_said(record: Path) -> None:
    assert isinstance(told("sign", record).exception, ConfigError)
    assert "you have no key yet: `anywire experiment key` makes one" in str(told("sign", record).exception)
    outcome.signed(record)
    assert not (record / SIGNATURE).exists()
    found = told("verify", record)
    assert found.exit_code == 0
    assert "it is not signed: nothing tells who has sealed it" in found.output
    assert "it is not signed" in outcome.verified(record).signed
    assert "it is not signed" in told("publish", record, "--out", record.parent).output


def test_a_key_that_is_not_there_is_not_made(record: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no key .*none: `anywire experiment key --key"):
        signature.author(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_its_author_is_known_by_the_key_in_every_form(record: Path, tmp_path: Path) -> None:
    told("key")
    identity = signature.needed(None)
    assert "signed by SHA256:" in told("sign", record).output
    assert "was signed by SHA256:" in told("sign", record).output
    public = Ed25519PublicKey.from_public_bytes(identity.public)
    (tmp_path / "author.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "author.txt").write_text(told("key").output)
    (tmp_path / "short.txt").write_text(f"{as_text(identity.public)}\n")
    forms = (identity.fingerprint, as_text(identity.public), *sorted(map(str, tmp_path.glob("*.*t*"))))
    for each in (*forms, str(tmp_path / "author.pem")):
        found = told("verify", record, "--author", each)
        assert found.exit_code == 0, (each, found.output)
        assert f"signed by {identity.fingerprint} at " in found.output
    other = Identity.new()
    found = told("verify", record, "--author", other.fingerprint)
    assert found.exit_code == 1
    assert f"signature.json: is of {identity.fingerprint}, and not of {other.fingerprint}" in found.output
    for wrong in ("SHA256:abc", "nobody", str(tmp_path)):
        assert isinstance(told("verify", record, "--author", wrong).exception, ConfigError), wrong


def test_a_private_key_is_never_shown(record: Path, config: Path) -> None:
    told("key")
    secret = (config / "record-author.pem").read_text().splitlines()[1]
    found = told("verify", record, "--author", config / "record-author.pem")
    assert isinstance(found.exception, ConfigError)
    assert "holds no public Ed25519 key" in str(found.exception)
    assert secret not in f"{found.output}{found.exception}"


def test_a_signature_holds_for_one_manifest_alone(record: Path, tmp_path: Path) -> None:
    other = fabricate(tmp_path / "other", SMALL | {"seed": 2})
    seal(other)
    identity = Identity.new()
    outcome.sign(record, identity)
    outcome.sign(other, identity)
    assert signature.faults_of_signature(record, identity.fingerprint) == []
    shutil.copyfile(other / SIGNATURE, record / SIGNATURE)
    (said,) = signature.faults_of_signature(record)
    assert said.startswith("signature.json: does not hold")
    with pytest.raises(RecordError, match=r"signature\.json: does not hold"):
        outcome.check(record)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[1]", b'{"public_key": "x", "signed": "", "signature": ""}', b"\xff", b"[" * 5000],
)
def test_what_is_no_signature_is_told(record: Path, content: bytes) -> None:
    (record / SIGNATURE).write_bytes(content)
    (said,) = signature.faults_of_signature(record)
    assert said.startswith("signature.json: ")
    assert "is no signature" in said
    found = told("verify", record)
    assert found.exit_code == 1
    assert "is no signature" in found.output


def test_a_report_written_anew_keeps_the_signature(record: Path) -> None:
    identity = Identity.new()
    outcome.sign(record, identity)
    before = {name: (record / name).read_bytes() for name in (MANIFEST, SIGNATURE)}
    outcome.conclude_again(record)
    assert {name: (record / name).read_bytes() for name in before} == before


def test_another_report_than_the_one_that_was_signed_is_not_written_over_it(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity.new()
    outcome.sign(record, identity)
    kept = {path.name: path.read_bytes() for path in record.iterdir() if path.is_file()}

    def other(folder: Path) -> dict[str, str]:
        return {name: f"{text} " for name, text in made.items()}

    made = report.texts(record)
    monkeypatch.setattr(conclusion, "texts", other)
    monkeypatch.setattr(report, "texts", other)
    for by in (None, Identity.new()):
        with pytest.raises(RecordError, match=r"is signed by SHA256:.*: say with --out where it is to be written"):
            outcome.conclude_again(record, identity=by)
    assert {path.name: path.read_bytes() for path in record.iterdir() if path.is_file()} == kept
    outcome.conclude_again(record, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in record.iterdir() if path.is_file()} == kept
    # The author may: it is signed again.
    outcome.conclude_again(record, identity=identity)
    assert (record / "report.md").read_bytes() != kept["report.md"]
    assert signature.faults_of_signature(record, identity.fingerprint) == []


def test_a_record_that_another_has_signed_is_not_signed_over(record: Path) -> None:
    outcome.sign(record, Identity.new())
    with pytest.raises(RecordError, match=r"is signed by SHA256:.* already"):
        outcome.sign(record, Identity.new())


def test_what_was_changed_is_not_signed(record: Path) -> None:
    (record / "plan.yaml").write_text("name: other")
    with pytest.raises(RecordError, match=r"is not signed, .*plan\.yaml: changed since it was sealed"):
        outcome.sign(record, Identity.new())


# When


def openssl(*arguments: str | Path, cwd: Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a time-stamping authority: ``root.pem`` vouches for ``tsa.pem``, whose key is ``tsa.key``."""
    pytest.importorskip("rfc3161_client")
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(
        "[req]\ndistinguished_name=dn\n[dn]\n"
        "[root]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
        "[leaf]\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "extendedKeyUsage=critical,timeStamping\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        "[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_cert=tsa.pem\nsigner_key=tsa.key\n"
        "signer_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256,sha512\nordering=yes\ntsa_name=no\n"
        "ess_cert_id_alg=sha256\n"
    )
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-config", "tsa.cnf")
    openssl(*(*new, "-extensions", "root", "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=root"), cwd=folder)
    leaf = ("-extensions", "leaf", "-keyout", "tsa.key", "-out", "tsa.pem", "-subj", "/CN=tsa")
    openssl(*new, *leaf, "-CA", "root.pem", "-CAkey", "root.key", cwd=folder)
    return folder


def stamped(record: Path, authority: Path) -> Path:
    """The authority's answer over the record's manifest."""
    answer = record.parent / "answer.tsr"
    request = ("ts", "-query", "-data", record / MANIFEST, "-sha256", "-cert", "-out", "request.tsq")
    openssl(*request, cwd=authority)
    reply = ("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "request.tsq", "-out", answer)
    openssl(*reply, cwd=authority)
    return answer


def test_a_timestamp_is_checked_against_the_manifest_and_the_authority(
    record: Path, authority: Path, tmp_path: Path
) -> None:
    identity = Identity.new()
    (done, added) = outcome.sign(record, identity, stamped(record, authority))
    assert "signed by" in done
    assert "a timestamp over its manifest of 20" in added
    found = outcome.verified(record)
    assert found.faults == []
    assert "that an authority said so is not shown" in found.notes[0]
    found = outcome.verified(record, authority=authority / "root.pem")
    assert found.faults == []
    assert f"an authority that {authority / 'root.pem'} vouches for says that it was sealed before 20" in found.notes[0]
    # It goes with what is published.
    outcome.published(record, tmp_path / "x.record")
    assert outcome.verified(tmp_path / "x.record", authority=authority / "root.pem") == found._replace(
        signed=found.signed.replace(str(record), str(tmp_path / "x.record"))
    )


def test_a_timestamp_of_another_record_or_of_nobody_is_told(record: Path, authority: Path, tmp_path: Path) -> None:
    other = fabricate(tmp_path / "other", SMALL | {"seed": 3})
    seal(other)
    answer = stamped(other, authority)
    with pytest.raises(RecordError, match=r"is not over this manifest\.json"):
        timestamp.add(record, answer)
    shutil.copyfile(answer, record / TIMESTAMP)
    (said,) = timestamp.checked(record)[0]
    assert said.startswith("timestamp.tsr: is not over this manifest.json")
    for content in (b"", b"x" * 100, b"x" * 300_000, answer.read_bytes()[:-5]):
        (record / TIMESTAMP).write_bytes(content)
        (said,) = timestamp.checked(record)[0]
        assert "no answer of a time-stamping authority" in said or "is no timestamp" in said
    (record / TIMESTAMP).unlink()
    timestamp.add(record, stamped(record, authority))
    identity_of_nobody = tmp_path / "nobody.pem"
    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "x",
        "-out",
        identity_of_nobody,
        "-subj",
        "/CN=x",
        cwd=tmp_path,
    )
    (said,) = timestamp.checked(record, identity_of_nobody)[0]
    assert "is not of an authority that" in said
    with pytest.raises(ConfigError, match="has no certificates as PEM"):
        timestamp.checked(record, record / "plan.yaml")


def test_an_authority_that_is_asked_for_needs_a_timestamp(record: Path, tmp_path: Path) -> None:
    assert timestamp.checked(record) == ([], "")
    (said,) = outcome.verified(record, authority=tmp_path / "root.pem").faults
    assert said.startswith("timestamp.tsr: missing")


def test_without_the_library_a_timestamp_is_told_as_not_looked_at(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rfc3161_client", None)
    (record / TIMESTAMP).write_bytes(b"x")
    faults, said = timestamp.checked(record)
    assert faults == []
    assert "was not looked at" in said
    assert "pip install 'anywire-experiment[timestamp]'" in said
    (fault,) = timestamp.checked(record, record / "x.pem")[0]
    assert "was not looked at" in fault
    with pytest.raises(RecordError, match="cannot be read here: pip install"):
        timestamp.add(record, record / TIMESTAMP)
