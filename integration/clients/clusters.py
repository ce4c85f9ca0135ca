"""Clusters of three or more brokers on loopback, whose nodes are killed and started again one by one."""

import json
import os
import select
import signal
import subprocess
import threading
import time

import brokers
import wire

READY_SECONDS = 90


class Cluster:
    """What benches need of one: `nodes`, the id of each and where it serves; `address`, all of them as clients are given them."""

    def __init__(self, folder, count):
        self.folder, self.count, self.nodes = folder, count, {}
        os.makedirs(folder, exist_ok=True)

    @property
    def address(self):
        return ",".join(self.nodes.values())

    @property
    def pids(self):
        """The process ids of those that run."""
        return [pid for pid in map(self.pid, self.nodes) if pid]

    def kill(self, node):
        """kill -9."""
        os.kill(self.pid(node), signal.SIGKILL)

    def wait_until_all_answer(self):
        end = time.monotonic() + READY_SECONDS
        while not all(wire.answers(address) for address in self.nodes.values()):
            if time.monotonic() > end:
                raise RuntimeError(f"not every node answers after {READY_SECONDS} s")
            time.sleep(0.1)


class FirnCluster(Cluster):
    """`firn dev --nodes N`. A node that is started again is a `firn server` with the file that its first start left."""

    name = "firn"

    def __init__(self, binary, folder, count, settings=(), store=None):
        super().__init__(folder, count)
        self.binary, self.settings, self.store = binary, list(settings), store or brokers.DirectoryStore()
        self.data = os.path.join(folder, "data")
        self.port = brokers.free_ports(10 * count)
        self.supervisor, self.first, self.again_of, self.http = None, {}, {}, {}

    def start(self):
        command = [self.binary, "dev", "--nodes", str(self.count), "--json", "--data", self.data]
        # Below the ports of outgoing connections, of which one might take a node's while it is down.
        command += ["--kafka", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.port + 5}"]
        if self.store.url:
            command += ["--object-store", self.store.url]
        for setting in self.settings:
            command += ["--set", setting]
        with open(os.path.join(self.folder, "log"), "a") as log:
            self.supervisor = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                                               env=os.environ | self.store.environment)
        ready, _, _ = select.select([self.supervisor.stdout], [], [], READY_SECONDS)
        line = self.supervisor.stdout.readline() if ready else ""
        if not line.startswith("{"):
            self.stop()
            raise RuntimeError(f"the cluster did not start: {line!r}, see {self.folder}/log")
        for node in json.loads(line)["nodes"]:
            self.nodes[node["id"]], self.first[node["id"]] = node["kafka"], node["pid"]
            self.http[node["id"]] = node["http"].removeprefix("http://").rstrip("/")
        self.wait_until_all_answer()

    def pid(self, node):
        if node in self.again_of:
            process = self.again_of[node]
            return process.pid if process.poll() is None else None
        return self.first[node] if os.path.exists(f"/proc/{self.first[node]}") else None

    def again(self, node):
        """Start a node that has ended, or is about to; returns once it answers."""
        end = time.monotonic() + READY_SECONDS
        while self.pid(node):
            if time.monotonic() > end:
                raise RuntimeError(f"node {node} has not ended after {READY_SECONDS} s")
            time.sleep(0.01)
        command = [self.binary, "server", "--config", os.path.join(self.data, f"node-{node}", "server.toml")]
        for setting in self.settings:
            command += ["--set", setting]
        with open(os.path.join(self.folder, f"log-{node}"), "a") as log:
            environment = os.environ | self.store.environment
            self.again_of[node] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.wait_until_all_answer()

    def end(self, node):
        """SIGTERM; does not wait."""
        os.kill(self.pid(node), signal.SIGTERM)

    def stop(self):
        for process in [*self.again_of.values(), self.supervisor]:
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in [*self.again_of.values(), self.supervisor]:
            if process:
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


class Nodes(FirnCluster):
    """A cluster as the suites know a broker: one that is killed is one of its nodes, each in turn."""

    restartable = True
    ends_within = 35  # seconds that SIGTERM may take

    def __init__(self, binary, folder, count, settings=(), store=None):
        super().__init__(binary, folder, count, [f"{k}={v}" for k, v in brokers.Firn.SETTINGS.items()] + list(settings), store)
        self.replicas, self.turn, self.dead = min(3, count), 0, []

    def start(self):
        """All nodes, or those of them that were killed."""
        if not self.pids:  # once each of its nodes was killed the supervisor is gone, too
            self.first, self.again_of, self.dead = {}, {}, []
            super().start()
        while self.dead:
            self.again(self.dead[-1])
            self.dead.pop()

    def kill(self):
        node = list(self.nodes)[self.turn % self.count]
        self.turn += 1
        self.dead.append(node)
        super().kill(node)

    def stop(self):
        began = time.monotonic()
        super().stop()
        return time.monotonic() - began

    def bucket_check(self, url):
        return brokers.bucket_check(self.binary, self.store, url)

    def metric(self, name):
        """The sum over the nodes that run."""
        total = 0.0
        for node in self.nodes:
            if self.pid(node):
                total += brokers.metric(self.http[node], name)
        return total

    def log_tail(self, lines=20):
        with open(os.path.join(self.folder, "log"), errors="replace") as f:
            return "".join(f.readlines()[-lines:])


