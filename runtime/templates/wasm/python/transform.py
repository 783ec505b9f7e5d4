"""What this guest does: it puts `*` for every digit of a text, and counts them."""

import json
import re
from dataclasses import replace

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Column, Content_Json, Content_Text, Emitted, Message, Port

mask = "*"


class Describe(exports.Describe):
    def outputs(self, config: str) -> list[Port]:
        """The outputs. The first goes by the operator's own name, the others by `operator.name`."""
        global mask
        mask = (json.loads(config) or {}).get("mask", "*")
        columns = {"author": "string", "text": "string", "masked": "int32"}
        return [
            Port("masked", Content_Json([Column(name, kind) for name, kind in columns.items()])),
            Port("rejects", Content_Text()),
        ]


class Record(exports.Record):
    def transform(self, message: Message) -> list[Emitted]:
        """Called for every record: returns as many as it likes, or raises `Err`, which sets the record aside."""
        try:
            row = json.loads(message.value or b"")
        except ValueError as error:
            raise Err(f"no JSON: {error}")
        if not row.get("text"):
            return [Emitted("rejects", replace(message, value=f"{row['author']} says nothing".encode()))]
        row["text"], row["masked"] = re.subn("[0-9]", mask, row["text"])
        return [Emitted(None, replace(message, value=json.dumps(row).encode()))]
