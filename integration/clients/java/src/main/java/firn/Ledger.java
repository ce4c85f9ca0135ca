package firn;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** Checks that each row of a rows file arrives once, unchanged, and in rising order within its partition. */
final class Ledger {
    private static final byte[] START = "{\"row\":".getBytes(StandardCharsets.UTF_8);
    private static final byte[] KEY = "\"tailnum\":".getBytes(StandardCharsets.UTF_8);

    final List<byte[]> lines;
    private final BitSet seen = new BitSet();
    private final Map<Integer, Integer> last = new HashMap<>();

    Ledger(String rows) throws IOException {
        try (var all = Files.lines(Path.of(rows))) {
            lines = all.map(line -> line.getBytes(StandardCharsets.UTF_8)).collect(Collectors.toList());
        }
    }

    /** The record key of a row: its tail number, or null. */
    static byte[] key(byte[] line) {
        int at = 0;
        while (!startsWith(line, at, KEY)) at++;
        at += KEY.length;
        if (line[at] != '"') return null;
        int end = at + 1;
        while (line[end] != '"') end++;
        return Arrays.copyOfRange(line, at + 1, end);
    }

    private static boolean startsWith(byte[] text, int at, byte[] what) {
        return Arrays.equals(text, at, at + what.length, what, 0, what.length);
    }

    void take(ConsumerRecord<byte[], byte[]> record) {
        byte[] value = record.value();
        String where = "partition " + record.partition() + " offset " + record.offset() + ": ";
        if (value == null || value.length < START.length || !startsWith(value, 0, START)) throw new AssertionError(where + "not a row");
        int number = 0;
        for (int at = START.length; at < value.length && value[at] != ','; at++) number = number * 10 + value[at] - '0';
        if (number < 0 || number >= lines.size() || !Arrays.equals(lines.get(number), value))
            throw new AssertionError(where + "row " + number + " is not what was produced");
        if (!Arrays.equals(key(value), record.key())) throw new AssertionError(where + "row " + number + " has another key");
        var source = record.headers().lastHeader("source");
        if (source == null || source.value().length == 0) throw new AssertionError(where + "row " + number + " lost its header");
        if (seen.get(number)) throw new AssertionError(where + "row " + number + " came twice");
        if (last.getOrDefault(record.partition(), -1) >= number)
            throw new AssertionError(where + "row " + number + " after row " + last.get(record.partition()));
        last.put(record.partition(), number);
        seen.set(number);
    }

    int count() {
        return seen.cardinality();
    }

    void whole() {
        if (count() != lines.size())
            throw new AssertionError(lines.size() - count() + " rows missing, the first is row " + seen.nextClearBit(0));
    }

    /** Takes over what an earlier run of the same group has seen. */
    void resume(String path) throws IOException {
        if (Files.exists(Path.of(path))) for (String n : Files.readAllLines(Path.of(path))) seen.set(Integer.parseInt(n));
    }

    void save(String path) throws IOException {
        Files.write(Path.of(path), seen.stream().mapToObj(Integer::toString).toList());
    }
}
