"""
Runs conformance vectors (test/vectors/README.md) through the opener: `python vectors.py FILE…`. What only a gateway
decides, by its contracts, budgets and memory of what came before, is counted as left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from data_keys import UNDECRYPTABLE, Unwrap
from opener import Opener, Record
from public_keys import public_key
from sealed_event import ED25519, Outage, Rejection

GATEWAYS_OWN = ("type-unknown", "not-authorised", "replayed", "over-limit", "schema-invalid")


def unwrap_by(table: list[dict[str, Any]]) -> Unwrap:
    def unwrap(kek: str, wrapped: bytes, context: dict[str, str]) -> bytes:
        rows = [row for row in table if row["wrapped"] == wrapped.hex()]
        if any(row.get("outage") for row in rows):
            raise Outage("the table says: no answer")
        for row in rows:
            if row["kekId"] == kek and row["context"] == context:
                return bytes.fromhex(row["dek"])
        raise Rejection("undecryptable", UNDECRYPTABLE)

    return unwrap


def key_rows(rows: list[dict[str, Any]]) -> dict[bytes, Any]:
    """As the function of keys would publish them."""
    return {
        bytes.fromhex(row["kid"]): public_key(
            {**row, **row["jwk"], "alg": "Ed25519" if row["alg"] == ED25519 else "ES256"}
        )
        for row in rows
    }


def outcome(opener: Opener, vector: dict[str, Any]) -> dict[str, Any]:
    record = Record(
        topic=vector["topic"],
        partition=vector["partition"],
        key=None if vector["key"] is None else bytes.fromhex(vector["key"]),
        value=None if vector["value"] is None else bytes.fromhex(vector["value"]),
        headers=[header(item) for item in vector["headers"]],
        append_time=vector["timestamp"] * 1000 if vector["timestampType"] == "LOG_APPEND_TIME" else None,
    )
    try:
        opened = opener.open(record)
    except Rejection as error:
        return {"expect": error.code}
    except Outage:
        return {"expect": "outage"}
    claims = opened.claims
    return {
        "expect": "admitted",
        "plaintext": opened.payload.hex(),
        "claims": {
            "iss": claims.iss,
            "aud": claims.aud,
            "iat": claims.iat,
            "exp": claims.exp,
            "session": claims.session.hex(),
            "number": claims.number,
            "ce": claims.ce,
        },
    }


def header(item: Any) -> tuple[str, bytes | None]:
    name, value = item if isinstance(item, list) else (item["name"], item["value"])
    return name, None if value is None else bytes.fromhex(value)


def run(path: Path) -> bool:
    world = json.loads(path.read_text())
    directory, clock = world["directory"], {"now": 0}

    def opener() -> Opener:
        return Opener(
            audience=world["gateway"]["audience"],
            channels=world["gateway"]["channels"],
            issuers=[row["iss"] for row in directory["signingKeys"]],
            keys=key_rows(directory["signingKeys"]).get,
            keks={(iss, bytes.fromhex(row["kekId"])): row["kekId"] for row in directory["keks"] for iss in row["iss"]},
            unwrap=unwrap_by(world["unwraps"]),
            max_life_seconds=world["gateway"]["maxLifeSeconds"],
            max_value_bytes=world["gateway"]["maxValueBytes"],
            now=lambda: clock["now"],
        )

    kept, right, wrong, left_out = opener(), 0, 0, 0
    for vector in world["vectors"]:
        clock["now"] = vector["now"]
        got = outcome(kept if world.get("sequence") else opener(), vector)
        if vector["expect"] in GATEWAYS_OWN:
            left_out += 1
        elif got == {name: vector[name] for name in ("expect", "plaintext", "claims") if name in vector}:
            right += 1
        else:
            wrong += 1
            print(f"{path.name}: {vector['name']}: expected {vector['expect']}, got {got['expect']}")
    print(f"{path.name}: {right} as expected, {wrong} not, {left_out} left out")
    return wrong == 0


if __name__ == "__main__":
    results = [run(Path(name)) for name in sys.argv[1:]]
    sys.exit(0 if all(results) else 1)
