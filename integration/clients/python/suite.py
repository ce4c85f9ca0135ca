#!/usr/bin/env python3
"""The suite of confluent-kafka for Python (a current librdkafka). See ../README.md for the commands."""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

import checks
from flights import Ledger, key_of, load
from report import Report

IDLE_SECONDS = 60


def produce(args):
    """Every row in order with an idempotent producer; prints `progress N` as records are acknowledged."""
    lines = load(args.rows)
    state = {"acked": 0, "error": None}

    def delivered(error, _message):
        if error:
            state["error"] = state["error"] or error
            return
        state["acked"] += 1
        if state["acked"] % 2000 == 0:
            print("progress", state["acked"], flush=True)

    producer = Producer({
        "bootstrap.servers": args.bootstrap, "enable.idempotence": True, "linger.ms": 5, "compression.type": args.codec,
        "message.timeout.ms": 120000, "queue.buffering.max.messages": 20000, "reconnect.backoff.max.ms": 500,
    })
    for line in lines:
        while True:
            try:
                producer.produce(args.topic, line, key_of(line), on_delivery=delivered, headers=[("source", b"python")])
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    producer.flush(120)
    if state["error"] or state["acked"] != len(lines):
        raise AssertionError(f"acknowledged {state['acked']} of {len(lines)}: {state['error']}")


def consume(args, topic):
    """One topic from its beginning to its end, by assignment or in a group, against the rows file."""
    ledger = Ledger(load(args.rows))
    if args.seen:
        ledger.resume(args.seen)
    consumer = Consumer({
        "bootstrap.servers": args.bootstrap, "group.id": args.group or "unused", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "enable.partition.eof": True, "check.crcs": True, "session.timeout.ms": 10000,
        "reconnect.backoff.max.ms": 500,
    })
    try:
        if args.mode == "group":
            consumer.subscribe([topic])
        else:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        read(consumer, ledger, args.stop_after)
        if args.mode == "group":
            consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    if args.seen:
        ledger.save(args.seen)
    if not args.stop_after:
        ledger.whole()


def read(consumer, ledger, stop_after):
    """Until each assigned partition has reached its end, or `stop_after` rows in all have been seen."""
    ended, active = set(), time.monotonic()
    while time.monotonic() - active < IDLE_SECONDS:
        for message in consumer.consume(1 if stop_after else 1000, 0.2):
            active = time.monotonic()
            if message.error():
                if message.error().code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(message.error())
                ended.add(message.partition())
                continue
            source = dict(message.headers() or []).get("source", b"")
            ledger.take(message.partition(), message.offset(), message.key(), message.value(), source)
            if stop_after and ledger.count >= stop_after:
                return
        assigned = {p.partition for p in consumer.assignment()}
        if assigned and assigned <= ended:
            return
    raise AssertionError(f"no record for {IDLE_SECONDS} s after {ledger.count} rows")


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
    parser.add_argument("--prefix", default="python")
    args = parser.parse_args()
    report = Report()
    if args.command == "checks":
        checks.run(report, args.bootstrap, args.prefix)
    for topic in args.topic or []:
        if args.command == "produce":
            args.topic = topic
            report.check(f"produce {topic}", produce, args)
        else:
            report.check(f"consume {topic} by {args.mode}", consume, args, topic)
    report.exit()


if __name__ == "__main__":
    main()
