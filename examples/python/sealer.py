"""Seals events, one proof each (docs/sealed-event.md §2 to §4)."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from data_keys import Generate
from opener import read_json
from sealed_event import (
    A256GCM,
    CONTENT_TYPE,
    ED25519,
    ENCRYPT_TAG,
    ESP256,
    KEY_SERVICE_WRAP,
    OUTER_TAG,
    SIGN1_TAG,
    TYP_BODY,
    TYP_PROOF,
    Claims,
    Place,
    commitment_of,
    dump,
    encryption_aad,
    encryption_context,
    parse,
    signature_input,
)

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class _DataKey:
    made_at: float
    plain: bytes
    wrapped: bytes
    uses: int = 0


class Sealer:
    """
    One session: keep it as long as the process lives. `kek`: the KEK's name in the key directory, and its name for
    `generate` (data_keys.py). Safe for several threads, and after a fork.
    """

    MAX_KEY_SECONDS = 3600
    MAX_KEY_USES = 2**24

    def __init__(
        self,
        *,
        iss: str,
        audience: str,
        kid: bytes,
        key: PrivateKey,
        kek: tuple[str, str],
        generate: Generate,
        life_seconds: int = 3600,
        max_value_bytes: int = 1_048_576,
        now: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("the signing key must be of Ed25519 or of P-256")
        if not 0 < life_seconds <= 86_400:
            raise ValueError("life_seconds must be 1 to 86,400")
        self._iss = iss
        self._audience = audience
        self._kid = kid
        self._key = key
        self._kek = kek
        self._generate = generate
        self._life_seconds = life_seconds
        self._max_value_bytes = max_value_bytes
        self._now = now
        self._begin_session()
        # The child of a fork would go on with its parent's numbers.
        os.register_at_fork(after_in_child=self._begin_session)

    def seal(
        self, place: Place, *, source: str, type: str, data: Any, more: Mapping[str, str] | None = None
    ) -> tuple[bytes, list[tuple[str, bytes]]]:
        """
        The value and the headers of a record for this place, and no other. `more`: further CloudEvents attributes, and
        an `id` where it is to be yours. Send what comes out in the order of the calls. Raises `Rejection` for an event
        that every gate would refuse, ValueError for data that is no JSON, `Outage` where there is no data key.
        """
        payload = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
        read_json(payload)
        ce = {"id": str(uuid.uuid4()), **(more or {}), "source": source, "type": type, "specversion": "1.0"}
        with self._lock:
            value = self._seal(place, ce, payload)
        hints = [(f"ce_{name}", ce[name].encode()) for name in ("id", "source", "type", "specversion")]
        return value, [("content-type", CONTENT_TYPE.encode()), *hints]

    def _begin_session(self) -> None:
        self._lock = threading.Lock()
        self._session = os.urandom(16)
        self._numbers: Counter[tuple[str, int]] = Counter()
        self._data_keys: dict[str, _DataKey] = {}

    def _seal(self, place: Place, ce: dict[str, str], payload: bytes) -> bytes:
        iat = int(self._now())
        draft = Claims(
            iss=self._iss,
            aud=self._audience,
            exp=iat + self._life_seconds,
            iat=iat,
            content_type="application/json",
            ce=ce,
            commitment=b"",
            session=self._session,
            number=self._numbers[place.channel, place.partition],
        )
        data_key = self._data_key(encryption_context(draft))
        protected = _body_header(draft, commitment_of(data_key.plain))
        nonce = os.urandom(12)
        ciphertext = AESGCM(data_key.plain).encrypt(nonce, payload, encryption_aad(protected, place))
        recipient = [b"", {1: KEY_SERVICE_WRAP, 4: self._kek[0].encode()}, data_key.wrapped]
        body = ENCRYPT_TAG + dump([protected, {5: nonce}, ciphertext, [recipient]])
        alg = ED25519 if isinstance(self._key, ed25519.Ed25519PrivateKey) else ESP256
        proof_header = dump({1: alg, 4: self._kid, 16: TYP_PROOF})
        signature = self._sign(signature_input(proof_header, place.statement(body)))
        proof = SIGN1_TAG + dump([proof_header, {}, None, signature])
        value = OUTER_TAG + dump([body, proof])
        parse(value, self._max_value_bytes)
        # Counted once nothing can fail any more: a number that never comes would look like a lost event.
        self._numbers[place.channel, place.partition] += 1
        return value

    def _data_key(self, context: dict[str, str]) -> _DataKey:
        """One for each event type, for an hour or 2^24 events. Its age counts by a clock that nobody sets."""
        kept = self._data_keys.get(context["sealgate:type"])
        if kept is None or kept.uses >= self.MAX_KEY_USES or time.monotonic() - kept.made_at >= self.MAX_KEY_SECONDS:
            asked_at = time.monotonic()
            kept = _DataKey(asked_at, *self._generate(self._kek[1], context))
            self._data_keys[context["sealgate:type"]] = kept
        kept.uses += 1
        return kept

    def _sign(self, message: bytes) -> bytes:
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _body_header(claims: Claims, commitment: bytes) -> bytes:
    return dump(
        {
            1: A256GCM,
            3: claims.content_type,
            15: {1: claims.iss, 3: claims.aud, 4: claims.exp, 6: claims.iat},
            16: TYP_BODY,
            "ce": claims.ce,
            "kc": commitment,
            "seq": [claims.session, claims.number],
        }
    )


def partition_of(key: bytes, count: int) -> int:
    """The partition that Kafka's Java clients, and sealgate's, choose for a key: murmur2, its sign bit cleared."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * m & mask
        word = (word ^ word >> 24) * m & mask
        value = (value * m & mask) ^ word
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * m & mask
    value = (value ^ value >> 13) * m & mask
    return ((value ^ value >> 15) & 0x7FFFFFFF) % count
