#!/usr/bin/env python3
"""The suite of kcat as Debian ships it (librdkafka 2.0.2, older than the one in the Python wheel).

kcat produces and consumes; this program only feeds it and holds what it prints against the rows file.
kcat sets one header value per run, and ends by itself when all brokers are away unless it is told not to.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import wire
from flights import Ledger, key_of, load
from report import Report, same, until

KCAT = os.environ.get("KCAT", "kcat")
SECONDS = 240
SLICE_ROWS = 2000
# It would wait up to ten seconds before it looks again whether the broker is back.
BACK_SOON = ["-X", "reconnect.backoff.max.ms=500"]
# One record a line: partition, offset, length of key and value (-1: null), headers; then key and value verbatim.
FORMAT = "%p %o %K %S %h\\n%k\\n%s\\n"


def kcat(args, *more, stdin=None, seconds=SECONDS):
    done = subprocess.run([KCAT, "-b", args.bootstrap, *more], input=stdin, capture_output=True, timeout=seconds)
    if done.returncode:
        raise AssertionError(f"kcat {' '.join(more)}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-400:]}")
    return done.stdout


def records(out):
    """(partition, offset, key, value, headers) of each record in what kcat printed with FORMAT."""
    at = 0
    while at < len(out):
        end = out.index(b"\n", at)
        partition, offset, key_size, value_size, headers = out[at:end].split(b" ", 4)
        at = end + 1
        key, at = _field(out, at, int(key_size))
        value, at = _field(out, at, int(value_size))
        yield int(partition), int(offset), key, value, headers


def _field(out, at, size):
    end = at + max(size, 0)
    return (out[at:end] if size >= 0 else None), end + 1


def produce(args, topic):
    """Every row in order by one kcat, which is fed in slices: each when all but the last of those before it have arrived, as
    kcat itself does not say how far it has come. Prints `progress N`. It is told to stay (-E) while the broker is away.
    """
    lines = load(args.rows)
    command = [KCAT, "-b", args.bootstrap, "-P", "-E", "-t", topic, "-K", "\t", "-Z", "-H", "source=kcat", "-z", args.codec,
               "-X", "enable.idempotence=true", "-X", "message.timeout.ms=120000", *BACK_SOON]
    with tempfile.TemporaryFile() as said:
        feeding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said)
        try:
            for at in range(0, len(lines), SLICE_ROWS):
                fed = lines[at : at + SLICE_ROWS]
                feeding.stdin.write(b"".join((key_of(line) or b"") + b"\t" + line + b"\n" for line in fed))
                feeding.stdin.flush()
                until(f"row {at} arrives", SECONDS, lambda: feeding.poll() is not None or arrived(args, topic) >= at, 0.02)
                print("progress", at, flush=True)
            feeding.stdin.close()
            code = feeding.wait(SECONDS)
        except BrokenPipeError:
            code = feeding.wait(SECONDS)
        finally:
            feeding.kill()
            feeding.wait()
        said.seek(0)
        if code:
            raise AssertionError(f"kcat -P: exit {code}: {said.read().decode(errors='replace')[-400:]}")
    same("arrived", arrived(args, topic), len(lines))


def arrived(args, topic):
    """Records in all partitions of a topic; -1 while the broker is away."""
    try:
        partitions = range(len(wire.leaders(args.bootstrap, [topic])[topic]))
        return sum(wire.list_offset(args.bootstrap, topic, partition, wire.LATEST) for partition in partitions)
    except (OSError, KeyError):
        return -1


def consume(args, topic):
    ledger = Ledger(load(args.rows))
    if args.seen:
        ledger.resume(args.seen)
    if args.mode == "group":
        more = ["-c", str(args.stop_after - ledger.count)] if args.stop_after else ["-e"]
        out = kcat(args, "-G", args.group, "-X", "auto.offset.reset=earliest", "-X", "check.crcs=true", "-q", *more, "-f", FORMAT, topic)
    else:
        # -E: a broker that is away comes back.
        out = kcat(args, "-C", "-E", *BACK_SOON, "-t", topic, "-o", "beginning", "-e", "-q", "-X", "check.crcs=true", "-f", FORMAT)
    for partition, offset, key, value, headers in records(out):
        ledger.take(partition, offset, key, value, headers.partition(b"=")[2])
    if args.seen:
        ledger.save(args.seen)
    if not args.stop_after:
        ledger.whole()


class Member:
    """A kcat in a group, whose assignments are read from what it says."""

    def __init__(self, args, group, topic):
        command = [KCAT, "-b", args.bootstrap, "-G", group, "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=10000",
                   "-X", "heartbeat.interval.ms=500", "-u", "-f", "%s\n", topic]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assigned, self.values = set(), []
        for stream, take in ((self.process.stderr, self._said), (self.process.stdout, self._got)):
            threading.Thread(target=lambda s=stream, t=take: [t(line) for line in s], daemon=True).start()

    def _said(self, line):
        if "rebalanced" in line:
            self.assigned = set(map(int, re.findall(r"\[(\d+)\]", line))) if "assigned:" in line else set()

    def _got(self, line):
        self.values.append(line.strip())

    def leave(self):
        self.process.terminate()
        self.process.wait(20)


def group_sharing(args):
    topic, group = f"{args.prefix}-shared-{uuid.uuid4().hex[:8]}", f"{args.prefix}-{uuid.uuid4().hex[:8]}"
    args.create(topic, 4)
    for p in range(4):
        kcat(args, "-P", "-t", topic, "-p", str(p), stdin=b"".join(b"%d-%d\n" % (p, i) for i in range(50)))
    first, second = Member(args, group, topic), Member(args, group, topic)
    try:
        until("two each", 30, lambda: len(first.assigned) == len(second.assigned) == 2 and len(first.assigned | second.assigned) == 4)
        # Only then: a kcat that is told to end drops the record in its hand, and commits it all the same.
        until("all records", 30, lambda: len(first.values + second.values) == 200)
        first.leave()
        until("the other takes all", 30, lambda: len(second.assigned) == 4)
        for p in range(4):
            kcat(args, "-P", "-t", topic, "-p", str(p), stdin=b"%d-more\n" % p)
        until("what came later", 30, lambda: {f"{p}-more" for p in range(4)} <= set(second.values))
        same("each once", len(set(first.values + second.values)), len(first.values + second.values))
    finally:
        for member in (first, second):
            if member.process.poll() is None:
                member.leave()


def codecs(args):
    values = [b'{"n":%d,"text":"%s"}' % (i, b"snow " * 40) for i in range(1000)]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        topic = f"{args.prefix}-codec-{codec}-{uuid.uuid4().hex[:8]}"
        args.create(topic, 1)
        kcat(args, "-P", "-t", topic, "-z", codec, stdin=b"\n".join(values) + b"\n")
        same(f"{codec}, as stored", wire.stored_codec(args.bootstrap, topic), codec)
        same(codec, kcat(args, "-C", "-t", topic, "-e", "-q", "-X", "check.crcs=true").splitlines() == values, True)


def shapes(args):
    topic = f"{args.prefix}-shapes-{uuid.uuid4().hex[:8]}"
    args.create(topic, 1)
    kcat(args, "-P", "-t", topic, "-K", "|", "-Z", "-H", "a=1", "-H", "a=2", "-H", "null", stdin=b"k|\n|v\nk2|v2\n")
    got = list(records(kcat(args, "-C", "-t", topic, "-e", "-q", "-f", FORMAT)))
    same("keys and values", [(k, v) for _, _, k, v, _ in got], [(b"k", None), (None, b"v"), (b"k2", b"v2")])
    same("headers", {h for *_, h in got}, {b"a=1,a=2,null=NULL"})


def offsets(args):
    topic = f"{args.prefix}-offsets-{uuid.uuid4().hex[:8]}"
    args.create(topic, 1)
    before = int(time.time() * 1000)
    kcat(args, "-P", "-t", topic, stdin=b"a\nb\nc\n")
    same("from -2", kcat(args, "-C", "-t", topic, "-o", "-2", "-e", "-q"), b"b\nc\n")
    same("from 1", kcat(args, "-C", "-t", topic, "-o", "1", "-e", "-q"), b"b\nc\n")
    same("by timestamp", kcat(args, "-C", "-t", topic, "-o", f"s@{before}", "-e", "-q"), b"a\nb\nc\n")
    same("query", kcat(args, "-Q", "-t", f"{topic}:0:-1").split(), f"{topic} [0] offset 3".encode().split())


def metadata(args):
    topic = f"{args.prefix}-meta-{uuid.uuid4().hex[:8]}"
    args.create(topic, 3)
    same("described", f'topic "{topic}" with 3 partitions'.encode() in kcat(args, "-L", "-t", topic), True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["produce", "consume", "checks"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", action="append")
    parser.add_argument("--rows")
    parser.add_argument("--codec", default="none")
    parser.add_argument("--mode", choices=["assign", "group"], default="assign")
    parser.add_argument("--group")
    parser.add_argument("--seen")
    parser.add_argument("--stop-after", type=int, default=0)
    parser.add_argument("--prefix", default="kcat")
    args = parser.parse_args()
    report = Report()
    if args.command == "checks":
        # kcat cannot create a topic with a given number of partitions
        args.create = lambda topic, partitions: wire.create_topic(args.bootstrap, topic, partitions, {})
        for check in (metadata, codecs, shapes, offsets, group_sharing):
            report.check(check.__name__.replace("_", "-"), check, args)
    for topic in args.topic or []:
        run = produce if args.command == "produce" else consume
        report.check(f"{args.command} {topic}" + (f" by {args.mode}" if run is consume else ""), run, args, topic)
    report.exit()


if __name__ == "__main__":
    main()
