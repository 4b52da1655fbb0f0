"""Stands in for boto3: a KMS client with the calls of the example, which speaks KMS's protocol to KMS_ENDPOINT."""

import base64
import json
import os
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any


class ClientError(Exception):
    pass


class InvalidCiphertextException(ClientError):
    pass


class IncorrectKeyException(ClientError):
    pass


NAMED = {kind.__name__: kind for kind in (InvalidCiphertextException, IncorrectKeyException)}


class Kms:
    exceptions = SimpleNamespace(**NAMED)

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: dict[str, str]) -> dict[str, bytes]:
        blob = base64.b64encode(CiphertextBlob).decode()
        return self._ask("Decrypt", KeyId=KeyId, CiphertextBlob=blob, EncryptionContext=EncryptionContext)

    def generate_data_key(self, *, KeyId: str, KeySpec: str, EncryptionContext: dict[str, str]) -> dict[str, bytes]:
        return self._ask("GenerateDataKey", KeyId=KeyId, KeySpec=KeySpec, EncryptionContext=EncryptionContext)

    def _ask(self, action: str, **body: Any) -> dict[str, bytes]:
        headers = {"X-Amz-Target": f"TrentService.{action}"}
        request = urllib.request.Request(os.environ["KMS_ENDPOINT"], json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                fields = json.load(answer)
        except urllib.error.HTTPError as error:
            raise NAMED.get(json.load(error)["__type"], ClientError)("refused") from None
        return {name: base64.b64decode(text) for name, text in fields.items() if name != "KeyId"}


def client(service: str, **_: object) -> Kms:
    assert service == "kms"
    return Kms()
