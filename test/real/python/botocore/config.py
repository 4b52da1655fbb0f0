"""Stands in for botocore's settings of a client."""


class Config:
    def __init__(self, **_: object) -> None:
        pass
