"""The stages of a run: what is done with each suite, in order, and what counts as passed."""

import contextlib
import os
import queue
import subprocess
import threading
import time

import wire

PARTITIONS = 3
TOPIC = {"segment.bytes": "1048576", "local.retention.bytes": "2097152", "retention.ms": "-1"}
LOCAL_BYTES = 2097152 + 3 * 1048576  # what may still be local of a partition: its retention, and segments that roll or wait
COLD_SECONDS = 90
# By age: by size the newest segment would stay, which may hold all that there is.
COLD_AT_ONCE = {"segment.bytes": "1048576", "local.retention.ms": "1", "firn.tier.max.lag.ms": "1000", "retention.ms": "-1"}
COLD_READ_BYTES = 1 << 20  # a consumer that has been served so much from the tier is in the middle of it
COMMAND_SECONDS = 420


class Run:
    """Counts what passed and failed, and runs suite programs against one broker."""

    def __init__(self, broker, suites, rows, count, folder, tiered, seed):
        self.broker, self.suites, self.rows, self.count = broker, suites, rows, count
        self.folder, self.tiered, self.seed = folder, tiered, seed
        self.passed = self.failed = 0
        self.produced = []  # topics that hold all rows
        self.watchdog = time.monotonic()

    def result(self, suite, line):
        ok = line.startswith("pass ")
        self.passed, self.failed = self.passed + ok, self.failed + (not ok)
        print(f"{'ok  ' if ok else 'FAIL'} {suite:<6} {line[5:]}", flush=True)

    @contextlib.contextmanager
    def stage(self, name):
        """Prints the stage's time; what it raises is a failure of the stage, and the run goes on."""
        began = time.monotonic()
        try:
            yield
        except (OSError, RuntimeError, subprocess.SubprocessError) as why:
            self.result("driver", f"fail {name}: {' '.join(str(why).split())[:800]}")
        print(f"---- {name}: {time.monotonic() - began:.1f} s", flush=True)

    def topic(self, suite):
        return f"flights-{suite.name}-{self.seed}"

    def _create(self, topic, configs):
        replicas = self.broker.replicas
        wire.create_topic(self.broker.address, topic, PARTITIONS, configs | ({"min.insync.replicas": "2"} if replicas > 2 else {}), replicas=replicas)

    def suite(self, suite, command, *more, on_progress=None, seconds=COMMAND_SECONDS):
        """Run one command of a suite program; its lines are counted. True when all of them passed."""
        line = [*suite.command, command, "--bootstrap", self.broker.address, *more]
        lines, failed_before, results = queue.Queue(), self.failed, 0
        with open(os.path.join(self.folder, f"{suite.name}.log"), "a") as log:
            log.write(f"$ {' '.join(line)}\n")
            log.flush()
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
            threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
            end = time.monotonic() + seconds
            try:
                while (text := lines.get(timeout=max(0.1, end - time.monotonic()))) is not None:
                    if text.startswith(("pass ", "fail ")):
                        results += 1
                        self.result(suite.name, text)
                    elif text.startswith("progress ") and on_progress:
                        on_progress(int(text.split()[1]))
                code = process.wait(max(0.1, end - time.monotonic()))
            except (queue.Empty, subprocess.TimeoutExpired):
                self.result(suite.name, f"fail {command}: not done in {seconds} s")
                code = None
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()
        if code is not None and (results == 0 or (code != 0 and self.failed == failed_before)):
            self.result(suite.name, f"fail {command}: exit {code}, {results} results; see {suite.name}.log")
        return self.failed == failed_before

    # ------------------------------------------------------------------ the stages

    def checks(self):
        for suite in self.suites:
            with self.stage(f"checks with {suite.client}"):
                self.suite(suite, "checks", "--prefix", f"{suite.name}-{self.seed}", seconds=300)

    def produce(self, crash):
        """Every suite produces all flights; with `crash` the broker is killed in the middle of each and started again."""
        for suite in self.suites:
            topic = self.topic(suite)
            with self.stage(f"flights from {suite.client}" + (", broker killed in the middle" if crash else "")):
                self._create(topic, TOPIC | ({"remote.storage.enable": "true"} if self.tiered else {}))
                killer = Killer(self.broker, self.count // 3) if crash else None
                good = self.suite(suite, "produce", "--topic", topic, "--rows", self.rows, on_progress=killer and killer.at)
                if killer:
                    killer.finish()
                    self.result("driver", killer.verdict(topic))
                if good:
                    self.produced.append(topic)

    def wait_until_cold(self):
        """Until each partition keeps no more on local disk than its retention and the segments in motion."""
        for topic in self.produced:
            with self.stage(f"{topic} goes cold"):
                began, end = time.monotonic(), time.monotonic() + COLD_SECONDS
                while warm := self._warm(topic):
                    if time.monotonic() > end:
                        raise RuntimeError(f"still local after {COLD_SECONDS} s: {warm}")
                    time.sleep(0.25)
                self.result("driver", f"pass {topic} is cold {time.monotonic() - began:.1f}")

    def _warm(self, topic):
        """Partitions that should have gone cold and have not, with their local start and end."""
        row_bytes, warm, expected = os.path.getsize(self.rows) / self.count, {}, 0
        for partition in range(PARTITIONS):
            try:
                end = wire.list_offset(self.broker.address, topic, partition, wire.LATEST)
                local = wire.list_offset(self.broker.address, topic, partition, wire.EARLIEST_LOCAL)
            except OSError as why:
                return {"error": str(why)}
            if end * row_bytes > LOCAL_BYTES + 1048576:
                expected += 1
                if local == 0 or (end - local) * row_bytes * 0.8 > LOCAL_BYTES:
                    warm[partition] = (local, end)
        if not expected:
            raise RuntimeError("too few rows for any partition to go cold")
        return warm

    def codecs(self, rows):
        """Every suite compresses rows with its codec, and reads what the others have compressed, all of it cold."""
        topics = []
        for suite in self.suites:
            topic = f"compressed-{suite.codec}-{suite.name}-{self.seed}"
            with self.stage(f"{suite.codec} from {suite.client}"):
                self._create(topic, COLD_AT_ONCE)
                if self.suite(suite, "produce", "--topic", topic, "--rows", rows, "--codec", suite.codec):
                    topics.append(topic)
                    stored = set(wire.stored_codecs(self.broker.address, topic))
                    self.result("driver", f"{'pass' if suite.codec in stored else 'fail'} {topic} is stored with {', '.join(sorted(stored))}")
        with self.stage("compressed rows go cold"):
            end = time.monotonic() + COLD_SECONDS
            while warm := [(topic, p) for topic in topics for p in range(PARTITIONS) if self._any_local(topic, p)]:
                if time.monotonic() > end:
                    raise RuntimeError(f"still local after {COLD_SECONDS} s: {warm}")
                time.sleep(0.25)
            self.result("driver", "pass all that is compressed is cold")
        for suite in self.suites:
            with self.stage(f"compressed and cold: read by {suite.client}"):
                self.suite(suite, "consume", *_topics(topics), "--rows", rows)

    def _any_local(self, topic, partition):
        try:
            offset = lambda which: wire.list_offset(self.broker.address, topic, partition, which)
            return offset(wire.EARLIEST_LOCAL) < offset(wire.LATEST)
        except OSError:
            return True

    def tier_offsets(self):
        for suite in self.suites:
            if suite.sees_tier:
                self.suite(suite, "tier", *_topics(self.produced))

    def read_back(self, when, crash=False):
        """Every suite reads what every suite produced; with `crash` the broker is killed in the middle of each client's reading."""
        for suite in self.suites:
            with self.stage(f"{when}: read by {suite.client}" + (", broker killed in the middle" if crash else "")):
                killer = ReadKiller(self.broker) if crash else None
                self.suite(suite, "consume", *_topics(self.produced), "--rows", self.rows)
                if killer:
                    self.result("driver", killer.verdict(suite.name))

    def groups(self, part, restart):
        """Each suite reads its neighbour's topic in a group up to `part` of the rows, then, in a later call, the rest."""
        for index, suite in enumerate(self.suites):
            if not self.produced:
                return
            topic = self.produced[(index + 1) % len(self.produced)]
            stop = ["--stop-after", str(int(self.count * part))] if part < 1 else []
            self.suite(suite, "consume", "--topic", topic, "--rows", self.rows, "--mode", "group", "--group", f"g-{suite.name}-{self.seed}",
                       "--seen", os.path.join(self.folder, f"seen-{suite.name}-{self.seed}"), *stop)
        if restart:
            self.restart()

    def restart(self):
        with self.stage("restart"):
            seconds, limit = self.broker.stop(), self.broker.ends_within
            late = limit is not None and seconds > limit
            self.result("driver", f"fail stopped after {seconds:.1f} s, promised are {limit}" if late else f"pass stopped {seconds:.1f}")
            self.broker.start()

    def kill(self):
        with self.stage("kill -9 and start"):
            self.broker.kill()
            self.broker.start()
            self.result("driver", "pass killed and came back")


class Killer:
    """Kills the broker once a producer has got so far, and starts it again, while the producer goes on."""

    def __init__(self, broker, after):
        self.broker, self.after = broker, after
        self.thread = None
        self.error = None
        self.acknowledged = 0

    def at(self, progress):
        if self.thread is None and progress >= self.after:
            self.acknowledged = progress
            self.broker.kill()
            self.thread = threading.Thread(target=self._start)
            self.thread.start()

    def _start(self):
        try:
            self.broker.start()
        except Exception as why:  # reported by verdict
            self.error = why

    def finish(self):
        if self.thread:
            self.thread.join()

    def verdict(self, topic):
        if self.thread is None:
            return f"fail {topic}: the producer ended before the broker could be killed"
        if self.error:
            return f"fail {topic}: restart after kill -9: {' '.join(str(self.error).split())}"
        return f"pass {topic}: killed after {self.acknowledged} rows and came back"


class ReadKiller:
    """Kills the broker once a consumer has been served cold records, and starts it again, while the consumer goes on."""

    METRIC = "firn_remote_served_bytes_total"

    def __init__(self, broker):
        self.broker, self.before = broker, broker.metric(self.METRIC)
        self.served, self.error = None, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        try:
            while not self.over.wait(0.02):
                served = self.broker.metric(self.METRIC) - self.before
                if served >= COLD_READ_BYTES:
                    self.broker.kill()
                    self.served = served
                    self.broker.start()
                    return
        except Exception as why:  # reported by verdict
            self.error = why

    def verdict(self, reader):
        self.over.set()
        self.thread.join()
        if self.error:
            return f"fail {reader}: restart after kill -9: {' '.join(str(self.error).split())}"
        if self.served is None:
            return f"fail {reader}: it had read everything before the broker could be killed"
        return f"pass {reader}: killed after {self.served / 1048576:.0f} MiB of cold records and came back"


def _topics(topics):
    return [word for topic in topics for word in ("--topic", topic)]


def _pump(stream, lines):
    for line in stream:
        lines.put(line.rstrip("\n"))
    lines.put(None)
