#!/usr/bin/env python3
"""Many partitions on three nodes, and the replacement of one.

  scale.py many                   10,000 partitions with three replicas: time to create them, CPU of the idle nodes, and the longest time
                                  without metadata changes when each node in turn is killed (one of them leads the quorum)
  scale.py replace                a node with 1 GiB of hot records and any amount of cold ones (--cold-mib) loses its disk and comes back
                                  under its id, as docs/operations.md does it: bytes copied to it, beside what is hot. What lies in the
                                  object store is made hollow meanwhile, its size kept: who copied history would move as much all the same

Prints one line of JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path[:0] = [HERE, os.path.join(HERE, "..", "clients")]
import brokers
import clusters
import figures
import gap
import machine
import wire

NODES = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["many", "replace"])
    parser.add_argument("--binary", help="the firn binary (default: target/release/firn of this workspace)")
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--empty", action="store_true", help="leave the partitions empty; else each gets a record before the nodes are idle")
    parser.add_argument("--idle-seconds", type=int, default=30)
    parser.add_argument("--cold-mib", type=int, default=51_200)
    parser.add_argument("--hot-mib", type=int, default=1024)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="broker setting; repeatable")
    parser.add_argument("--folder", help="where data goes (default: a temporary folder); removed afterwards")
    args = parser.parse_args()
    if args.what == "many" and not args.empty:
        gap.with_confluent_kafka()
    folder = tempfile.mkdtemp(prefix=f"firn-{args.what}-", dir=args.folder)
    cluster = clusters.FirnCluster(args.binary or brokers.release_binary(), folder, NODES, args.set)
    try:
        cluster.start()
        print(json.dumps({"what": args.what} | (many if args.what == "many" else replace)(cluster, args)), flush=True)
    finally:
        cluster.stop()
        brokers.remove(folder)


def many(cluster, args):
    first = next(iter(cluster.nodes.values()))
    began = time.monotonic()
    wire.create_topics(first, ["many"], args.partitions, {}, timeout=120, replicas=NODES)
    for address in cluster.nodes.values():
        wait_for_leaders(address, "many", args.partitions, 120)
    created = time.monotonic() - began
    filled = None if args.empty else fill(cluster.address, "many", args.partitions)
    time.sleep(10 if args.empty else 60)  # what was written is settled: flushed, and noted in checkpoints
    before = {node: machine.Process(cluster.pid(node)).cpu_seconds() for node in cluster.nodes}
    time.sleep(args.idle_seconds)
    idle = [(machine.Process(cluster.pid(node)).cpu_seconds() - before[node]) / args.idle_seconds for node in cluster.nodes]
    memory = [machine.Process(cluster.pid(node)).memory_mib()[0] for node in cluster.nodes]
    without = max(time_without_changes(cluster, node, number) for number, node in enumerate(cluster.nodes))
    return {
        "partitions": args.partitions, "create_s": round(created, 2), "fill_s": filled, "idle_cores": [round(share, 3) for share in idle],
        "rss_mib": [round(mib) for mib in memory], "controller_failover_s": round(without, 2),
    }


def fill(bootstrap, topic, partitions):
    """One record into each partition, acknowledged by all replicas; seconds until the last."""
    from confluent_kafka import Producer

    failed = []
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 2 * partitions})
    began = time.monotonic()
    for partition in range(partitions):
        producer.produce(topic, b"x" * 100, partition=partition, on_delivery=lambda error, _: failed.append(error) if error else None)
    left = producer.flush(120)
    if left or failed:
        raise RuntimeError(f"{left} records were not acknowledged in 120 s, {len(failed)} refused: {failed[:1]}")
    return round(time.monotonic() - began, 2)


def wait_for_leaders(address, topic, partitions, seconds):
    end = time.monotonic() + seconds
    while True:
        found = wire.leaders(address, [topic], timeout=30).get(topic, [])
        if len(found) == partitions and -1 not in found:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"{address} names {len(found)} partitions, {found.count(-1)} of them without a leader")
        time.sleep(0.1)


def time_without_changes(cluster, node, number):
    """Seconds from kill -9 of a node until a topic can be created at another."""
    other = next(address for one, address in cluster.nodes.items() if one != node)
    cluster.kill(node)
    began = time.monotonic()
    attempt = 0
    while True:
        attempt += 1
        try:
            wire.create_topic(other, f"after-{number}-{attempt}", 1, {}, timeout=5, replicas=1)
            break
        except OSError:
            if time.monotonic() - began > 60:
                raise RuntimeError("no topic can be created 60 s after a node went") from None
            time.sleep(0.02)
    took = time.monotonic() - began
    cluster.again(node)
    time.sleep(5)
    return took


class Scale:
    def __init__(self, mib):
        self.mib = mib


def replace(cluster, args):
    config = {"min.insync.replicas": "2", "segment.bytes": str(64 << 20), "local.retention.bytes": "1", "retention.ms": "-1"}
    load = figures.build_load_client()
    system = figures.System("firn", cluster, Scale(args.cold_mib), load)
    system.replicas = NODES
    began = time.monotonic()
    cold = system.topic("cold", 4, config | {"firn.flush": "os"})
    with Hollow(os.path.join(cluster.data, "bucket")):
        system.run("produce", 3600, topic=cold, parts=4, mib=args.cold_mib)
        end = time.monotonic() + 300
        while local_share(cluster.address, cold, 4) > min(args.cold_mib, 1024) * 1024 // 2:
            if time.monotonic() > end:
                raise RuntimeError("what is cold stays local")
            time.sleep(0.5)
    hot = system.topic("hot", 4, {"min.insync.replicas": "2", "remote.storage.enable": "false"})
    system.run("produce", 300, topic=hot, parts=4, mib=args.hot_mib)
    filled = time.monotonic() - began
    tiered = sum(wire.list_offset(cluster.address, cold, p, wire.LATEST_TIERED) + 1 for p in range(4)) // 1024
    stays_local = local_share(cluster.address, cold, 4)
    node = list(cluster.nodes)[-1]
    cluster.kill(node)
    began = time.monotonic()
    come_back_empty(cluster, node)
    copied = settled_bytes(cluster, node)
    hot_kib = args.hot_mib * 1024 + stays_local
    return {
        "tiered_mib": tiered, "hot_mib": round(hot_kib / 1024), "copied_mib": round(copied / (1 << 20), 1),
        "copied_per_hot": round(copied / (hot_kib << 10), 3), "in_sync_s": round(time.monotonic() - began, 1), "filled_s": round(filled),
    }


class Hollow:
    """Frees the disk of what lies in a bucket but the newest objects, keeping each object's size."""

    NEWEST = 24  # whose footers a replica may read

    def __init__(self, bucket):
        self.bucket, self.done, self.over = bucket, set(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _run(self):
        while not self.over.wait(1):
            found = [os.path.join(root, name) for root, _, names in os.walk(self.bucket) for name in names if name.endswith(".seg")]
            for path in sorted(set(found) - self.done, key=os.path.getmtime)[: -self.NEWEST]:
                size = os.path.getsize(path)
                os.truncate(path, 0)
                os.truncate(path, size)
                self.done.add(path)


def come_back_empty(cluster, node):
    """A node whose disk is new, by the commands of docs/operations.md."""
    folder = os.path.join(cluster.data, f"node-{node}")
    with open(os.path.join(folder, "meta.json")) as f:
        cluster_id = json.load(f)["cluster-id"]
    file = os.path.join(folder, "server.toml")
    with open(file) as f:
        listeners = next(line for line in f if line.startswith("listeners"))
    control = listeners.split("CONTROLLER://", 1)[1].strip().strip('"')
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif path != file:
            os.remove(path)
    other = next(http for one, http in cluster.http.items() if one != node)
    firn = lambda *words: subprocess.run([cluster.binary, "cluster", *words], check=True, stdout=sys.stderr, timeout=120)
    firn("format", "--config", file, "--cluster-id", cluster_id)
    firn("voter", "remove", str(node), "--admin", other)
    cluster.again(node)
    firn("voter", "add", str(node), control, "--admin", other)


def local_share(address, topic, partitions):
    """Records of 1 KiB that lie on local disks."""
    ends = [wire.list_offset(address, topic, p, -1) - wire.list_offset(address, topic, p, wire.EARLIEST_LOCAL) for p in range(partitions)]
    return sum(ends)


def settled_bytes(cluster, node, seconds=600):
    """Bytes that a node copied from others, once it is in sync and copies nothing more."""
    last, since, end = -1.0, time.monotonic(), time.monotonic() + seconds
    while time.monotonic() < end:
        now = metric(cluster.http[node], "firn_replication_in_bytes_total")
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 5 and now > 0 and not sum(
            metric(http, "firn_partitions_under_replicated") for http in cluster.http.values()
        ):
            return now
        time.sleep(0.5)
    raise RuntimeError(f"after {seconds} s it still copies")


def metric(address, name):
    """Sum over the labels of a metric; 0 when there is none."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


if __name__ == "__main__":
    sys.exit(main())
