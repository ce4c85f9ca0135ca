"""The suites: how each is installed with its own package manager, and the command that runs it.

What is installed lies under the cache folder, one folder a suite, and is installed anew when the suite's
files change. Nothing is written into the source tree.
"""

import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def cache():
    """The folder for all that is downloaded or built for tests; it may be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.environ.get("FIRN_TEST_CACHE") or os.path.join(home, "firn-tests")
    os.makedirs(folder, exist_ok=True)
    return folder


class Suite:
    """One stock client. `codec`: what it compresses with where that is tried. `sees_tier`: it can ask for the tier's offsets."""

    def __init__(self, name, client, install, codec, sees_tier=False):
        self.name, self.client, self._install, self.codec, self.sees_tier = name, client, install, codec, sees_tier
        self.command = None

    def install(self, cache):
        """Make `command` runnable; RuntimeError that says what is missing."""
        folder = os.path.join(cache, f"suite-{self.name}-{_digest(os.path.join(HERE, self.name))}")
        done = os.path.join(folder, "installed")
        os.makedirs(folder, exist_ok=True)
        self.command = self._install(os.path.join(HERE, self.name), folder, os.path.exists(done))
        open(done, "w").close()


def _digest(source):
    digest = hashlib.sha256()
    for root, folders, files in os.walk(source):
        folders[:] = sorted(d for d in folders if not d.startswith((".", "__")) and d not in ("node_modules", "target"))
        for name in sorted(files):
            with open(os.path.join(root, name), "rb") as f:
                digest.update(name.encode() + b"\0" + f.read())
    return digest.hexdigest()[:12]


def _need(command, package):
    if not shutil.which(command):
        _install(package, command)
    if not shutil.which(command):
        raise RuntimeError(f"{command} is missing: install it (Debian: {package})")


def _install(package, purpose):
    """By apt-get where we may; where we may not, say what is missing."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(f"{purpose} is missing: install it (Debian: {package})")
    print(f"installing {package} (for {purpose})", flush=True)
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": sys.stderr}
    subprocess.run(["apt-get", "-qq", "update"], check=False, **quiet)
    subprocess.run(["apt-get", "-qq", "install", "-y", "--no-install-recommends", package], check=False, **quiet)


def _run(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")


def _java(source, folder, done):
    _need("java", "default-jre-headless")
    if not done:
        _need("javac", "default-jdk-headless")
        _need("mvn", "maven")
        _run("mvn", "-q", "-B", "-f", os.path.join(source, "pom.xml"), f"-Dbuild={folder}", "compile")
    return ["java", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{folder}/classes:{folder}/jars/*", "firn.Suite"]


def _python(source, folder, done):
    python = os.path.join(folder, "venv", "bin", "python")
    if not done:
        try:
            _run(sys.executable, "-m", "venv", "--clear", os.path.join(folder, "venv"))
        except RuntimeError:  # Debian ships Python without it
            _install("python3-venv", "python3 -m venv")
            _run(sys.executable, "-m", "venv", "--clear", os.path.join(folder, "venv"))
        _run(python, "-m", "pip", "install", "-q", "-r", os.path.join(source, "requirements.txt"))
    return [python, os.path.join(source, "suite.py")]


def _kcat(source, _folder, _done):
    _need("kcat", "kcat")
    return [sys.executable, os.path.join(source, "suite.py")]


def _go(source, folder, done):
    binary = os.path.join(folder, "suite")
    if not done:
        # One that is new enough: not every distribution has it.
        setup = os.path.join(HERE, "..", "peers", "setup.bash")
        # Each a statement of its own: in a list of `&&` a failure within `need_go` would not end it.
        _run("bash", "-euo", "pipefail", "-c", '. "$0"; need_go; cd "$1"; go build -o "$2" .', setup, source, binary)
    return [binary]


def _node(source, folder, done):
    _need("node", "nodejs")
    if not done:
        _need("npm", "npm")
        for name in os.listdir(source):
            if name.endswith((".js", ".json")):
                shutil.copy(os.path.join(source, name), folder)
        _run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", cwd=folder)
    return ["node", os.path.join(folder, "suite.js")]


ALL = [
    Suite("java", "Apache Kafka's Java clients 4.3.1", _java, "zstd", sees_tier=True),
    Suite("python", "confluent-kafka for Python 2.16.1", _python, "lz4"),
    Suite("kcat", "Debian's kcat (librdkafka 2.0.2 on Debian 12)", _kcat, "gzip"),
    Suite("go", "franz-go 1.22.2", _go, "snappy", sees_tier=True),
    Suite("node", "kafkajs 2.2.4", _node, "none"),
]
