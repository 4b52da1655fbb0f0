"""Data keys from AWS KMS: unwrapped for whoever opens, made for whoever seals (docs/sealed-event.md §4)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sealed_event import Outage, Rejection

Unwrap = Callable[[str, bytes, dict[str, str]], bytes]
Generate = Callable[[str, dict[str, str]], tuple[bytes, bytes]]

# Which step failed is not told: it would help whoever tries.
UNDECRYPTABLE = "no key opens it"


def kms_unwrap(kms: Any) -> Unwrap:
    """Asks `boto3.client("kms")`. `Rejection` on its definite no, `Outage` on everything else."""

    def unwrap(kek: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        try:
            answer = kms.decrypt(KeyId=kek, CiphertextBlob=wrapped, EncryptionContext=context)
        except (kms.exceptions.InvalidCiphertextException, kms.exceptions.IncorrectKeyException) as error:
            raise Rejection("undecryptable", UNDECRYPTABLE) from error
        except Exception as error:  # Access denied, a disabled key, throttling, no network: nothing is decided.
            raise Outage(f"KMS does not unwrap with {kek}: {type(error).__name__}") from error
        data_key: bytes = answer["Plaintext"]
        if len(data_key) != 32:
            raise Rejection("undecryptable", UNDECRYPTABLE)
        return data_key

    return unwrap


def kms_generate(kms: Any) -> Generate:
    """A fresh 256-bit data key, in clear and wrapped. Every failure is an `Outage`."""

    def generate(kek: str, context: dict[str, str]) -> tuple[bytes, bytes]:
        try:
            answer = kms.generate_data_key(KeyId=kek, KeySpec="AES_256", EncryptionContext=context)
        except Exception as error:
            raise Outage(f"KMS makes no data key with {kek}: {type(error).__name__}") from error
        if len(answer["Plaintext"]) != 32:
            raise Outage(f"KMS makes no 256-bit data key with {kek}")
        return answer["Plaintext"], answer["CiphertextBlob"]

    return generate


class KeptDataKeys:
    """Remembers what was unwrapped: an event costs a call only where its data key is new or five minutes old."""

    KEEP_SECONDS = 300
    MAX_KEPT = 1000

    def __init__(self, unwrap: Unwrap, now: Callable[[], float] = time.monotonic) -> None:
        self._unwrap = unwrap
        self._now = now
        self._kept: OrderedDict[tuple[object, ...], tuple[float, bytes]] = OrderedDict()

    def __call__(self, kek: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        name = kek, wrapped, *sorted(context.items())
        found = self._kept.get(name)
        if found is not None and self._now() - found[0] < self.KEEP_SECONDS:
            return found[1]
        data_key = self._unwrap(kek, wrapped, context)
        self._kept.pop(name, None)
        self._kept[name] = self._now(), data_key
        if len(self._kept) > self.MAX_KEPT:
            self._kept.popitem(last=False)
        return data_key
