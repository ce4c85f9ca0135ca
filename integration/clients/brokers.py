"""The brokers that the suites run against: Firn, Apache Kafka as a peer, or one that already runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import wire

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "..", "peers")
READY_SECONDS = 60


def metric(http, name):
    """The value of a metric without labels; OSError when the broker is away."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    raise OSError(f"no metric {name}")


class Broker:
    """A broker on loopback with a data directory of its own, that can be killed and started again."""

    restartable = True
    replicas = 1  # of the topics that the driver makes
    ends_within = None  # seconds that SIGTERM may take, where that is promised

    def __init__(self, folder):
        self.folder = folder
        self.port = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        os.makedirs(folder, exist_ok=True)

    def start(self):
        """Launch it and wait until it is ready; RuntimeError when it ended or took too long."""
        self.launch()
        end = time.monotonic() + READY_SECONDS
        while not self.ready():
            if not self.running():
                raise RuntimeError(f"the broker ended at start:\n{self.log_tail()}")
            if time.monotonic() > end:
                raise RuntimeError(f"the broker did not answer in {READY_SECONDS} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def ready(self):
        return wire.answers(self.address)

    def log_tail(self, lines=20):
        try:
            with open(os.path.join(self.folder, "log"), errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return "(no log)"


class Firn(Broker):
    """`firn dev` on loopback."""

    name = "firn"
    ends_within = 5
    SETTINGS = {
        "group.initial.rebalance.delay.ms": "0",  # suites would spend most of their time waiting for it
    }

    def __init__(self, binary, folder, store, settings=()):
        super().__init__(folder)
        self.binary, self.store = binary, store
        self.http = f"127.0.0.1:{self.port + 1}"
        self.settings = [f"{k}={v}" for k, v in self.SETTINGS.items()] + list(settings)
        self.process = None

    def launch(self):
        """Start the process; returns the Unix time at which it began."""
        command = [self.binary, "dev", "--data", os.path.join(self.folder, "data"), "--kafka", self.address, "--http", self.http]
        if self.store.url:
            command += ["--object-store", self.store.url]
        for setting in self.settings:
            command += ["--set", setting]
        with open(os.path.join(self.folder, "log"), "a") as log:
            began = time.time()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self.store.environment)
        return began

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=1):
                return super().ready()
        except (urllib.error.URLError, OSError):
            return False

    def metric(self, name):
        """The value of a metric without labels; OSError when the broker is away."""
        return metric(self.http, name)

    def bucket_check(self, url):
        return bucket_check(self.binary, self.store, url)

    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def stop(self):
        """SIGTERM; returns the seconds it took to end."""
        began = time.monotonic()
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise RuntimeError("the broker did not end within 30 s of SIGTERM") from None
        return time.monotonic() - began


def bucket_check(binary, store, url):
    """`firn bucket check --create` of a bucket that is not there yet; a line that passes or fails."""
    done = subprocess.run([binary, "bucket", "check", url, "--create"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=os.environ | store.environment, timeout=60)
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode or "error:" in said or "reachable" not in said:
        return f"fail bucket check {url} --create: exit {done.returncode}: {said}"
    return f"pass bucket check {url} --create"


class Kafka(Broker):
    """Apache Kafka by its launcher in ../peers."""

    name = "kafka"

    def __init__(self, folder, profile="tiered-local"):
        super().__init__(folder)
        self.profile = profile

    def _launch(self, verb, *more):
        return subprocess.run([os.path.join(PEERS, "kafka"), verb, self.folder, str(self.port), *more], text=True,
                              stdout=subprocess.PIPE, timeout=900)

    def launch(self):
        """Start the process; returns the Unix time at which it began, formatting of the directory excluded."""
        if self._launch("start", self.profile).returncode:
            raise RuntimeError("Kafka could not be started")
        with open(os.path.join(self.folder, "started")) as f:
            return float(f.read())

    def running(self):
        return self._launch("status").returncode == 0

    @property
    def pid(self):
        return int(self._launch("status").stdout)

    def kill(self):
        self._launch("kill")

    def stop(self):
        began = time.monotonic()
        self._launch("stop")
        return time.monotonic() - began


class Running:
    """A broker that somebody else started: never killed, never restarted."""

    name = "running"
    restartable = False
    replicas = 1

    def __init__(self, address):
        self.address = address

    def start(self):
        if not wire.answers(self.address, 5):
            raise RuntimeError(f"nothing answers on {self.address}")

    def stop(self):
        return 0.0

    def log_tail(self, lines=20):
        return ""


class DirectoryStore:
    """The embedded default: Firn keeps the bucket in its data directory."""

    url, environment = None, {}

    def start(self):
        pass

    stop = start


class MinioStore:
    """MinIO on loopback by its launcher in ../peers."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_ports(2)
        self.url = "s3://firn/suites"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port + 1}", "AWS_ACCESS_KEY_ID": "firnfirn",
            "AWS_SECRET_ACCESS_KEY": "firnfirn", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true",
        }

    def _launch(self, verb):
        subprocess.run([os.path.join(PEERS, "minio"), verb, self.folder, str(self.port)], check=True, stdout=subprocess.DEVNULL, timeout=1800)

    def start(self):
        self._launch("start")

    def stop(self):
        self._launch("stop")


def release_binary():
    """The release binary of this workspace."""
    about = subprocess.run(["cargo", "metadata", "--format-version=1", "--no-deps"], cwd=HERE, check=True, capture_output=True, text=True)
    binary = os.path.join(json.loads(about.stdout)["target_directory"], "release", "firn")
    if not os.path.exists(binary):
        sys.exit("no release binary: run `cargo build --release` first, or give --binary")
    return binary


def free_ports(count):
    """The first of `count` adjacent ports on which nothing listens, below the range the kernel hands out."""
    start = 20_000 + os.getpid() * 7 % 10_000
    for base in range(start, 32_000, count):
        try:
            for port in range(base, base + count):
                with socket.create_server(("127.0.0.1", port)):
                    pass
        except OSError:
            continue
        if base not in _given:
            _given.update(range(base, base + count))
            return base
    raise RuntimeError("no free ports between 20000 and 32000")


_given = set()


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
