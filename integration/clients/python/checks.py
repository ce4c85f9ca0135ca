"""What confluent-kafka's users do besides streaming: topics, configs, offsets, groups, shapes of records."""

import time
import uuid

from confluent_kafka import (
    OFFSET_BEGINNING, OFFSET_END, Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)

from report import same, until

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


class Checks:
    def __init__(self, bootstrap, prefix):
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def topic(self, name, partitions=1, **config):
        """A fresh topic; double underscores in `config` stand for dots."""
        full = f"{self.prefix}-{name}-{uuid.uuid4().hex[:8]}"
        config = {k.replace("__", "."): str(v) for k, v in config.items()}
        self.admin.create_topics([NewTopic(full, partitions, 1, config=config)])[full].result(30)
        return full

    def send(self, topic, records, **config):
        """Records are dicts of Producer.produce; returns (partition, offset) of each."""
        settings = {k.replace("__", "."): v for k, v in config.items()}
        producer = Producer({"bootstrap.servers": self.bootstrap, "message.timeout.ms": 30000, "linger.ms": 20} | settings)
        placed = [None] * len(records)

        def note(index):
            def delivered(error, message):
                placed[index] = error or (message.partition(), message.offset())
            return delivered

        for index, record in enumerate(records):
            producer.produce(topic, on_delivery=note(index), **record)
            producer.poll(0)
        producer.flush(40)
        for place in placed:
            if not isinstance(place, tuple):
                raise KafkaException(place) if place else AssertionError("no delivery report")
        return placed

    def fetch(self, topic, count, partition=0, offset=OFFSET_BEGINNING, **config):
        """`count` messages of one partition by assignment."""
        settings = {k.replace("__", "."): v for k, v in config.items()}
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False,
                             "auto.offset.reset": "error", "check.crcs": True} | settings)
        consumer.assign([TopicPartition(topic, partition, offset)])
        found, end = [], time.monotonic() + 30
        try:
            while len(found) < count and time.monotonic() < end:
                for message in consumer.consume(count - len(found), 0.5):
                    if message.error():
                        raise KafkaException(message.error())
                    found.append(message)
        finally:
            consumer.close()
        same("records fetched", len(found), count)
        return found

    def config(self, topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self.admin.describe_configs([resource])[resource].result(30)

    def refused(self, code, run):
        try:
            run()
        except KafkaException as why:
            same("error", why.args[0].name(), KafkaError(code).name())
        else:
            raise AssertionError(f"was accepted, want {KafkaError(code).name()}")

    # ------------------------------------------------------------------ the checks

    def topics(self):
        topic = self.topic("topics", 3, segment__bytes=1048576, retention__ms=3600000)
        described = self.admin.describe_topics(TopicCollection([topic]))[topic].result(30)
        same("partitions", [p.id for p in described.partitions], [0, 1, 2])
        same("leaders", all(p.leader is not None and len(p.isr) == 1 for p in described.partitions), True)
        same("segment.bytes", self.config(topic)["segment.bytes"].value, "1048576")
        self.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
        until("5 partitions", 10, lambda: len(self.admin.list_topics(topic, timeout=10).topics[topic].partitions) == 5)
        self.admin.delete_topics([topic])[topic].result(30)
        until("topic gone", 10, lambda: topic not in self.admin.list_topics(timeout=10).topics)

    def topic_errors(self):
        topic = self.topic("again")
        create = lambda new: self.admin.create_topics([new])[new.topic].result(30)
        self.refused(KafkaError.TOPIC_ALREADY_EXISTS, lambda: create(NewTopic(topic, 1, 1)))
        self.refused(KafkaError.TOPIC_EXCEPTION, lambda: create(NewTopic("no/slash", 1, 1)))
        self.refused(KafkaError.INVALID_CONFIG, lambda: create(NewTopic(topic + "x", 1, 1, config={"retention.ms": "soon"})))
        self.refused(KafkaError.INVALID_CONFIG, lambda: create(NewTopic(topic + "x", 1, 1, config={"no.such.config": "1"})))
        self.refused(KafkaError.INVALID_REPLICATION_FACTOR, lambda: create(NewTopic(topic + "x", 1, 3)))
        self.refused(KafkaError.INVALID_PARTITIONS, lambda: create(NewTopic(topic + "x", 0, 1)))
        self.refused(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: self.admin.delete_topics([topic + "x"])[topic + "x"].result(30))
        self.refused(KafkaError.INVALID_PARTITIONS, lambda: self.admin.create_partitions([NewPartitions(topic, 1)])[topic].result(30))
        checked = NewTopic(topic + "y", 1, 1)
        self.admin.create_topics([checked], validate_only=True)[checked.topic].result(30)
        same("validate_only created", topic + "y" in self.admin.list_topics(timeout=10).topics, False)

    def configs(self):
        topic = self.topic("configs", 1, retention__ms=3600000)
        alter = lambda op, value: self.admin.incremental_alter_configs([ConfigResource(
            ResourceType.TOPIC, topic, incremental_configs=[ConfigEntry("retention.ms", value, incremental_operation=op)])])
        for future in alter(AlterConfigOpType.SET, "7200000").values():
            future.result(30)
        until("retention.ms set", 10, lambda: self.config(topic)["retention.ms"].value == "7200000")
        for future in alter(AlterConfigOpType.DELETE, None).values():
            future.result(30)
        until("retention.ms back", 10, lambda: self.config(topic)["retention.ms"].value == "604800000")
        same("is a default", self.config(topic)["retention.ms"].is_default, True)
        broker = next(iter(self.admin.list_topics(timeout=10).brokers))
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        described = self.admin.describe_configs([resource])[resource].result(30)
        for name in ("log.dirs", "num.partitions", "log.retention.hours", "message.max.bytes", "auto.create.topics.enable"):
            same(f"broker has {name}", name in described, True)

    def cluster(self):
        cluster = self.admin.describe_cluster().result(30)
        same("one node", len(cluster.nodes), 1)
        same("controller is a node", cluster.controller is not None and cluster.controller.id == cluster.nodes[0].id, True)
        same("cluster id", bool(cluster.cluster_id), True)

    def offsets(self):
        topic = self.topic("offsets", retention__ms=-1)  # its timestamps are long past
        stamps = [1_700_000_000_000 + i * 1000 for i in (0, 1, 5, 3, 4)]
        self.send(topic, [{"value": b"v%d" % i, "timestamp": t} for i, t in enumerate(stamps)])
        at = TopicPartition(topic, 0)

        def offset(spec):
            return self.admin.list_offsets({at: spec})[at].result(30)

        same("earliest", offset(OffsetSpec.earliest()).offset, 0)
        same("latest", offset(OffsetSpec.latest()).offset, 5)
        same("max timestamp", offset(OffsetSpec.max_timestamp()).offset, 2)
        same("by timestamp", offset(OffsetSpec.for_timestamp(stamps[1] + 1)).offset, 2)
        same("by timestamp, none", offset(OffsetSpec.for_timestamp(stamps[2] + 1)).offset, -1)
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused"})
        same("watermarks", consumer.get_watermark_offsets(at, timeout=10), (0, 5))
        found = consumer.offsets_for_times([TopicPartition(topic, 0, stamps[1])], timeout=10)
        same("offsets_for_times", found[0].offset, 1)
        consumer.close()

    def delete_records(self):
        topic = self.topic("trimmed")
        self.send(topic, [{"value": b"v%d" % i} for i in range(20)])
        deleted = self.admin.delete_records([TopicPartition(topic, 0, 12)])
        same("low watermark", [f.result(30).low_watermark for f in deleted.values()], [12])
        same("first left", self.fetch(topic, 1, offset=OFFSET_BEGINNING)[0].offset(), 12)
        self.refused(KafkaError.OFFSET_OUT_OF_RANGE,
                     lambda: [f.result(30) for f in self.admin.delete_records([TopicPartition(topic, 0, 21)]).values()])
        all_of_it = self.admin.delete_records([TopicPartition(topic, 0, OFFSET_END)])
        same("all deleted", [f.result(30).low_watermark for f in all_of_it.values()], [20])
        try:
            self.fetch(topic, 1, offset=3)
            raise AssertionError("offset 3 was served")
        except KafkaException as why:
            same("below the start", why.args[0].code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE), True)

    def codecs(self):
        values = [b'{"n":%d,"text":"%s"}' % (i, b"snow " * 40) for i in range(2000)]
        for codec in CODECS:
            topic = self.topic("codec-" + codec)
            self.send(topic, [{"value": v, "key": b"k"} for v in values], compression__type=codec)
            same(codec, [m.value() for m in self.fetch(topic, len(values))] == values, True)

    def topic_codecs(self):
        values = [b'{"n":%d,"text":"%s"}' % (i, b"ice " * 40) for i in range(500)]
        for forced in ["uncompressed", *CODECS[1:]]:
            topic = self.topic("forced-" + forced, compression__type=forced)
            self.send(topic, [{"value": v} for v in values], compression__type="gzip")
            self.send(topic, [{"value": v} for v in values], compression__type="none")
            same(forced, [m.value() for m in self.fetch(topic, 1000)] == values * 2, True)

    def shapes(self):
        topic = self.topic("shapes", max__message__bytes=2000000)
        wanted = [
            (None, None, []), (b"", b"", [("empty", b"")]), (b"k", None, [("null", None)]), (None, b"v", [("a", b"1"), ("a", b"2"), ("b", b"\0\xff")]),
            ("ключ".encode(), bytes(range(256)), [("ümlaut", "ß".encode())]), (b"big", b"x" * 900_000, []),
        ]
        self.send(topic, [{"key": k, "value": v, "headers": h} for k, v, h in wanted])
        for message, (key, value, headers) in zip(self.fetch(topic, len(wanted)), wanted):
            same("key", message.key(), key)
            same("value equal", message.value() == value, True)
            same("headers", message.headers() or [], headers)

    def too_large(self):
        topic = self.topic("small", max__message__bytes=10000)
        self.refused(KafkaError.MSG_SIZE_TOO_LARGE, lambda: self.send(topic, [{"value": b"x" * 20000}]))
        self.send(topic, [{"value": b"x" * 5000}])

    def timestamps(self):
        topic = self.topic("create-time", retention__ms=-1)
        self.send(topic, [{"value": b"v", "timestamp": 1_500_000_000_123}])
        same("create time", self.fetch(topic, 1)[0].timestamp(), (1, 1_500_000_000_123))
        topic, before = self.topic("append-time", retention__ms=-1, message__timestamp__type="LogAppendTime"), int(time.time() * 1000)
        self.send(topic, [{"value": b"v", "timestamp": 1_500_000_000_123}])
        kind, stamp = self.fetch(topic, 1)[0].timestamp()
        same("append time", (kind, before - 5000 <= stamp <= before + 60000), (2, True))

    def acknowledgements(self):
        topic = self.topic("acks")
        for acks in ("0", "1", "all"):
            self.send(topic, [{"value": b"acks " + acks.encode()}], acks=acks)
        same("acks", [m.value() for m in self.fetch(topic, 3)], [b"acks 0", b"acks 1", b"acks all"])

    def fetch_limits(self):
        topic = self.topic("limits")
        self.send(topic, [{"value": b"%06d" % i + b"y" * 3000} for i in range(300)], batch__num__messages=5)
        got = self.fetch(topic, 300, fetch__message__max__bytes=1000, fetch__max__bytes=20000, message__max__bytes=10000)
        same("in order", [m.value()[:6] for m in got], [b"%06d" % i for i in range(300)])

    def auto_creation(self):
        topic = f"{self.prefix}-auto-{uuid.uuid4().hex[:8]}"
        same("placed", self.send(topic, [{"value": b"first"}]), [(0, 0)])
        same("read", self.fetch(topic, 1)[0].value(), b"first")

    def member(self, group, topic, **config):
        settings = {k.replace("__", "."): v for k, v in config.items()}
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                             "enable.auto.commit": False, "session.timeout.ms": 10000, "heartbeat.interval.ms": 500} | settings)
        consumer.subscribe([topic])
        return consumer

    def group_sharing(self, **config):
        topic, group = self.topic("shared", 4), f"{self.prefix}-sharing-{uuid.uuid4().hex[:8]}"
        for p in range(4):
            self.send(topic, [{"value": b"%d-%d" % (p, i), "partition": p} for i in range(50)])
        first, second = self.member(group, topic, **config), self.member(group, topic, **config)
        seen = []

        def drain(consumer):
            seen.extend(m.value() for m in consumer.consume(200, 0.1) if not m.error())

        def owned():
            drain(first)
            drain(second)
            return [sorted(p.partition for p in c.assignment()) for c in (first, second)]

        until("two each", 30, lambda: (lambda o: sorted(o[0] + o[1]) == [0, 1, 2, 3] and len(o[0]) == 2)(owned()))
        described = self.admin.describe_consumer_groups([group])[group].result(30)
        same("state", described.state.name, "STABLE")
        same("members", len(described.members), 2)
        listed = self.admin.list_consumer_groups().result(30)
        same("listed", group in [g.group_id for g in listed.valid], True)
        first.close()

        def alone():
            drain(second)
            return len(second.assignment()) == 4

        until("the other takes all", 30, alone)
        until("all records", 30, lambda: alone() and len(set(seen)) == 200)
        second.close()

    def group_offsets(self):
        topic, group = self.topic("committed", 2), f"{self.prefix}-offsets-{uuid.uuid4().hex[:8]}"
        self.send(topic, [{"value": b"%d" % i, "partition": 0} for i in range(10)])
        consumer = self.member(group, topic)
        until("five", 30, lambda: (lambda m: m and not m.error() and m.offset() == 4)(consumer.poll(0.2)))
        consumer.commit(offsets=[TopicPartition(topic, 0, 5, metadata="half")], asynchronous=False)
        consumer.close()
        consumer = self.member(group, topic)
        same("committed", [(p.offset, p.metadata) for p in consumer.committed([TopicPartition(topic, 0)], 10)], [(5, "half")])
        message = until("resumed", 30, lambda: consumer.poll(0.2))
        same("resumed at", message.offset(), 5)
        consumer.close()
        wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 2)])
        self.admin.alter_consumer_group_offsets([wanted])[group].result(30)
        listed = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
        same("altered", [(p.partition, p.offset) for p in listed.topic_partitions], [(0, 2)])
        self.admin.delete_consumer_groups([group])[group].result(30)
        self.refused(KafkaError.GROUP_ID_NOT_FOUND, lambda: self.admin.delete_consumer_groups([group])[group].result(30))

    def static_member(self):
        topic, group = self.topic("static"), f"{self.prefix}-static-{uuid.uuid4().hex[:8]}"
        self.send(topic, [{"value": b"a"}, {"value": b"b"}])
        for value in (b"a", b"b"):  # the same instance comes back in place of itself
            consumer = self.member(group, topic, group__instance__id="one")
            message = until("record", 30, lambda: consumer.poll(0.2))
            same("value", message.value(), value)
            consumer.commit(message=message, asynchronous=False)
            consumer.close()


def run(report, bootstrap, prefix):
    checks = Checks(bootstrap, prefix)
    for check in (
        checks.cluster, checks.topics, checks.topic_errors, checks.configs, checks.offsets, checks.delete_records,
        checks.codecs, checks.topic_codecs, checks.shapes, checks.too_large, checks.timestamps, checks.acknowledgements,
        checks.fetch_limits, checks.auto_creation, checks.group_sharing, checks.group_offsets, checks.static_member,
    ):
        report.check(check.__name__.replace("_", "-"), check)
    report.check("group-sharing-cooperative", lambda: checks.group_sharing(partition__assignment__strategy="cooperative-sticky"))
