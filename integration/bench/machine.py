"""What the kernel says about processes and the machine: CPU, memory, bytes written, and the noise beside a run."""

import os

TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """One process by its id. Its threads are counted in, its children are not."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_seconds(self):
        """User and system time so far."""
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory_mib(self):
        """Resident now, and the most it ever was."""
        with open(f"/proc/{self.pid}/status") as f:
            fields = dict(line.split(":", 1) for line in f)
        return tuple(int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))

    def written_bytes(self):
        """Bytes it caused to be written to storage; 0 where the kernel does not tell."""
        try:
            with open(f"/proc/{self.pid}/io") as f:
                return int(dict(line.split(":") for line in f)["write_bytes"])
        except (OSError, KeyError):
            return 0


class Processes:
    """Several processes as one."""

    def __init__(self, pids):
        self.each = [Process(pid) for pid in pids]

    def cpu_seconds(self):
        return sum(process.cpu_seconds() for process in self.each)

    def memory_mib(self):
        return tuple(map(sum, zip(*(process.memory_mib() for process in self.each))))

    def written_bytes(self):
        return sum(process.written_bytes() for process in self.each)


def _cpu_line():
    with open("/proc/stat") as f:
        return [int(n) / TICK for n in f.readline().split()[1:9]]


class Watch:
    """CPU of a broker and of everything else over a `with` block."""

    def __init__(self, broker):
        self.broker = broker

    def __enter__(self):
        self._cpu, self._written, self._machine = self.broker.cpu_seconds(), self.broker.written_bytes(), _cpu_line()
        return self

    def __exit__(self, *_):
        self.cpu = self.broker.cpu_seconds() - self._cpu
        self.written = self.broker.written_bytes() - self._written
        user, nice, system, _idle, _iowait, irq, softirq, steal = (b - a for a, b in zip(self._machine, _cpu_line()))
        self.busy, self.steal = user + nice + system + irq + softirq, steal

    def figures(self, mib, client_cpu):
        """CPU-seconds per GiB of records, and what neither broker nor client used."""
        out = {"other_cpu_s": round(max(0.0, self.busy - self.cpu - client_cpu), 2), "steal_s": round(self.steal, 2)}
        if mib:
            out["cpu_s_per_gib"] = round(self.cpu * 1024 / mib, 3)
            out["written_per_byte"] = round(self.written / (mib * 1048576), 3)
        return out


def describe():
    """One line about the machine, for the head of a table."""
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) / 1048576
    model = "unknown CPU"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {os.uname().release}"
