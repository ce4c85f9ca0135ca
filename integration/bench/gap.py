#!/usr/bin/env python3
"""How long a stock producer waits when a broker goes: the longest gap between two acknowledgements of a partition.

  gap.py                       60 kills of the leader of a partition (kill -9), Firn with default settings
  gap.py --fast                the same with the settings for fast fail-over that docs/operations.md names
  gap.py --check               five kills close to each other: whether every acknowledged record is there, not how long it took
  gap.py --handover            SIGTERM instead: a planned handover
  gap.py --rolling --from OLD  each node in turn is ended, and comes back with another binary than it started with
  gap.py --system kafka        the same of Apache Kafka
  gap.py --client go           with franz-go instead of confluent-kafka for Python (librdkafka); or java; repeatable: all at once

Three nodes on this machine, one topic with three replicas, min.insync.replicas 2, acks=all. The producer has nothing set but the addresses
of all nodes. After each kill the node is started again, and the next one waits until every replica is in sync. At the end everything is
read back. Prints one line of JSON for each kill and a summary: median, p99, and most. Fails when a record was refused, or acknowledged
and is not there, or acknowledged twice, and when one came twice from a producer that is idempotent.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(HERE, "..", "clients")]
import brokers
import clusters
import suites

PARTITIONS = 3
TOPIC = "gap"
OPERATIONS = os.path.join(HERE, "..", "..", "docs", "operations.md")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=["firn", "kafka"], default="firn")
    parser.add_argument("--client", choices=["python", "go", "java"], action="append", help="default: python")
    parser.add_argument("--binary", help="the firn binary (default: target/release/firn of this workspace)")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--apart", type=float, default=12, metavar="SECONDS", help="least time between two kills: clients wait longer for a node "
                        "that was down just before, up to 10 s with librdkafka (default: 12)")
    parser.add_argument("--check", action="store_true", help="the same as --kills 5 --apart 3")
    parser.add_argument("--fast", action="store_true", help="the settings for fast fail-over")
    parser.add_argument("--handover", action="store_true", help="SIGTERM instead of kill -9")
    parser.add_argument("--rolling", action="store_true", help="SIGTERM to each node once, whatever it leads")
    parser.add_argument("--from", dest="start_from", metavar="BINARY", help="the firn binary of the first start; a node comes back with --binary")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="broker setting; repeatable")
    parser.add_argument("--at-most", type=float, metavar="SECONDS", help="fail when the p99 is longer")
    parser.add_argument("--folder", help="where data goes (default: a temporary folder); removed afterwards")
    args = parser.parse_args()
    args.client = args.client or ["python"]
    if args.check:
        args.kills, args.apart = 5, 3
    if args.rolling:
        args.kills, args.handover = args.nodes, True
    with_confluent_kafka()
    folder = tempfile.mkdtemp(prefix="firn-gap-", dir=args.folder)
    if args.system == "kafka":
        cluster = clusters.KafkaCluster(folder, args.nodes)
    else:
        binary = os.path.abspath(args.binary) if args.binary else brokers.release_binary()
        cluster = clusters.FirnCluster(args.start_from or binary, folder, args.nodes, (fast() if args.fast else []) + args.set)
    try:
        cluster.start()
        if args.system == "firn":
            cluster.binary = binary
        results = measure(cluster, args)
    finally:
        cluster.stop()
        brokers.remove(folder)
    what = "rolling" if args.rolling else "handover" if args.handover else "kill"
    failed = False
    for client, gaps, told, wrong in results:
        summary = {
            "system": args.system, "client": client, "what": what, "profile": "fast" if args.fast else "default", "rounds": len(gaps),
            "median_s": round(statistics.median(gaps), 3), "p99_s": round(p99(gaps), 3), "max_s": round(max(gaps), 3),
        }
        print(json.dumps(summary | told | wrong), flush=True)
        failed |= any(wrong.values()) or bool(args.at_most and p99(gaps) > args.at_most)
    return 1 if failed else 0


def fast():
    """The settings that docs/operations.md names for fast fail-over."""
    with open(OPERATIONS) as f:
        block = f.read().split("To fail over within half a second", 1)[1].split("```toml\n", 1)[1].split("```", 1)[0]
    return [line.replace(" = ", "=") for line in block.splitlines()]


def p99(values):
    """The value below which 99 of 100 lie; of fewer than a hundred, the greatest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def with_confluent_kafka():
    """Run on under the Python of the suite that has the client."""
    try:
        import confluent_kafka  # noqa: F401
    except ImportError:
        suite = next(s for s in suites.ALL if s.name == "python")
        suite.install(suites.cache())
        os.execv(suite.command[0], [suite.command[0], os.path.abspath(sys.argv[0]), *sys.argv[1:]])


