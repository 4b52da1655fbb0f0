"""Public keys, asked for by kid of the function of keys (docs/keys.md), and whether they may sign."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from sealed_event import ED25519, ESP256, Outage

STATES = ("pre-activation", "active", "suspended", "deactivated", "compromised")
P = 2**255 - 19
# The y of the points of low order (RFC 8032 calls for no check): under such a key, signatures verify that nobody made.
LOW_ORDER = (
    0,
    1,
    P - 1,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
)


@dataclass(frozen=True)
class PublicKey:
    """Times in seconds since 1970; `not_before` and `not_after` are included."""

    iss: str
    alg: int
    handle: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey
    state: str
    not_before: int
    not_after: int
    compromised_at: int | None

    def may_sign(self, at: int) -> bool:
        """Step 4 of docs/sealed-event.md §5."""
        if self.state not in ("active", "deactivated", "compromised"):
            return False
        if self.state == "compromised" and self.compromised_at is None:
            return False
        if self.compromised_at is not None and at >= self.compromised_at:
            return False
        return self.not_before <= at <= self.not_after

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Step 5. OpenSSL asks S < L of Ed25519, without the cofactor, and 1 <= r, s < n of P-256."""
        if len(signature) != 64:
            return False
        try:
            if isinstance(self.handle, ed25519.Ed25519PublicKey):
                self.handle.verify(signature, message)
            else:
                r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
                self.handle.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def public_key(row: dict[str, Any]) -> PublicKey:
    """A key as the function publishes it: a JWK with its owner, state and times. ValueError where it is none."""
    if "d" in row:
        raise ValueError("a private key stands where a public one belongs")
    for name in ("notBefore", "notAfter"):
        if type(row.get(name)) is not int:
            raise ValueError(f"{name} is no time")
    if row.get("compromisedAt", 0) is not None and type(row.get("compromisedAt")) is not int:
        raise ValueError("compromisedAt is no time")
    if row.get("state") not in STATES or type(row.get("iss")) is not str:
        raise ValueError("no known state, or no owner")
    alg, handle = _handle(row)
    times = row["notBefore"], row["notAfter"], row["compromisedAt"]
    return PublicKey(row["iss"], alg, handle, row["state"], *times)


def _handle(row: dict[str, Any]) -> tuple[int, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey]:
    kind = row.get("kty"), row.get("crv"), row.get("alg")
    x = _bytes32(row.get("x"))
    if kind == ("OKP", "Ed25519", "Ed25519"):
        y = int.from_bytes(x, "little") & (2**255 - 1)
        if y >= P or y in LOW_ORDER:
            raise ValueError("x is no canonical point of the prime order's group")
        return ED25519, ed25519.Ed25519PublicKey.from_public_bytes(x)
    if kind == ("EC", "P-256", "ES256"):
        y = int.from_bytes(_bytes32(row.get("y")), "big")
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), y, ec.SECP256R1())
        return ESP256, numbers.public_key()
    raise ValueError("no key of a known algorithm")


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes32(text: object) -> bytes:
    data = base64.urlsafe_b64decode(text + "=") if type(text) is str and len(text) == 43 else b""
    if len(data) != 32 or base64url(data) != text:
        raise ValueError("a coordinate that is not 32 bytes of base64url")
    return data


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class PublicKeys:
    """
    The keys behind an address, each kept for a minute, the unknown ones too. Trust in them rests on TLS and on whoever
    runs the function: the directory's own signature is not seen here.
    """

    KEEP_SECONDS = 60
    MAX_KEPT = 1000
    # A kid is a stranger's text until its signature verifies: what he can make us ask for is bounded.
    MAX_READS_A_MINUTE = 60
    MAX_ANSWER_BYTES = 65_536
    TIMEOUT_SECONDS = 5

    def __init__(self, url: str, now: Callable[[], float] = time.monotonic) -> None:
        if re.match(r"https://[^/]|http://127\.0\.0\.1:\d+(/|$)", url) is None:
            raise ValueError("the address of the function of keys must begin with https://")
        self._url = url.rstrip("/")
        self._now = now
        self._http = urllib.request.build_opener(_NoRedirects)
        self._kept: OrderedDict[bytes, tuple[float, PublicKey | None]] = OrderedDict()
        self._reads: deque[float] = deque(maxlen=self.MAX_READS_A_MINUTE)

    def __call__(self, kid: bytes) -> PublicKey | None:
        """The key, or None where there is none for certain. Raises Outage where that cannot be told."""
        now = self._now()
        if kid in self._kept and now - self._kept[kid][0] <= self.KEEP_SECONDS:
            return self._kept[kid][1]
        if len(self._reads) == self.MAX_READS_A_MINUTE and now - self._reads[0] < 60:
            raise Outage(f"over {self.MAX_READS_A_MINUTE} keys were asked for within a minute")
        self._reads.append(now)
        try:
            key = self._read(base64url(kid))
        except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
            raise Outage(f"the function of keys did not answer as it should: {error}") from error
        self._kept.pop(kid, None)
        self._kept[kid] = now, key
        if len(self._kept) > self.MAX_KEPT:
            self._kept.popitem(last=False)
        return key

    def _read(self, kid: str) -> PublicKey | None:
        try:
            with self._http.open(f"{self._url}/keys/{kid}", timeout=self.TIMEOUT_SECONDS) as answer:
                row = self._json(answer)
        except urllib.error.HTTPError as error:
            # A 404 of something else that stands at this address says nothing about a key.
            with error:
                if error.code == 404 and self._json(error) == {"error": "not found"}:
                    return None
                raise
        if type(row) is not dict or row.get("kid") != kid:
            raise ValueError("not the key that was asked for")
        return public_key(row)

    def _json(self, answer: Any) -> Any:
        text = answer.read(self.MAX_ANSWER_BYTES + 1)
        if len(text) > self.MAX_ANSWER_BYTES:
            raise ValueError("an answer that is too long")
        return json.loads(text)
