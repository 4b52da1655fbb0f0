"""Verifies and opens sealed events: steps 1 to 6, 10 and 11 of docs/sealed-event.md §5, in that order."""

from __future__ import annotations

import hmac
import json
import re
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from data_keys import UNDECRYPTABLE, Unwrap
from public_keys import PublicKey
from sealed_event import (
    CONTENT_TYPE,
    Body,
    Claims,
    Outage,
    Place,
    Proof,
    Rejection,
    commitment_of,
    encryption_aad,
    encryption_context,
    parse,
    signed_bytes,
)

MAX_CLOCK_LEAD_SECONDS = 300


@dataclass(frozen=True)
class Record:
    """A record as it came from Kafka. `append_time`: milliseconds since 1970 where the broker set it, else None."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    append_time: int | None


@dataclass(frozen=True)
class Opened:
    claims: Claims
    payload: bytes

    def data(self) -> Any:
        """The payload as I-JSON (RFC 7493); raises `Rejection("schema-invalid")`. Fractions are of Decimal."""
        if self.claims.content_type != "application/json":
            raise Rejection("schema-invalid", "the content type is not application/json")
        return read_json(self.payload)


class Opener:
    """
    `audience`: who we are. `channels`: the channel of each topic. `keys`: the public key of a kid (public_keys.py).
    `keks`: whose events may be under which KEK, and that KEK's name for `unwrap` (data_keys.py); whoever has none there
    may not publish. Not safe for several threads.
    """

    def __init__(
        self,
        *,
        audience: str,
        channels: Mapping[str, str],
        issuers: Collection[str],
        keys: Callable[[bytes], PublicKey | None],
        keks: Mapping[tuple[str, bytes], str],
        unwrap: Unwrap,
        max_life_seconds: int = 86_400,
        max_value_bytes: int = 1_114_112,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._audience = audience
        self._channels = channels
        self._issuers = issuers
        self._keys = keys
        self._keks = keks
        self._unwrap = unwrap
        self._max_life_seconds = max_life_seconds
        self._max_value_bytes = max_value_bytes
        self._now = now
        self._latest: dict[tuple[str, int], int] = {}

    def open(self, record: Record) -> Opened:
        """The event in a record. Raises `Rejection`, which is final, or `Outage`: then try the same record again."""
        channel = self._channels.get(record.topic)
        if channel is None:
            raise Outage(f"topic {record.topic} has no channel")
        place = Place(channel, record.partition, record.key)
        at = self._judging_time(record)
        try:
            opened = self._decide(record, place, at)
        except Rejection:
            self._latest[record.topic, record.partition] = at
            raise
        self._latest[record.topic, record.partition] = at
        return opened

    def _judging_time(self, record: Record) -> int:
        """The broker's time where there is one, else ours; within a partition it never goes back."""
        now = self._now()
        if record.append_time is not None and record.append_time / 1000 > now + MAX_CLOCK_LEAD_SECONDS:
            raise Outage("the broker's clock is more than 300 s ahead of ours")
        at = int(now) if record.append_time is None else record.append_time // 1000
        return max(at, self._latest.get((record.topic, record.partition), 0))

    def _decide(self, record: Record, place: Place, at: int) -> Opened:
        body, proof = parse(record.value, self._max_value_bytes)
        check_hints(record.headers, body.claims)
        self._check_signature(body, proof, place, at)
        self._check_claims(body.claims, at)
        # What was sent twice is found here (step 8), by whoever keeps what it has done: see docs/python.md.
        payload = self._decrypt(body, place)
        return Opened(body.claims, payload)

    def _check_signature(self, body: Body, proof: Proof, place: Place, at: int) -> None:
        key = self._keys(proof.kid)
        if key is None:
            raise Rejection("key-unknown", "there is no key of this kid")
        if key.alg != proof.alg:
            raise Rejection("unsupported", "the algorithm is not the key's")
        if key.iss != body.claims.iss:
            raise Rejection("issuer-mismatch", "the key belongs to another issuer")
        if not key.may_sign(at):
            raise Rejection("key-not-valid", f"the key may not sign at this time (state {key.state})")
        if not key.verifies(proof.signature, signed_bytes(proof, body.encoded, place)):
            raise Rejection("signature-invalid", "altered, or moved to another topic, partition or key")

    def _check_claims(self, claims: Claims, at: int) -> None:
        if claims.aud != self._audience:
            raise Rejection("audience-mismatch", "sealed for somebody else")
        if claims.iat > at + MAX_CLOCK_LEAD_SECONDS:
            raise Rejection("time-invalid", "sealed in the future")
        if at > claims.exp:
            raise Rejection("time-invalid", "expired")
        if not 0 < claims.exp - claims.iat <= self._max_life_seconds:
            raise Rejection("time-invalid", "a life that is none, or too long")
        if claims.iss not in self._issuers:
            raise Rejection("not-authorised", "we do not take events of this issuer")

    def _decrypt(self, body: Body, place: Place) -> bytes:
        kek = self._keks.get((body.claims.iss, body.kek_id))
        if kek is None:
            raise Rejection("undecryptable", UNDECRYPTABLE)
        data_key = self._unwrap(kek, body.wrapped, encryption_context(body.claims))
        # Before the ciphertext: one that opens under two keys is made with little effort.
        if not hmac.compare_digest(commitment_of(data_key), body.claims.commitment):
            raise Rejection("undecryptable", UNDECRYPTABLE)
        try:
            return AESGCM(data_key).decrypt(body.nonce, body.ciphertext, encryption_aad(body.protected, place))
        except InvalidTag:
            raise Rejection("undecryptable", UNDECRYPTABLE) from None


def check_hints(headers: Sequence[tuple[str, bytes | None]], claims: Claims) -> None:
    """Step 2: headers are never trusted, but those that name what is signed must say the same."""
    hints = {f"ce_{name}": claims.ce[name] for name in ("id", "source", "type", "specversion")}
    hints["content-type"] = CONTENT_TYPE
    for name, value in headers:
        if name in ("ce_id", "ce_source", "ce_type", "ce_specversion", "content-type"):
            # None where it came before.
            signed = hints.pop(name, None)
            if signed is None or value != signed.encode():
                raise Rejection("hint-mismatch", f"header {name} is not what is signed, or stands twice")


def read_json(payload: bytes) -> Any:
    """One I-JSON text (RFC 7493) as Python's objects: no name twice, no lone surrogates, no noncharacters, no NaN."""
    try:
        text = payload.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_int=_integer, parse_float=Decimal
        )
        strings = json.dumps(value, ensure_ascii=False, default=str)
        strings.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Rejection("schema-invalid", "the payload is no I-JSON") from error
    if _NONCHARACTER.search(strings):
        raise Rejection("schema-invalid", "a noncharacter in the payload")
    return value


_NONCHARACTER = re.compile(
    "[\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF)) + "]"
)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name twice in an object")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int | Decimal:
    """Python bounds an int's digits, since reading them takes quadratic time."""
    return int(digits) if len(digits) <= sys.int_info.str_digits_check_threshold else Decimal(digits)
