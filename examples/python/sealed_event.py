"""The wire format of a sealed event, version 1: its strict parse and what is bound (docs/sealed-event.md §2, §4)."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import cbor2

OUTER_TAG = bytes.fromhex("da53455631")
ENCRYPT_TAG = bytes.fromhex("d860")
SIGN1_TAG = bytes.fromhex("d2")
TYP_BODY = "application/vnd.sealgate.body+cose"
TYP_PROOF = "application/vnd.sealgate.proof+cose"
TYP_BATCH = "application/vnd.sealgate.batch+cose"
CONTENT_TYPE = "application/vnd.sealgate.event+cbor"
A256GCM = 3
KEY_SERVICE_WRAP = -70101
ED25519 = -19
ESP256 = -9


class Rejection(Exception):
    """The record is refused for good; `code` is one of docs/sealed-event.md §5."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class Outage(Exception):
    """Nothing could be decided. Try the record again, and none after it before."""


@dataclass(frozen=True)
class Claims:
    """What a producer says of an event, all of it signed. Times in seconds since 1970."""

    iss: str
    aud: str
    exp: int
    iat: int
    content_type: str
    ce: dict[str, str]
    commitment: bytes
    session: bytes
    number: int


@dataclass(frozen=True)
class Body:
    claims: Claims
    protected: bytes
    nonce: bytes
    ciphertext: bytes
    kek_id: bytes
    wrapped: bytes
    encoded: bytes


@dataclass(frozen=True)
class Receipt:
    """Where an event stands in its batch's tree (RFC 9162 §2.1); the path goes from the leaf upwards."""

    tree_size: int
    leaf_index: int
    path: list[bytes]


@dataclass(frozen=True)
class Proof:
    alg: int
    kid: bytes
    protected: bytes
    signature: bytes
    receipt: Receipt | None


@dataclass(frozen=True)
class Place:
    """Where a record stands: the channel is the topic's logical name."""

    channel: str
    partition: int
    key: bytes | None

    def encoded(self) -> bytes:
        return dump(["sealgate/1", self.channel, self.partition, self.key])

    def statement(self, body: bytes) -> bytes:
        return dump(["sealgate/1", self.channel, self.partition, self.key, sha256(body)])


def dump(item: Any) -> bytes:
    """Deterministic CBOR (RFC 8949 §4.2.1). The maps here have keys that length-first order sorts the same way."""
    return cbor2.dumps(item, canonical=True)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def commitment_of(data_key: bytes) -> bytes:
    return hmac.digest(data_key, b"sealgate/1 key commitment", "sha256")


def encryption_context(claims: Claims) -> dict[str, str]:
    """What the key service authenticates with a wrapped data key."""
    return {
        "sealgate:v": "1",
        "sealgate:iss": claims.iss,
        "sealgate:aud": claims.aud,
        "sealgate:type": claims.ce["type"],
    }


def encryption_aad(protected: bytes, place: Place) -> bytes:
    return dump(["Encrypt", protected, place.encoded()])


def signed_bytes(proof: Proof, body: bytes, place: Place) -> bytes:
    """What the signature is over, recomputed from where the record was found."""
    statement = place.statement(body)
    signed = statement if proof.receipt is None else root_of(sha256(b"\0" + statement), proof.receipt)
    return signature_input(proof.protected, signed)


def signature_input(protected: bytes, signed: bytes) -> bytes:
    return dump(["Signature1", protected, b"", signed])


def root_of(leaf: bytes, receipt: Receipt) -> bytes:
    """The root above a leaf (RFC 9162 §2.1.3.2); `parse` has seen to the path's length."""
    node, path = leaf, iter(receipt.path)
    index, last = receipt.leaf_index, receipt.tree_size - 1
    while last:
        if index & 1:
            node = sha256(b"\1" + next(path) + node)
        elif index < last:
            node = sha256(b"\1" + node + next(path))
        index, last = index >> 1, last >> 1
    return node


def _path_length(size: int, index: int) -> int:
    length, last = 0, size - 1
    while last:
        length += index & 1 or index < last
        index, last = index >> 1, last >> 1
    return length