class KafkaCluster(Cluster):
    """Apache Kafka by its launcher in ../peers."""

    name = "kafka"

    def __init__(self, folder, count, profile="default"):
        super().__init__(folder, count)
        self.profile, self.port = profile, brokers.free_ports(10 * count)
        self.nodes = {i + 1: f"127.0.0.1:{self.port + 10 * i}" for i in range(count)}

    def _launch(self, verb, *more):
        command = [os.path.join(brokers.PEERS, "kafka"), verb, self.folder, str(self.port), *map(str, more)]
        return subprocess.run(command, text=True, stdout=subprocess.PIPE, timeout=900)

    def start(self):
        if self._launch("start", self.profile, self.count).returncode:
            raise RuntimeError("Kafka could not be started")
        self.wait_until_all_answer()

    def pid(self, node):
        done = self._launch("status", node - 1)
        return None if done.returncode else int(done.stdout)

    def again(self, node):
        with open(os.path.join(self.folder, f"node-{node - 1}", "pid"), "w"):
            pass  # the launcher takes a pid file without a process for one that ended
        self._launch("again", node - 1)
        self.wait_until_all_answer()

    def end(self, node):
        """SIGTERM; does not wait."""
        os.kill(self.pid(node), signal.SIGTERM)

    def stop(self):
        self._launch("stop")


class Acks:
    """A producer of records at a steady pace, and when each partition's acknowledgements came.

    Everything but the addresses is the client's default, and so is what it does when a broker goes.
    """

    idempotent = True

    def __init__(self, topic, partitions, every_s):
        self.topic, self.partitions, self.every_s = topic, partitions, every_s
        self.times = [[] for _ in range(partitions)]
        self.values = [{} for _ in range(partitions)]  # by offset
        self.failed, self.twice = [], 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def _acknowledged(self, partition, offset, at, value):
        self.times[partition].append(at)
        self.twice += offset in self.values[partition]
        self.values[partition][offset] = value

    def longest_gap(self, partition, since, until):
        """The longest time between two acknowledgements of a partition, of which the second came in the interval."""
        longest, before = 0.0, None
        for at in self.times[partition][:]:
            if before is not None and since < at <= until:
                longest = max(longest, at - before)
            before = at
        return longest

    def held_against(self, bootstrap, seconds=120):
        """Reads everything back: how many acknowledged records are not where they were said to be, and how many values came again."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        missing, again = sum(map(len, self.values)), 0
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "held-against", "enable.auto.commit": False, "enable.partition.eof": True})
        consumer.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in range(self.partitions)])
        seen, ended, end = [set() for _ in range(self.partitions)], set(), time.monotonic() + seconds
        while len(ended) < self.partitions and time.monotonic() < end:
            for message in consumer.consume(1000, 0.5):
                partition = message.partition()
                if message.error():
                    if message.error().name() == "_PARTITION_EOF":
                        ended.add(partition)
                    continue
                missing -= self.values[partition].get(message.offset()) == message.value()
                again += message.value() in seen[partition]
                seen[partition].add(message.value())
        consumer.close()
        return missing, again


class Program(Acks):
    """The client of a suite, in the process of that suite."""

    def __init__(self, command, bootstrap, topic, partitions, every_s=0.004):
        super().__init__(topic, partitions, every_s)
        words = ["pace", "--bootstrap", bootstrap, "--topic", topic, "--partitions", str(partitions), "--every", f"{every_s * 1000:g}ms"]
        self.process = subprocess.Popen([*command, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _run(self):
        # Both clocks go at the same pace.
        ahead = time.time() - time.monotonic()
        for line in self.process.stdout:
            what, partition, rest = line.split(maxsplit=2)
            if what == "ack":
                offset, at, value = rest.split()
                self._acknowledged(int(partition), int(offset), int(at) / 1e9 - ahead, value.encode())
            else:
                self.failed.append(rest.strip())

    def stop(self):
        """Lets the last answers come; how many did not."""
        self.process.stdin.close()
        code = self.process.wait(90)
        self.thread.join()
        return code


class Confluent(Acks):
    """confluent-kafka, in this process."""

    idempotent = False

    def __init__(self, bootstrap, topic, partitions, every_s=0.004):
        from confluent_kafka import Producer

        super().__init__(topic, partitions, every_s)
        self.producer = Producer({"bootstrap.servers": bootstrap})
        self.sent = 0
        self.stopping = threading.Event()

    def _heard(self, error, message):
        if error:
            self.failed.append(str(error))
        else:
            self._acknowledged(message.partition(), message.offset(), time.monotonic(), message.value())

    def _run(self):
        due = time.monotonic()
        while not self.stopping.is_set():
            for partition in range(self.partitions):
                try:
                    self.producer.produce(self.topic, value=b"%d" % self.sent, partition=partition, on_delivery=self._heard)
                    self.sent += 1
                except BufferError:
                    break
            self.producer.poll(0)
            due = max(due + self.every_s, time.monotonic() - 1)
            self.producer.poll(max(0.0, due - time.monotonic()))

    def stop(self):
        """Lets the last answers come; how many did not."""
        self.stopping.set()
        self.thread.join()
        return self.producer.flush(60)
