package firn;

import static firn.Report.same;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;

/** Records of all shapes, under each codec, acknowledgement and timestamp type. */
final class RecordChecks {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    private final Clients clients;
    private final String prefix;

    RecordChecks(Clients clients, String prefix) {
        this.clients = clients;
        this.prefix = prefix;
    }

    void run(Report report) {
        report.check("codecs", this::codecs);
        report.check("topic-codecs", this::topicCodecs);
        report.check("shapes", this::shapes);
        report.check("too-large", this::tooLarge);
        report.check("timestamps", this::timestamps);
        report.check("acknowledgements", this::acknowledgements);
        report.check("fetch-limits", this::fetchLimits);
        report.check("auto-creation", this::autoCreation);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static List<ProducerRecord<byte[], byte[]>> snow(String topic, int count) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) records.add(new ProducerRecord<>(topic, 0, null, bytes(i + " snow".repeat(40))));
        return records;
    }

    private static void sameValues(String what, List<ConsumerRecord<byte[], byte[]>> got, List<ProducerRecord<byte[], byte[]>> want) {
        for (int i = 0; i < want.size(); i++)
            same(what + " " + i, Arrays.equals(got.get(i).value(), want.get(i).value()), true);
    }

    private void codecs() throws Exception {
        for (String codec : CODECS) {
            var records = snow(clients.topic(prefix + "-codec-" + codec, 1, Map.of()), 2000);
            clients.send(records, Map.of("compression.type", codec, "linger.ms", 20));
            sameValues(codec, clients.fetch(records.get(0).topic(), records.size(), Map.of()), records);
        }
    }

    private void topicCodecs() throws Exception {
        for (String codec : CODECS) {
            String forced = codec.equals("none") ? "uncompressed" : codec;
            var records = snow(clients.topic(prefix + "-forced-" + codec, 1, Map.of("compression.type", forced)), 500);
            clients.send(records, Map.of("compression.type", "gzip", "linger.ms", 20));
            clients.send(records, Map.of("compression.type", "none", "linger.ms", 20));
            var twice = new ArrayList<>(records);
            twice.addAll(records);
            sameValues(codec, clients.fetch(records.get(0).topic(), twice.size(), Map.of()), twice);
        }
    }

    private void shapes() throws Exception {
        String topic = clients.topic(prefix + "-shapes", 1, Map.of("max.message.bytes", "2000000"));
        byte[] big = new byte[900_000];
        Arrays.fill(big, (byte) 'x');
        var records = List.of(
                new ProducerRecord<byte[], byte[]>(topic, 0, null, null),
                new ProducerRecord<>(topic, 0, new byte[0], new byte[0]),
                new ProducerRecord<byte[], byte[]>(topic, 0, bytes("k"), null),
                new ProducerRecord<byte[], byte[]>(topic, 0, null, bytes("v")),
                new ProducerRecord<>(topic, 0, bytes("big"), big));
        records.get(1).headers().add("null", null).add("empty", new byte[0]);
        records.get(3).headers().add("a", bytes("1")).add("a", bytes("2")).add("ümlaut", bytes("ß"));
        clients.send(records, Map.of("linger.ms", 20));
        var got = clients.fetch(topic, records.size(), Map.of());
        for (int i = 0; i < got.size(); i++) {
            same("key " + i, Arrays.equals(got.get(i).key(), records.get(i).key()), true);
            same("value " + i, Arrays.equals(got.get(i).value(), records.get(i).value()), true);
            same("headers " + i, got.get(i).headers(), records.get(i).headers());
        }
        same("null header", got.get(1).headers().lastHeader("null"), new RecordHeader("null", null));
    }

    private void tooLarge() throws Exception {
        String topic = clients.topic(prefix + "-small", 1, Map.of("max.message.bytes", "10000"));
        try {
            clients.send(List.of(new ProducerRecord<>(topic, 0, null, new byte[20_000])), Map.of());
            throw new AssertionError("was accepted");
        } catch (java.util.concurrent.ExecutionException why) {
            same("refused", why.getCause().getClass(), RecordTooLargeException.class);
        }
        // Above the limit as a batch, below it as single records: the client splits and sends again.
        List<ProducerRecord<byte[], byte[]>> many = new ArrayList<>();
        for (int i = 0; i < 12; i++) many.add(new ProducerRecord<>(topic, 0, null, bytes(i + "y".repeat(3000))));
        clients.send(many, Map.of("linger.ms", 100, "batch.size", 60_000));
        sameValues("split", clients.fetch(topic, many.size(), Map.of()), many);
    }

    private void timestamps() throws Exception {
        String topic = clients.topic(prefix + "-create-time", 1, Map.of("retention.ms", "-1"));
        clients.send(List.of(new ProducerRecord<>(topic, 0, 1_500_000_000_123L, null, bytes("v"))), Map.of());
        var created = clients.fetch(topic, 1, Map.of()).get(0);
        same("create time", List.of(created.timestampType(), created.timestamp()), List.of(TimestampType.CREATE_TIME, 1_500_000_000_123L));
        topic = clients.topic(prefix + "-append-time", 1, Map.of("message.timestamp.type", "LogAppendTime", "retention.ms", "-1"));
        var placed = clients.send(List.of(new ProducerRecord<>(topic, 0, 1_500_000_000_123L, null, bytes("v"))), Map.of()).get(0);
        var appended = clients.fetch(topic, 1, Map.of()).get(0);
        same("type", appended.timestampType(), TimestampType.LOG_APPEND_TIME);
        same("said on produce", placed.timestamp(), appended.timestamp());
        same("is now", Math.abs(System.currentTimeMillis() - appended.timestamp()) < 60_000, true);
    }

    private void acknowledgements() throws Exception {
        String topic = clients.topic(prefix + "-acks", 1, Map.of());
        for (String acks : List.of("0", "1", "all"))
            clients.send(List.of(new ProducerRecord<>(topic, 0, null, bytes(acks))), Map.of("acks", acks, "enable.idempotence", false));
        same("values", clients.fetch(topic, 3, Map.of()).stream().map(r -> new String(r.value(), StandardCharsets.UTF_8)).toList(),
                List.of("0", "1", "all"));
    }

    private void fetchLimits() throws Exception {
        var records = snow(clients.topic(prefix + "-limits", 1, Map.of()), 1000);
        clients.send(records, Map.of("batch.size", 2000));
        sameValues("tiny partition limit",
                clients.fetch(records.get(0).topic(), records.size(), Map.of("max.partition.fetch.bytes", 100, "fetch.max.bytes", 5000)), records);
    }

    private void autoCreation() throws Exception {
        String topic = prefix + "-auto-" + java.util.UUID.randomUUID();
        same("offset", clients.send(List.of(new ProducerRecord<>(topic, bytes("first"))), Map.of()).get(0).offset(), 0L);
    }
}