def parse(value: bytes | None, max_bytes: int) -> tuple[Body, Proof]:
    """Reads a record's value, of which nothing is verified yet. Every `Rejection` is one of step 1."""
    if not value:
        raise Rejection("value-missing", "the record has no value")
    if len(value) > max_bytes:
        raise Rejection("oversize", f"the value is longer than {max_bytes} bytes")
    late = _Late()
    body, proof = _array(_decode(_untag(value, OUTER_TAG)), 2)
    parsed = _body(_bytes(body), late), _proof(_bytes(proof), late)
    late.end()
    return parsed


class _Late:
    """Faults that count only once the whole shape is known to be right: `oversize`, then `unsupported`."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}

    def text(self, item: object, what: str) -> str:
        text = _text(item, 0, None)
        if len(text.encode()) > 1024:
            self.faults["oversize"] = f"{what} over 1,024 bytes"
        return text

    def known(self, item: object, known: tuple[int | str, ...], what: str) -> Any:
        """An algorithm or typ: text or whole number, of which we know some."""
        if type(item) is str:
            self.text(item, what)
        elif type(item) is not int:
            _malformed(f"{what} is neither number nor text")
        if item not in known:
            self.faults["unsupported"] = f"{what} is not one that we know"
        return item

    def end(self) -> None:
        for code in ("oversize", "unsupported"):
            if code in self.faults:
                raise Rejection(code, self.faults[code])


def _body(encoded: bytes, late: _Late) -> Body:
    protected, unprotected, ciphertext, recipients = _array(_decode(_untag(encoded, ENCRYPT_TAG)), 4)
    (nonce,) = _map(unprotected, 5)
    (recipient,) = _array(recipients, 1)
    recipient_protected, recipient_header, wrapped = _array(recipient, 3)
    _bytes(recipient_protected, 0, 0)
    wrap, kek_id = _map(recipient_header, 1, 4)
    late.known(wrap, (KEY_SERVICE_WRAP,), "the recipient's algorithm")
    return Body(
        claims=_claims(_bytes(protected), late),
        protected=_bytes(protected),
        nonce=_bytes(nonce, 12, 12),
        ciphertext=_bytes(ciphertext, 16, 1_048_576),
        kek_id=_bytes(kek_id, 1, 64),
        wrapped=_bytes(wrapped, 1, 1024),
        encoded=encoded,
    )


def _claims(protected: bytes, late: _Late) -> Claims:
    alg, content_type, cwt, typ, ce, commitment, seq = _map(_decode(protected), 1, 3, 15, 16, "ce", "kc", "seq")
    late.known(alg, (A256GCM,), "the content's algorithm")
    _typ(typ, late, (TYP_BODY,))
    iss, aud, exp, iat = _map(cwt, 1, 3, 4, 6)
    session, number = _array(seq, 2)
    return Claims(
        iss=_text(iss, 1, 128),
        aud=_text(aud, 1, 128),
        exp=_uint(exp),
        iat=_uint(iat),
        content_type=late.text(content_type, "content type"),
        ce=_cloud_event(ce, late),
        commitment=_bytes(commitment, 32, 32),
        session=_bytes(session, 16, 16),
        number=_uint(number),
    )


def _cloud_event(ce: object, late: _Late) -> dict[str, str]:
    if type(ce) is not dict:
        _malformed("ce is no map")
    for name, value in ce.items():
        if type(name) is not str or re.fullmatch(r"[a-z0-9]{1,20}", name) is None:
            _malformed("a ce name that is none")
        if name in ("id", "source", "type"):
            _text(value, 1, 1024)
        else:
            late.text(value, "a ce value")
    if not {"id", "source", "type", "specversion"} <= ce.keys():
        _malformed("a required ce attribute is missing")
    late.known(ce["specversion"], ("1.0",), "specversion")
    if len(ce) > 32:
        late.faults["oversize"] = "more than 32 ce entries"
    return ce


def _proof(encoded: bytes, late: _Late) -> Proof:
    protected, unprotected, payload, signature = _array(_decode(_untag(encoded, SIGN1_TAG)), 4)
    header = _decode(_bytes(protected))
    batch = type(header) is dict and len(header) == 4
    alg, kid, typ, *tree = _map(header, 1, 4, 16, 395) if batch else _map(header, 1, 4, 16)
    late.known(alg, (ED25519, ESP256), "the signature's algorithm")
    _typ(typ, late, (TYP_PROOF, TYP_BATCH))
    if batch != (typ == TYP_BATCH) or (batch and _uint(tree[0]) != 1):
        _malformed("typ and label 395 do not go together")
    receipt = None
    if batch:
        receipt = _receipt(unprotected)
    else:
        _map(unprotected)
    if payload is not None:
        _malformed("the proof has a payload of its own")
    return Proof(alg, _bytes(kid, 1, 64), _bytes(protected), _bytes(signature), receipt)


def _receipt(unprotected: object) -> Receipt:
    (proofs,) = _map(unprotected, 396)
    (receipts,) = _map(proofs, -1)
    (receipt,) = _array(receipts, 1)
    tree_size, leaf_index, path = _array(_decode(_bytes(receipt)), 3)
    if not 2 <= _uint(tree_size) <= 4096 or _uint(leaf_index) >= tree_size:
        _malformed("a place outside the tree")
    hashes = [_bytes(one, 32, 32) for one in _array(path, _path_length(tree_size, leaf_index))]
    return Receipt(tree_size, leaf_index, hashes)


def _typ(item: object, late: _Late, known: tuple[str, ...]) -> None:
    late.known(item, known, "typ")
    if type(item) is int:
        _uint(item)


def _malformed(reason: str) -> NoReturn:
    raise Rejection("malformed", f"not a sealed event: {reason}")


def _untag(data: bytes, tag: bytes) -> bytes:
    if not data.startswith(tag):
        _malformed("another tag")
    return data[len(tag) :]


# Read here, and not by cbor2: it reads tags as dates and regular expressions, and keys of any kind, whose hashes a
# stranger can make collide. What is left of CBOR is little.


def _decode(data: bytes) -> Any:
    """One item in deterministic encoding (RFC 8949 §4.2.1), without tags and floats, and nothing behind it."""
    item, end = _item(data, 0, 8)
    if end != len(data):
        _malformed("bytes left over")
    return item


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The item at an offset, and where the next one begins."""
    if depth == 0:
        _malformed("nested too deeply")
    if data[at : at + 1] == b"\xf6":
        return None, at + 1
    major, number, at = _head(data, at)
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if number > len(data) - at:
        _malformed("it ends too early")
    if major == 2:
        return data[at : at + number], at + number
    if major == 3:
        try:
            return data[at : at + number].decode("utf-8"), at + number
        except UnicodeDecodeError:
            _malformed("a text that is no UTF-8")
    if major == 4:
        items = []
        for _ in range(number):
            item, at = _item(data, at, depth - 1)
            items.append(item)
        return items, at
    return _entries(data, at, number, depth)


