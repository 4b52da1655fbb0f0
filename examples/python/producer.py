"""Seals and sends events of one type: lines of `KEY JSON` from stdin."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import boto3
from botocore.config import Config
from confluent_kafka import KafkaError, KafkaException, Producer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from data_keys import kms_generate
from sealed_event import Outage, Place
from sealer import PrivateKey, Sealer, partition_of


def base64url_bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def private_key(jwk: dict[str, Any]) -> PrivateKey:
    """A private JWK, as `sealgate keys new` writes it."""
    if jwk["kty"] == "OKP":
        return ed25519.Ed25519PrivateKey.from_private_bytes(base64url_bytes(jwk["d"]))
    return ec.derive_private_key(int.from_bytes(base64url_bytes(jwk["d"]), "big"), ec.SECP256R1())


def delivered(error: KafkaError | None, _: object) -> None:
    if error is not None:
        raise KafkaException(error)


def main(env: Mapping[str, str]) -> None:
    topic = env["TOPIC"]
    channel = env.get("CHANNEL", topic)
    with open(env["SIGNING_KEY"], encoding="utf-8") as file:
        key = private_key(json.load(file))
    kms = boto3.client("kms", config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 3}))
    sealer = Sealer(
        iss=env["ISSUER"],
        audience=env["AUDIENCE"],
        kid=base64url_bytes(env["KID"]),
        key=key,
        kek=(env["KEK_NAME"], env["KEK_ARN"]),
        generate=kms_generate(kms),
    )
    # Idempotent, so that its own retries keep the order of the numbers.
    producer = Producer({"bootstrap.servers": env["BOOTSTRAP_SERVERS"], "enable.idempotence": True})
    partitions = len(producer.list_topics(topic, timeout=10).topics[topic].partitions)
    try:
        for line in sys.stdin:
            name, data = line.split(" ", 1)
            record_key = name.encode()
            place = Place(channel, partition_of(record_key, partitions), record_key)
            value, headers = sealer.seal(place, source=env["SOURCE"], type=env["TYPE"], data=json.loads(data))
            producer.produce(
                topic, value, record_key, partition=place.partition, headers=headers, on_delivery=delivered
            )
            if len(producer) >= 10_000:
                producer.flush()
    finally:
        producer.flush()


if __name__ == "__main__":
    try:
        main(os.environ)
    except Outage as error:
        sys.exit(f"outage: {error}")
