"""Stands in for confluent-kafka: a topic is a file of JSON lines, read to its end and then interrupted."""

import json
import os
from types import SimpleNamespace
from typing import Any

TIMESTAMP_CREATE_TIME = 1
TIMESTAMP_LOG_APPEND_TIME = 2


class KafkaException(Exception):
    pass


class KafkaError(Exception):
    pass


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


class Message:
    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self._row["topic"]

    def partition(self) -> int:
        return self._row["partition"]

    def offset(self) -> int:
        return self._row["offset"]

    def key(self) -> bytes | None:
        return _bytes(self._row["key"])

    def value(self) -> bytes | None:
        return _bytes(self._row["value"])

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return [(name, _bytes(value)) for name, value in self._row["headers"]] or None

    def timestamp(self) -> tuple[int, int]:
        if self._row["appendTime"] is None:
            return TIMESTAMP_CREATE_TIME, 0
        return TIMESTAMP_LOG_APPEND_TIME, self._row["appendTime"]


class Consumer:
    def __init__(self, settings: dict[str, object]) -> None:
        assert settings["isolation.level"] == "read_committed" and settings["enable.auto.commit"] is False

    def subscribe(self, topics: list[str]) -> None:
        with open(os.environ["RECORDS"], encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self._messages = [None, *(Message(row) for row in rows)]

    def poll(self, timeout: float) -> Message | None:
        if not self._messages:
            raise KeyboardInterrupt
        return self._messages.pop(0)

    def commit(self, *, message: Message, asynchronous: bool) -> None:
        with open(os.environ["RECORDS"] + ".committed", "a", encoding="utf-8") as file:
            file.write(f"{message.offset()}\n")

    def close(self) -> None:
        pass


class Producer:
    def __init__(self, settings: dict[str, object]) -> None:
        assert settings["enable.idempotence"] is True
        self._rows: list[dict[str, Any]] = []

    def list_topics(self, topic: str, timeout: float) -> Any:
        partitions = dict.fromkeys(range(int(os.environ["PARTITIONS"])))
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=partitions)})

    def produce(self, topic: str, value: bytes, key: bytes, *, partition: int, headers: Any, on_delivery: Any) -> None:
        fields = [(name, content.hex()) for name, content in headers]
        row = {"topic": topic, "partition": partition, "key": key.hex(), "value": value.hex(), "headers": fields}
        self._rows.append(row)

    def __len__(self) -> int:
        return len(self._rows)

    def flush(self) -> None:
        with open(os.environ["RECORDS"], "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in self._rows)
        self._rows = []