def _entries(data: bytes, at: int, count: int, depth: int) -> tuple[dict[int | str, Any], int]:
    entries: dict[int | str, Any] = {}
    before = b""
    for _ in range(count):
        key, end = _item(data, at, depth - 1)
        if type(key) is not int and type(key) is not str:
            _malformed("a label that is neither number nor text")
        if data[at:end] <= before:
            _malformed("labels out of order, or one twice")
        before = data[at:end]
        entries[key], at = _item(data, end, depth - 1)
    return entries, at


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, number or length, and where its content begins."""
    if at >= len(data):
        _malformed("it ends too early")
    major, number = data[at] >> 5, data[at] & 31
    if major > 5 or number > 27:
        _malformed("a tag, float or length that may not stand there")
    at += 1
    if number < 24:
        return major, number, at
    size = 1 << (number - 24)
    number = int.from_bytes(data[at : at + size], "big")
    if at + size > len(data) or number < (24 if size == 1 else 1 << 4 * size):
        _malformed("a number that is not as short as it can be")
    return major, number, at + size


def _map(item: object, *labels: int | str) -> list[Any]:
    """The values of a map with exactly these labels, in their order."""
    if type(item) is not dict or list(item) != list(labels):
        _malformed("a map with other labels")
    return list(item.values())


def _array(item: object, length: int) -> list[Any]:
    if type(item) is not list or len(item) != length:
        _malformed("an array of another length")
    return item


def _bytes(item: object, least: int = 0, most: int | None = None) -> bytes:
    if type(item) is not bytes or len(item) < least or (most is not None and len(item) > most):
        _malformed("a byte string of another size")
    return item


def _text(item: object, least: int, most: int | None) -> str:
    if type(item) is not str or len(item) < least or (most is not None and len(item.encode()) > most):
        _malformed("a text of another size")
    return item


def _uint(item: object) -> int:
    if type(item) is not int or item < 0:
        _malformed("no unsigned integer")
    return item
