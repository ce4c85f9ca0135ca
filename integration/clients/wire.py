"""The little of Kafka's protocol that the driver speaks itself: whether a broker answers, offsets, topics.

Written out by hand, so that what the driver waits for does not depend on a client under test.
"""

import socket
import struct

LATEST, EARLIEST, EARLIEST_LOCAL, LATEST_TIERED = -1, -2, -4, -5


def answers(address, timeout=1.0):
    """True when Metadata (version 4, no topics) comes back with at least one broker."""
    try:
        body = _call(address, 3, 4, struct.pack(">i?", 0, False), timeout, flexible=False)
        return struct.unpack_from(">i", body, 4)[0] > 0
    except (OSError, struct.error):
        return False


def list_offset(address, topic, partition, which, timeout=5.0):
    """One offset by ListOffsets (version 9 where LATEST_TIERED needs it); OSError when the broker is away or refuses."""
    name = topic.encode()
    body = struct.pack(">ib", -1, 0) + b"\x02" + _compact(name) + b"\x02" + struct.pack(">iiq", partition, -1, which) + b"\0\0\0"
    answer = _call(address, 2, 9, body, timeout, flexible=True)
    at = 4 + 1 + len(_compact(name)) + 1  # throttle time, array of one topic, its name, array of one partition
    _, error, _, offset = struct.unpack_from(">ihqq", answer, at)
    if error:
        raise OSError(f"ListOffsets of {topic}-{partition} at {which}: error {error}")
    return offset


def create_topic(address, topic, partitions, configs, timeout=30.0):
    """CreateTopics (version 4) of one topic with one replica; OSError when it is refused."""
    pairs = b"".join(_string(name) + _string(value) for name, value in configs.items())
    body = struct.pack(">i", 1) + _string(topic) + struct.pack(">ihi", partitions, 1, 0) + struct.pack(">i", len(configs)) + pairs
    answer = _call(address, 19, 4, body + struct.pack(">i?", int(timeout * 1000), False), timeout, flexible=False)
    at = 4 + 4 + 2 + len(topic.encode())  # throttle time, array of one topic, its name
    (error,) = struct.unpack_from(">h", answer, at)
    if error:
        raise OSError(f"CreateTopics of {topic}: error {error}")


def _string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _compact(data):
    if len(data) > 126:
        raise ValueError("name too long for a one-byte length")
    return bytes([len(data) + 1]) + data


def _call(address, key, version, body, timeout, flexible):
    host, port = address.rsplit(":", 1)
    client = b"firn-suites"
    header = struct.pack(">hhih", key, version, 1, len(client)) + client + (b"\0" if flexible else b"")
    with socket.create_connection((host, int(port)), timeout) as connection:
        connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        stream = connection.makefile("rb")
        size = struct.unpack(">i", stream.read(4))[0]
        answer = stream.read(size)
        if len(answer) != size:
            raise OSError("connection closed within an answer")
        return answer[4 + (1 if flexible else 0) :]
