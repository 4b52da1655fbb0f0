"""
Prints the events of one topic as lines of JSON, and what is refused to stderr. Ends on an outage, before the record's
offset is committed: whoever starts it again gets that record again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

import boto3
from botocore.config import Config
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaException, Message

from data_keys import KeptDataKeys, kms_unwrap
from opener import Opener, Record
from public_keys import PublicKeys
from sealed_event import Outage, Rejection


def record_of(message: Message) -> Record:
    kind, milliseconds = message.timestamp()
    return Record(
        topic=message.topic(),
        partition=message.partition(),
        key=message.key(),
        value=message.value(),
        headers=message.headers() or [],
        append_time=milliseconds if kind == TIMESTAMP_LOG_APPEND_TIME else None,
    )


def main(env: Mapping[str, str]) -> None:
    topic, issuer = env["TOPIC"], env["ISSUER"]
    kms = boto3.client("kms", config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 3}))
    opener = Opener(
        audience=env["AUDIENCE"],
        channels={topic: env.get("CHANNEL", topic)},
        issuers={issuer},
        keys=PublicKeys(env["KEYS_URL"]),
        keks={(issuer, env["KEK_NAME"].encode()): env["KEK_ARN"]},
        unwrap=KeptDataKeys(kms_unwrap(kms)),
    )
    consumer = Consumer(
        {
            "bootstrap.servers": env["BOOTSTRAP_SERVERS"],
            "group.id": env["GROUP"],
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            try:
                opened = opener.open(record_of(message))
                # In this order: an attribute may have any name, "iss" too.
                line = {**opened.claims.ce, "iss": opened.claims.iss, "data": opened.data()}
                print(json.dumps(line, default=str), flush=True)
            except Rejection as error:
                print(f"{message.partition()}/{message.offset()} {error}", file=sys.stderr, flush=True)
            consumer.commit(message=message, asynchronous=False)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    try:
        main(os.environ)
    except Outage as error:
        sys.exit(f"outage: {error}")
