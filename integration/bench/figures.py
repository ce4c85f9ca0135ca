"""The figures: each takes a system and returns what was measured, as a flat dict of numbers."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request

import rawget
import suites
import wire
from machine import Process, Watch

HERE = os.path.dirname(os.path.abspath(__file__))
COLD = {"remote.storage.enable": "true", "segment.bytes": str(32 << 20), "local.retention.bytes": "1", "retention.ms": "-1"}
RAW_PARALLEL = 16


class System:
    """A broker under measurement and what a topic needs on it."""

    def __init__(self, name, broker, scale, load, topic_config=None, tiered=False, store=None):
        self.name, self.broker, self.scale, self.load = name, broker, scale, load
        self.topic_config, self.tiered, self.store = topic_config or {}, tiered, store
        self.count, self.kept = 0, {}

    replicas = 1

    @property
    def process(self):
        return Process(self.broker.pid)

    @property
    def address(self):
        """One broker's, for requests of our own. Clients are given those of all."""
        return self.broker.address.split(",")[0]

    def topic(self, stem, partitions, config=None):
        self.count += 1
        name = f"{stem}-{self.name}-{self.count}"
        wire.create_topic(self.address, name, partitions, self.topic_config | (config or {}), replicas=self.replicas)
        deadline = time.monotonic() + 30
        while len(leaders := wire.leaders(self.address, [name]).get(name, [])) != partitions or -1 in leaders:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} has no leaders after 30 s")
            time.sleep(0.05)
        return name

    def keep(self, what, topic):
        """Remember a topic for a later figure, and delete the one that it takes the place of."""
        old, self.kept[what] = self.kept.get(what), topic
        if old:
            self.drop(old)

    def drop(self, topic):
        with contextlib.suppress(OSError):
            wire.delete_topic(self.address, topic)

    def run(self, verb, seconds, **options):
        done = self.start(verb, seconds, **options)
        return self.finish(done, seconds)

    def start(self, verb, seconds, **options):
        words = [f"{k}={v}" for k, v in ({"bootstrap": self.broker.address, "seconds": seconds} | options).items()]
        return subprocess.Popen([self.load, verb, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def finish(process, seconds):
        try:
            out, err = process.communicate(timeout=seconds + 90)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not out.strip():
            raise RuntimeError(f"load: {' '.join(err.split())[-300:]}")
        return json.loads(out)


def produce(system, partitions, mib, seconds=60, stem="produce"):
    topic = system.topic(stem, partitions)
    os.sync()  # or the backlog of whoever ran before is written during this run
    with Watch(system.process) as watch:
        got = system.run("produce", seconds, topic=topic, parts=partitions, mib=mib)
    system.keep(f"{stem}{partitions}", topic)
    return _pick(got, "mib", "mib_per_s", "lost", "pause_max_ms") | watch.figures(got["mib"], got["client_cpu_s"])


def sustained(system):
    seconds = system.scale.sustained_seconds
    topic = system.topic("sustained", 8)
    os.sync()
    with Watch(system.process) as watch:
        got = system.run("produce", seconds, topic=topic, parts=8, mib=0)
        os.sync()
    system.drop(topic)
    return _pick(got, "mib", "mib_per_s", "lost", "pause_max_ms") | watch.figures(got["mib"], got["client_cpu_s"])


def latency(system, linger, seconds=None):
    if "latency" not in system.kept:
        system.keep("latency", system.topic("latency", 1))
    seconds = seconds or system.scale.latency_seconds
    os.sync()
    # What the disk alone does to synced writes of that size and pace: no broker that waits for it has a better tail.
    probe = system.run("disk", max(1, seconds // 3), file=os.path.join(system.broker.folder, "probe.dat"), every_ms=max(linger + 1, 2))
    with Watch(system.process) as watch:
        got = system.run("produce", seconds, topic=system.kept["latency"], parts=1, rate=10, linger=linger)
    return _latency(got) | {f"disk_{k}": probe[k] for k in ("p99_ms", "p999_ms", "max_ms")} | watch.figures(got["mib"], got["client_cpu_s"])


def consume(system, partitions):
    if f"produce{partitions}" not in system.kept:
        produce(system, partitions, system.scale.mib)
    mib = int(system.scale.mib * 0.98)
    with Watch(system.process) as watch:
        got = system.run("consume", 60, topic=system.kept[f"produce{partitions}"], parts=partitions, mib=mib)
    return _consumed(got) | watch.figures(got["mib"], got["client_cpu_s"])


def cold_topic(system):
    """A topic whose first `cold_read_mib` are only remote."""
    if "cold" in system.kept:
        return system.kept["cold"], {}
    topic = system.topic("cold", 1, COLD)
    if system.store:
        _store(system, "/-/stats?reset")
    began = time.monotonic()
    got = system.run("produce", 60, topic=topic, parts=1, mib=system.scale.cold_mib)
    want, local = system.scale.cold_read_mib * 1024, 0
    while local < want:
        if time.monotonic() - began > 120:
            raise RuntimeError(f"only {local} of {want} records are cold after 120 s")
        time.sleep(0.25)
        with contextlib.suppress(OSError):
            local = wire.list_offset(system.broker.address, topic, 0, wire.EARLIEST_LOCAL)
    info = {"offload_s": round(time.monotonic() - began - got["seconds"], 1)}
    if system.store:
        info["puts"] = _store(system, "/-/stats")["requests"].get("PUT", 0)
    system.keep("cold", topic)
    return topic, info


def cold(system, delay_ms):
    topic, info = cold_topic(system)
    if system.store:
        _store(system, f"/-/set?delay_ms={delay_ms}")
        _store(system, "/-/stats?reset")
    try:
        with Watch(system.process) as watch:
            got = system.run("consume", 40, topic=topic, parts=1, mib=system.scale.cold_read_mib)
        if system.store:
            info |= _gets(_store(system, "/-/stats?reset"), got["mib"])
            raw = rawget.mib_per_s(f"127.0.0.1:{system.store.port + 1}", "firn", ".seg", system.scale.cold_read_mib, RAW_PARALLEL)
            info["raw_get_mib_per_s"] = round(raw, 1) if raw else None
    finally:
        if system.store:
            _store(system, "/-/set?delay_ms=0")
    return _consumed(got) | info | watch.figures(got["mib"], got["client_cpu_s"])


def backfill(system):
    """Produce latency alone, and again beside a reader that goes through the cold topic over and over."""
    topic, _ = cold_topic(system)
    seconds = system.scale.latency_seconds
    alone = latency(system, 5)
    read, stop = {"mib": 0.0}, threading.Event()

    def reader():
        while not stop.is_set():
            got = system.run("consume", 30, topic=topic, parts=1, mib=system.scale.cold_read_mib)
            read["mib"] += got["mib"]

    thread = threading.Thread(target=reader)
    began = time.monotonic()
    thread.start()
    try:
        beside = latency(system, 5, seconds)
    finally:
        stop.set()
        thread.join()
    out = {f"alone_{k}": alone[k] for k in ("p50_ms", "p99_ms", "p999_ms")}
    out |= {f"beside_{k}": beside[k] for k in ("p50_ms", "p99_ms", "p999_ms")}
    out["p99_ratio"] = round(beside["p99_ms"] / alone["p99_ms"], 2)
    return out | {"lost": beside["lost"], "backfill_mib_per_s": round(read["mib"] / (time.monotonic() - began), 1)}


def topics(system, count=1000):
    names = [f"many-{system.name}-{system.count}-{i}" for i in range(count)]
    system.count += 1
    began = time.monotonic()
    wire.create_topics(system.broker.address, names, 1, {}, timeout=120)
    answered = time.monotonic() - began
    while True:
        found = wire.leaders(system.broker.address, names, timeout=60)
        if sum(leaders == [leaders[0]] and leaders[0] >= 0 for leaders in found.values()) == count:
            break
        if time.monotonic() - began > 120:
            raise RuntimeError(f"{len(found)} of {count} topics have a leader after 120 s")
        time.sleep(0.02)
    return {"answered_s": round(answered, 3), "led_s": round(time.monotonic() - began, 3)}


def startup(make_broker):
    """From the start of the process on an empty directory to its first Metadata answer; memory three seconds later."""
    broker = make_broker()
    try:
        began = broker.launch()
        while not wire.answers(broker.address):
            if time.time() - began > 60 or not broker.running():
                raise RuntimeError(f"did not come up: {broker.log_tail(5)}")
            time.sleep(0.002)
        took = time.time() - began
        time.sleep(3)
        resident, _ = Process(broker.pid).memory_mib()
        return {"first_answer_ms": round(took * 1000), "rss_idle_mib": round(resident)}
    finally:
        broker.stop()
        shutil.rmtree(broker.folder, ignore_errors=True)


def memory(system):
    resident, most = system.process.memory_mib()
    return {"rss_mib": round(resident), "rss_most_mib": round(most)}


def _pick(got, *names):
    out = {name: got[name] for name in names}
    if got["error"]:
        out["error"] = got["error"]
    return out


def _latency(got):
    return _pick(got, "mib", "mib_per_s", "lost", "p50_ms", "p99_ms", "p999_ms", "max_ms", "pause_p999_ms", "pause_max_ms")


def _consumed(got):
    if not got["complete"] or got["gaps"]:
        got["error"] = got["error"] or f"incomplete, {got['gaps']} gaps"
    return _pick(got, "mib", "mib_per_s", "first_ms", "gaps")


def _gets(stats, mib):
    gets, down = stats["requests"].get("GET", 0), stats["bytes_down"].get("GET", 0)
    return {"gets": gets, "gets_at_once": stats["most_at_once"], "fetched_per_byte": round(down / 1048576 / mib, 3) if mib else None}


def _store(system, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{system.store.port + 1}{path}", timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


# Name, what it needs to know of a system, and how it is taken. `cold` figures need a system with a tier.
HOT = {
    "produce1": lambda s: produce(s, 1, s.scale.mib),
    "produce8": lambda s: produce(s, 8, s.scale.mib),
    "produce1000": lambda s: produce(s, 1000, s.scale.mib),
    "sustained": sustained,
    "latency5": lambda s: latency(s, 5),
    "latency0": lambda s: latency(s, 0),
    "consume1": lambda s: consume(s, 1),
    "consume8": lambda s: consume(s, 8),
    "rss": memory,
    "topics": topics,
}
TIERED = {
    "cold0": lambda s: cold(s, 0),
    "cold100": lambda s: cold(s, 100),
    "backfill": backfill,
}


def build_load_client():
    """Path of the compiled load client, built anew when its source is newer."""
    cache = suites.cache()
    os.makedirs(os.path.join(cache, "bin"), exist_ok=True)
    source, out = os.path.join(HERE, "load.c"), os.path.join(cache, "bin", "load")
    if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(source):
        done = subprocess.run(["cc", "-O2", "-o", out, source, "-lrdkafka", "-lpthread"], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the load client does not compile (Debian: apt-get install gcc librdkafka-dev):\n{done.stderr[-800:]}")
    return out
