"""The little of Kafka's protocol that the driver speaks itself: whether a broker answers, offsets, topics.

Written out by hand, so that what the driver waits for does not depend on a client under test. Addresses may be several, separated by
commas: whoever must be asked is found.
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
    address = _leader(address, topic, partition)
    name = topic.encode()
    body = struct.pack(">ib", -1, 0) + b"\x02" + _compact(name) + b"\x02" + struct.pack(">iiq", partition, -1, which) + b"\0\0\0"
    answer = _call(address, 2, 9, body, timeout, flexible=True)
    at = 4 + 1 + len(_compact(name)) + 1  # throttle time, array of one topic, its name, array of one partition
    _, error, _, offset = struct.unpack_from(">ihqq", answer, at)
    if error:
        raise OSError(f"ListOffsets of {topic}-{partition} at {which}: error {error}")
    return offset


def stored_codec(address, topic, partition=0, timeout=5.0):
    """The codec of the first batch that is stored, as Fetch brings it."""
    return stored_codecs(address, topic, partition, timeout)[0]


def stored_codecs(address, topic, partition=0, timeout=5.0):
    """The codecs of the first batches that are stored, as Fetch (version 4) brings them: their bytes are not touched on the way."""
    address = _leader(address, topic, partition)
    body = struct.pack(">iiiib", -1, int(timeout * 500), 1, 1 << 20, 0) + struct.pack(">i", 1) + _string(topic) + struct.pack(">iiqi", 1, partition, 0, 1 << 20)
    answer = Reader(_call(address, 1, 4, body, timeout, flexible=False))
    answer.take(">ii")  # throttle time, one topic
    answer.string()
    _, _, error, *_ = answer.take(">iihqq")  # one partition, its index, error, high watermark, last stable offset
    if error:
        raise OSError(f"Fetch of {topic}-{partition}: error {error}")
    answer.skip(16 * max(answer.take(">i"), 0))  # aborted transactions
    end, codecs = answer.take(">i") + answer.at, []
    while answer.at + 61 <= end:
        _, length, *_, attributes = answer.take(">qiibih")  # base offset, length, leader epoch, magic, crc, attributes
        codecs.append(("none", "gzip", "snappy", "lz4", "zstd")[attributes & 7])
        answer.skip(length - 11)  # what of the length has not been taken yet
    if not codecs:
        raise OSError(f"Fetch of {topic}-{partition}: nothing is stored")
    return codecs


def create_topic(address, topic, partitions, configs, timeout=30.0, replicas=1):
    """CreateTopics of one topic; OSError when it is refused."""
    create_topics(address, [topic], partitions, configs, timeout, replicas)


def create_topics(address, topics, partitions, configs, timeout=60.0, replicas=1):
    """One CreateTopics request (version 4); OSError when any of the topics is refused."""
    pairs = b"".join(_string(name) + _string(value) for name, value in configs.items())
    each = struct.pack(">ihi", partitions, replicas, 0) + struct.pack(">i", len(configs)) + pairs
    body = struct.pack(">i", len(topics)) + b"".join(_string(topic) + each for topic in topics)
    answer = Reader(_call(address, 19, 4, body + struct.pack(">i?", int(timeout * 1000), False), timeout, flexible=False))
    answer.take(">i")  # throttle time
    for _ in range(answer.take(">i")):
        topic, error, why = answer.string(), answer.take(">h"), answer.string()
        if error:
            raise OSError(f"CreateTopics of {topic}: error {error}: {why}")


def delete_topic(address, topic, timeout=30.0):
    """DeleteTopics (version 3) of one topic; OSError when it is refused."""
    body = struct.pack(">i", 1) + _string(topic) + struct.pack(">i", int(timeout * 1000))
    answer = Reader(_call(address, 20, 3, body, timeout, flexible=False))
    answer.take(">i")  # throttle time
    answer.take(">i")  # one topic
    topic, error = answer.string(), answer.take(">h")
    if error:
        raise OSError(f"DeleteTopics of {topic}: error {error}")


def leaders(address, topics, timeout=10.0):
    """By Metadata (version 4): {topic: [leader of each partition, -1 for none]} of those that exist."""
    return _metadata(address, topics, timeout)[1]


def _metadata(address, topics, timeout):
    """{broker: address}, and what `leaders` answers."""
    body = struct.pack(">i", len(topics)) + b"".join(map(_string, topics)) + struct.pack(">?", False)
    answer = Reader(_call(address, 3, 4, body, timeout, flexible=False))
    answer.take(">i")  # throttle time
    listens, found = {}, {}
    for _ in range(answer.take(">i")):
        node, host, port, _rack = answer.take(">i"), answer.string(), answer.take(">i"), answer.string()
        listens[node] = f"{host}:{port}"
    answer.string(), answer.take(">i")  # cluster id, controller
    for _ in range(answer.take(">i")):
        error, topic = answer.take(">h"), answer.string()
        answer.take(">?")  # internal
        partitions = {}
        for _ in range(answer.take(">i")):
            _, index, leader = answer.take(">hii")
            partitions[index] = leader
            for _ in range(2):  # replicas, in-sync replicas
                answer.skip(4 * answer.take(">i"))
        if not error:
            found[topic] = [partitions[index] for index in sorted(partitions)]
    return listens, found


def _leader(address, topic, partition):
    """Whom to ask about a partition: of several, its leader."""
    if "," not in address:
        return address
    listens, found = _metadata(address, [topic], 5.0)
    leader = found.get(topic, [-1] * (partition + 1))[partition]
    if leader not in listens:
        raise OSError(f"{topic}-{partition} has no leader")
    return listens[leader]


class Reader:
    """Takes the fields of a not flexible answer one after the other."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, layout):
        try:
            values = struct.unpack_from(layout, self.body, self.at)
        except struct.error as why:
            raise OSError(f"an answer ends early: {why}") from None
        self.at += struct.calcsize(layout)
        return values[0] if len(values) == 1 else values

    def skip(self, size):
        self.at += size

    def string(self):
        size = self.take(">h")
        if size < 0:
            return None
        self.skip(size)
        return self.body[self.at - size : self.at].decode()


def _string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _compact(data):
    if len(data) > 126:
        raise ValueError("name too long for a one-byte length")
    return bytes([len(data) + 1]) + data


def _call(address, key, version, body, timeout, flexible):
    """Asks one broker; of several addresses, the first that can be connected to."""
    *others, last = address.split(",")
    for one in others:
        try:
            return _ask(one, key, version, body, timeout, flexible)
        except ConnectionRefusedError:
            pass
    return _ask(last, key, version, body, timeout, flexible)


def _ask(address, key, version, body, timeout, flexible):
    host, port = address.rsplit(":", 1)
    client = b"firn-suites"
    header = struct.pack(">hhih", key, version, 1, len(client)) + client + (b"\0" if flexible else b"")
    with socket.create_connection((host, int(port)), timeout) as connection:
        connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        stream = connection.makefile("rb")
        head = stream.read(4)
        size = struct.unpack(">i", head)[0] if len(head) == 4 else -1
        answer = stream.read(max(size, 0))
        if len(answer) != size:
            raise OSError(f"connection closed instead of an answer to request {key} version {version}")
        return answer[4 + (1 if flexible else 0) :]
