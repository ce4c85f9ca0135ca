package firn;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends a record to every partition in each interval until standard input ends, with nothing set but addresses and the partition of
 * each record, and prints {@code ack PARTITION OFFSET UNIX-NANOSECONDS VALUE} or {@code fail PARTITION WHY} as answers come.
 */
final class Pace {
    private Pace() {}

    static void run(String bootstrap, String topic, int partitions, double everyMs) throws InterruptedException {
        CountDownLatch ended = new CountDownLatch(1);
        Thread reader = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {}
            } catch (IOException ignored) {
                // It has ended, too.
            }
            ended.countDown();
        });
        reader.setDaemon(true);
        reader.start();
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap), serializer, serializer)) {
            long every = (long) (everyMs * 1e6);
            long due = System.nanoTime();
            for (long number = 0; !ended.await(due - System.nanoTime(), TimeUnit.NANOSECONDS); number++) {
                due = Math.max(due + every, System.nanoTime() - 1_000_000_000L);
                for (int partition = 0; partition < partitions; partition++) send(producer, topic, partition, number);
            }
        }
    }

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic, int partition, long number) {
        byte[] value = Long.toString(number).getBytes(StandardCharsets.UTF_8);
        producer.send(new ProducerRecord<>(topic, partition, null, value), (where, why) -> {
            if (why == null) {
                long now = ChronoUnit.NANOS.between(Instant.EPOCH, Instant.now());
                System.out.println("ack " + partition + " " + where.offset() + " " + now + " " + number);
            } else {
                System.out.println("fail " + partition + " " + why.toString().replaceAll("\\s+", " "));
            }
        });
    }
}
