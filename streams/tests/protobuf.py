"""A record as its protobuf message, by the committed schema: what `encoding: protobuf` sends, by other code than the job's."""

import calendar
import pathlib
import re
import struct
import time

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "schemas/mermin/flow/v1/flow.proto"
LINE = re.compile(r'\s*(optional |repeated )?(\S.*?) (\w+) = (\d+) \[json_name = "([^"]+)"\];')


def schema(message):
    """Number and type of each field by its JSON name."""
    fields, inside = {}, False
    for line in SCHEMA.read_text().splitlines():
        if line.startswith("message "):
            inside = line == f"message {message} {{"
        found = LINE.match(line)
        if inside and found:
            fields[found[5]] = (int(found[4]), found[2])
    return fields


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def inner(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def encode(record, fields, hops):
    out = bytearray()
    for name, value in record.items():
        number, kind = fields[name]
        for one in value if isinstance(value, list) else [value]:
            if kind == "Hop":
                out += inner(number, encode(one, hops, None))
            elif kind == "fixed64":
                seconds = calendar.timegm(time.strptime(one[:19], "%Y-%m-%dT%H:%M:%S"))
                out += varint(number << 3 | 1) + struct.pack("<Q", seconds * 1_000_000_000 + int(one[20:29]))
            elif kind == "string":
                out += inner(number, one.encode())
            elif kind in ("uint32", "uint64", "bool"):
                out += varint(number << 3) + varint(int(one))
            elif kind == "sint64":
                out += varint(number << 3) + varint(one << 1 if one >= 0 else (-one << 1) - 1)
            else:
                raise ValueError(f"{name}: {kind}")
    return bytes(out)


class Encoder:
    def __init__(self):
        self.fields, self.hops = schema("Flow"), schema("Hop")

    def __call__(self, record):
        return encode(record, self.fields, self.hops)
