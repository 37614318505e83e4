"""The settings of who may come in: keys of clients, keys of agents and orchestrators, certificates."""

from __future__ import annotations

from pathlib import Path

import pydantic

from anywire.identities.identity_proof import VOUCHER


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class TlsConfig(_Section):
    """Certificates of the gateways. All files are PEM and are read again when they change."""

    certificate: Path = pydantic.Field(description="File with the certificate and those that lead to its authority.")
    key: Path = pydantic.Field(description="File with its private key, readable by this user alone.")
    client_ca: Path | None = pydantic.Field(
        None, description="File with the authorities of clients' certificates; clients then need one."
    )


class JwtConfig(_Section):
    """Tokens of an OpenID Connect issuer, taken beside keys."""

    issuer: str = pydantic.Field(description="The issuer, as it stands in its tokens (`iss`).")
    audience: str = pydantic.Field(description="Whom the tokens must be for (`aud`).")
    jwks: str = pydantic.Field("", description="File or URL with its keys. Default: what the issuer's discovery names.")
    tenant_claim: str = pydantic.Field(
        "", description="Claim that names the tenant. Default: none, each subject is one by itself."
    )
    role_claim: str = pydantic.Field("role", description="Claim that names the role; without it the role is `use`.")


class AccessConfig(_Section):
    keys: Path | None = pydantic.Field(
        None, description="File with the keys of clients (`anywire keys create`). Default: none, nobody needs a key."
    )
    jwt: JwtConfig | None = pydantic.Field(
        None, description="Tokens of an OpenID Connect issuer that are taken beside keys. Default: none."
    )
    trusted_proxies: list[str] = pydantic.Field(
        default_factory=list,
        description="Addresses and networks of proxies whose word counts on whom they pass on (`X-Forwarded-For`).",
    )
    insecure: bool = pydantic.Field(False, description="Let everybody who reaches a gateway in without a key.")


class IdentityConfig(_Section):
    """The key by which this process is known to the other ends of the transports, and whom it takes."""

    key: Path | None = pydantic.Field(
        None, description="File with this process's private key; made when it is missing. Default: no key."
    )
    admitted: Path | None = pydantic.Field(
        None,
        description="File with the agents and orchestrators that are let in (`anywire agents admit`). Default: whoever "
        "the transport lets in.",
    )
    voucher: str = pydantic.Field(
        "",
        pattern=rf"^(?:{VOUCHER.pattern})?$",
        description="Word of a key that invites, for this process's key: `anywire agent --invite` sets it.",
    )
