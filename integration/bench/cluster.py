#!/usr/bin/env python3
"""Throughput of three nodes on this machine with three replicas of everything, Firn beside Apache Kafka, in turns.

  cluster.py                                    three rounds of firn, kafka (acknowledges from the page cache) and kafka-fsync
  cluster.py --quick --systems firn             one small round of one of them

acks=all, min.insync.replicas 2, records of 1 KiB, no compression, librdkafka batches of up to 1 MB. CPU is that of all three nodes.
Prints a markdown table: the median over the rounds (least-most).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(HERE, "..", "clients")]
import brokers
import clusters
import figures
import machine

PROFILES = {"kafka": "default", "kafka-fsync": "fsync"}
FIGURES = {"produce1": 1, "produce8": 8}


class Replicated(figures.System):
    """A cluster under measurement."""

    replicas = 3

    @property
    def process(self):
        return machine.Processes(self.broker.pids)


class Scale:
    def __init__(self, mib):
        self.mib = mib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default="firn,kafka,kafka-fsync")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512, help="how much each run writes")
    parser.add_argument("--quick", action="store_true", help="one round of 64 MiB")
    parser.add_argument("--binary", help="the firn binary (default: target/release/firn of this workspace)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="broker setting for firn; repeatable")
    parser.add_argument("--folder", help="where data goes (default: a temporary folder); removed afterwards")
    args = parser.parse_args()
    rounds, mib = (1, 64) if args.quick else (args.rounds, args.mib)
    load = figures.build_load_client()
    results = {}
    for number in range(rounds):
        # One system at a time: three JVMs beside three brokers would measure the machine's memory.
        for name in args.systems.split(","):
            for figure, got in take(name, args, load, mib).items():
                print(f"round {number}: {figure} {name}: {json.dumps(got)}", file=sys.stderr, flush=True)
                for field in ("mib_per_s", "cpu_s_per_gib", "lost"):
                    results.setdefault((figure, field), {}).setdefault(name, []).append(got[field])
    print(table(results, args.systems.split(",")))
    return 1 if any(sum(values) for (_, field), row in results.items() if field == "lost" for values in row.values()) else 0


def take(name, args, load, mib):
    """One round of one system on a fresh cluster."""
    folder = tempfile.mkdtemp(prefix=f"firn-cluster-{name}-", dir=args.folder)
    if name == "firn":
        cluster = clusters.FirnCluster(args.binary or brokers.release_binary(), folder, 3, args.set)
        config = {"min.insync.replicas": "2", "remote.storage.enable": "false"}
    else:
        cluster = clusters.KafkaCluster(folder, 3, PROFILES[name])
        config = {"min.insync.replicas": "2"}
    try:
        cluster.start()
        system = Replicated(name, cluster, Scale(mib), load, config)
        figures.produce(system, 8, max(32, mib // 4), 60, stem="warm")
        return {figure: figures.produce(system, partitions, mib, 120) for figure, partitions in FIGURES.items()}
    finally:
        cluster.stop()
        brokers.remove(folder)


def table(results, names):
    lines = ["| figure | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for (figure, field), row in results.items():
        cells = []
        for name in names:
            values = row.get(name, [])
            cells.append(f"{statistics.median(values):.4g} ({min(values):.4g}-{max(values):.4g})" if values else "")
        lines.append(f"| {figure} {field} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
