package firn;

import static org.apache.kafka.clients.consumer.ConsumerConfig.MAX_POLL_RECORDS_CONFIG;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** The suite of Apache Kafka's Java clients. See ../README.md for the commands. */
public final class Suite {
    private static final long IDLE_NANOS = 60_000_000_000L;

    private final Map<String, String> options = new HashMap<>();
    private final List<String> topics = new ArrayList<>();
    private final Clients clients;

    private Suite(String[] args) {
        for (int i = 1; i + 1 < args.length; i += 2) {
            if (args[i].equals("--topic")) topics.add(args[i + 1]);
            else options.put(args[i], args[i + 1]);
        }
        clients = new Clients(options.get("--bootstrap"));
    }

    public static void main(String[] args) throws InterruptedException {
        Suite suite = new Suite(args);
        Report report = new Report();
        String mode = suite.options.getOrDefault("--mode", "assign");
        switch (args[0]) {
            case "checks" -> {
                String prefix = suite.options.getOrDefault("--prefix", "java");
                new AdminChecks(suite.clients, prefix).run(report);
                new RecordChecks(suite.clients, prefix).run(report);
                new GroupChecks(suite.clients, prefix).run(report);
            }
            case "produce" -> suite.topics.forEach(topic -> report.check("produce " + topic, () -> suite.produce(topic)));
            case "consume" -> suite.topics.forEach(
                    topic -> report.check("consume " + topic + " by " + mode, () -> suite.consume(topic, mode.equals("group"))));
            case "tier" -> suite.topics.forEach(
                    topic -> report.check("tier offsets " + topic, () -> new AdminChecks(suite.clients, "").tierOffsets(topic)));
            case "pace" -> {
                int partitions = Integer.parseInt(suite.options.get("--partitions"));
                double everyMs = Double.parseDouble(suite.options.get("--every").replace("ms", ""));
                Pace.run(suite.options.get("--bootstrap"), suite.topics.get(0), partitions, everyMs);
            }
            default -> throw new IllegalArgumentException(args[0]);
        }
        System.exit(report.code());
    }

    /** Every row in order with an idempotent producer; prints {@code progress N} as records are acknowledged. */
    private void produce(String topic) throws Exception {
        List<byte[]> lines = new Ledger(options.get("--rows")).lines;
        AtomicInteger acknowledged = new AtomicInteger();
        AtomicReference<Exception> failure = new AtomicReference<>();
        Map<String, Object> config = Map.of("linger.ms", 5, "compression.type", options.getOrDefault("--codec", "none"),
                "buffer.memory", 4 << 20, "reconnect.backoff.max.ms", 500);
        try (KafkaProducer<byte[], byte[]> producer = clients.producer(config)) {
            for (byte[] line : lines) {
                var record = new ProducerRecord<>(topic, Ledger.key(line), line);
                record.headers().add("source", "java".getBytes(StandardCharsets.UTF_8));
                producer.send(record, (where, why) -> {
                    if (why != null) failure.compareAndSet(null, why);
                    else if (acknowledged.incrementAndGet() % 2000 == 0) System.out.println("progress " + acknowledged.get());
                });
            }
        }
        if (failure.get() != null) throw failure.get();
        Report.same("acknowledged", acknowledged.get(), lines.size());
    }

    /** One topic from its beginning to its end, by assignment or in a group, against the rows file. */
    private void consume(String topic, boolean inGroup) throws Exception {
        Ledger ledger = new Ledger(options.get("--rows"));
        String seen = options.get("--seen");
        int stopAfter = Integer.parseInt(options.getOrDefault("--stop-after", "0"));
        if (seen != null) ledger.resume(seen);
        Map<String, Object> config = new HashMap<>(Map.of("check.crcs", true, "session.timeout.ms", 10_000));
        if (inGroup) config.put("group.id", options.get("--group"));
        if (stopAfter > 0) config.put(MAX_POLL_RECORDS_CONFIG, 100);
        try (KafkaConsumer<byte[], byte[]> consumer = clients.consumer(config)) {
            List<TopicPartition> all =
                    consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            if (inGroup) {
                consumer.subscribe(List.of(topic));
            } else {
                consumer.assign(all);
                consumer.seekToBeginning(all);
            }
            read(consumer, ledger, ends, stopAfter);
            if (inGroup) consumer.commitSync();
        }
        if (seen != null) ledger.save(seen);
        if (stopAfter == 0) ledger.whole();
    }

    private static void read(KafkaConsumer<byte[], byte[]> consumer, Ledger ledger, Map<TopicPartition, Long> ends, int stopAfter) {
        long active = System.nanoTime();
        while (System.nanoTime() - active < IDLE_NANOS) {
            var batch = consumer.poll(Duration.ofMillis(200));
            if (!batch.isEmpty()) active = System.nanoTime();
            batch.forEach(ledger::take);
            if (stopAfter > 0 && ledger.count() >= stopAfter) return;
            if (consumer.assignment().size() == ends.size()
                    && ends.entrySet().stream().allMatch(end -> consumer.position(end.getKey()) >= end.getValue())) return;
        }
        throw new AssertionError("no record for a minute after " + ledger.count() + " rows");
    }
}