def measure(cluster, args):
    """For each client its name, its gaps, what it told, and what was wrong."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": cluster.address})
    config = {"min.insync.replicas": str(min(2, args.nodes))}
    topics = [f"{TOPIC}-{client}" for client in args.client]
    for created in admin.create_topics([NewTopic(t, PARTITIONS, min(3, args.nodes), config=config) for t in topics]).values():
        created.result(30)
    in_sync(admin, topics, args.nodes)
    producers = [producer(client, topic, cluster.address).start() for client, topic in zip(args.client, topics)]
    gaps = [[] for _ in producers]
    time.sleep(3)
    for number in range(args.kills):
        leaders = admin.list_topics(topics[0], timeout=30).topics[topics[0]].partitions
        node = list(cluster.nodes)[number] if args.rolling else leaders[number % PARTITIONS].leader
        struck = time.monotonic()
        cluster.end(node) if args.handover else cluster.kill(node)
        if args.handover:
            ended_by = struck + 40
            while cluster.pid(node) and time.monotonic() < ended_by:
                time.sleep(0.05)
        for acks in producers:
            for partition in range(PARTITIONS):
                wait_for_acks(acks, partition, struck)
        now = time.monotonic()
        for acks, longest in zip(producers, gaps):
            longest.append(max(acks.longest_gap(p, struck, now) for p in range(PARTITIONS)))
        print(json.dumps({"round": number, "node": node, "gap_s": [round(longest[-1], 3) for longest in gaps]}), flush=True)
        cluster.again(node)
        in_sync(admin, topics, args.nodes)
        time.sleep(max(1.0, struck + args.apart - time.monotonic()))
    return [(client, longest, *judged(acks, cluster)) for client, longest, acks in zip(args.client, gaps, producers)]


def producer(client, topic, address):
    if client == "python":
        return clusters.Confluent(address, topic, PARTITIONS)
    suite = next(s for s in suites.ALL if s.name == client)
    suite.install(suites.cache())
    return clusters.Program(suite.command, address, topic, PARTITIONS)


def judged(acks, cluster):
    """Ends a producer: what it tells, and what was wrong."""
    left = acks.stop()
    missing, again = acks.held_against(cluster.address)
    wrong = {"refused": len(acks.failed), "acknowledged_twice": acks.twice, "unanswered": left, "missing": missing}
    if acks.failed:
        print(f"refused: {acks.failed[:3]}", file=sys.stderr)
    told = {"acknowledged": sum(map(len, acks.values)), "came_again": again}
    return told, wrong | ({"twice": again} if acks.idempotent else {})


def wait_for_acks(acks, partition, struck, seconds=30):
    """Until acknowledgements have come for two seconds without a pause."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = time.monotonic()
        recent = [t for t in acks.times[partition][-2000:] if t > max(struck, now - 2)]
        if now - struck > 3 and len(recent) > 100 and now - recent[-1] < 0.25:
            return
        time.sleep(0.25)
    raise RuntimeError(f"no steady acknowledgements {seconds} s after a node went: {acks.failed[-3:]}")


def in_sync(admin, topics, nodes, seconds=60):
    """Until every replica of every partition is in sync."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        known = admin.list_topics(timeout=30).topics
        found = [p for topic in topics if topic in known for p in known[topic].partitions.values()]
        if len(found) == PARTITIONS * len(topics) and all(len(p.isrs) == min(3, nodes) and p.leader >= 0 for p in found):
            return
        time.sleep(0.1)
    raise RuntimeError(f"not every replica is in sync after {seconds} s: {[p.isrs for p in found]}")


if __name__ == "__main__":
    sys.exit(main())
