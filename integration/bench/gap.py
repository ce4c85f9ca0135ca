#!/usr/bin/env python3
"""How long a stock producer waits when a broker goes: the longest gap between two acknowledgements of a partition.

  gap.py                       60 kills of the leader of a partition (kill -9), Firn with default settings
  gap.py --kills 5 --fast      five, with the documented settings for fast fail-over
  gap.py --handover            SIGTERM instead: a planned handover
  gap.py --system kafka        the same of Apache Kafka
  gap.py --client go           with franz-go instead of confluent-kafka for Python

Three nodes on this machine, one topic with three replicas, min.insync.replicas 2, acks=all. The producer has nothing set but the addresses
of all nodes. After each kill the node is started again, and the next one waits until every replica
is in sync. Prints one line of JSON for each kill and a summary: median, p99, and most.
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
# What docs/operations.md names for fast fail-over.
FAST = [
    "broker.session.timeout.ms=1000", "broker.heartbeat.interval.ms=100", "controller.quorum.fetch.timeout.ms=150",
    "controller.quorum.election.timeout.ms=120", "controller.quorum.election.backoff.max.ms=60",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=["firn", "kafka"], default="firn")
    parser.add_argument("--client", choices=["python", "go"], default="python")
    parser.add_argument("--binary", help="the firn binary (default: target/release/firn of this workspace)")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--apart", type=float, default=12, metavar="SECONDS", help="least time between two kills: clients wait longer for a node "
                        "that was down just before, up to 10 s with librdkafka (default: 12)")
    parser.add_argument("--fast", action="store_true", help="the settings for fast fail-over")
    parser.add_argument("--handover", action="store_true", help="SIGTERM instead of kill -9")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="broker setting; repeatable")
    parser.add_argument("--at-most", type=float, metavar="SECONDS", help="fail when the p99 is longer")
    parser.add_argument("--folder", help="where data goes (default: a temporary folder); removed afterwards")
    args = parser.parse_args()
    with_confluent_kafka()
    folder = tempfile.mkdtemp(prefix="firn-gap-", dir=args.folder)
    if args.system == "kafka":
        cluster = clusters.KafkaCluster(folder, args.nodes)
    else:
        binary = args.binary or brokers.release_binary()
        cluster = clusters.FirnCluster(binary, folder, args.nodes, (FAST if args.fast else []) + args.set)
    try:
        cluster.start()
        gaps, wrong = measure(cluster, args)
    finally:
        cluster.stop()
        brokers.remove(folder)
    summary = {
        "system": args.system, "client": args.client, "what": "handover" if args.handover else "kill", "profile": "fast" if args.fast else "default",
        "rounds": len(gaps), "median_s": round(statistics.median(gaps), 3), "p99_s": round(p99(gaps), 3), "max_s": round(max(gaps), 3),
    } | wrong
    print(json.dumps(summary), flush=True)
    return 1 if any(wrong.values()) or (args.at_most and p99(gaps) > args.at_most) else 0


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
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": cluster.address})
    topic = NewTopic(TOPIC, PARTITIONS, min(3, args.nodes), config={"min.insync.replicas": str(min(2, args.nodes))})
    admin.create_topics([topic])[TOPIC].result(30)
    in_sync(admin, args.nodes)
    if args.client == "go":
        suite = next(s for s in suites.ALL if s.name == "go")
        suite.install(suites.cache())
        acks = clusters.FranzGo(suite.command, cluster.address, TOPIC, PARTITIONS).start()
    else:
        acks = clusters.Confluent(cluster.address, TOPIC, PARTITIONS).start()
    gaps = []
    time.sleep(3)
    for number in range(args.kills):
        partition = number % PARTITIONS
        node = partitions(admin)[partition].leader
        struck = time.monotonic()
        cluster.end(node) if args.handover else cluster.kill(node)
        if args.handover:
            ended_by = struck + 40
            while cluster.pid(node) and time.monotonic() < ended_by:
                time.sleep(0.05)
        wait_for_acks(acks, partition, struck)
        gap = max(acks.longest_gap(p, struck, time.monotonic()) for p in range(PARTITIONS))
        gaps.append(gap)
        print(json.dumps({"round": number, "node": node, "gap_s": round(gap, 3)}), flush=True)
        cluster.again(node)
        in_sync(admin, args.nodes)
        time.sleep(max(1.0, struck + args.apart - time.monotonic()))
    left = acks.stop()
    return gaps, {"failed": len(acks.failed), "twice": acks.twice, "unanswered": left}


def wait_for_acks(acks, partition, struck, seconds=30):
    """Until acknowledgements have come for two seconds without a pause."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.25)
        now = time.monotonic()
        recent = [t for t in acks.times[partition][-2000:] if t > max(struck, now - 2)]
        if now - struck > 3 and len(recent) > 100 and now - recent[-1] < 0.25:
            return
    raise RuntimeError(f"no steady acknowledgements {seconds} s after a node went: {acks.failed[-3:]}")


def partitions(admin):
    return admin.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions


def in_sync(admin, nodes, seconds=60):
    """Until every replica of every partition is in sync."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = partitions(admin)
        if len(found) == PARTITIONS and all(len(p.isrs) == min(3, nodes) and p.leader >= 0 for p in found.values()):
            return
        time.sleep(0.1)
    raise RuntimeError(f"not every replica is in sync after {seconds} s: { {i: p.isrs for i, p in found.items()} }")


if __name__ == "__main__":
    sys.exit(main())
