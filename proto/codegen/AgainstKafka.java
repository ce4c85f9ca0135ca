import java.lang.reflect.Constructor;
import java.nio.ByteBuffer;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.common.protocol.*;

/** Reads messages with Kafka's own classes, writes them again and compares the bytes. Ends with 1 if any differs. */
public class AgainstKafka {
    private static final List<String> PACKAGES = List.of(
        "org.apache.kafka.common.message.",
        "org.apache.kafka.coordinator.group.generated.",
        "org.apache.kafka.coordinator.transaction.generated.",
        "org.apache.kafka.coordinator.share.generated.");

    public static void main(String[] args) throws Exception {
        Set<String> names = new TreeSet<>();
        Map<String, Integer> wrong = new TreeMap<>();
        int right = 0;
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            String[] words = line.split(" ", -1);
            String what = words[0] + " version " + words[1];
            short version = Short.parseShort(words[1]);
            byte[] bytes = HexFormat.of().parseHex(words[2]);
            names.add(words[0]);
            try {
                if (Arrays.equals(bytes, again(words[0], version, bytes))) right++;
                else wrong.merge(what + ": other bytes", 1, Integer::sum);
            } catch (ReflectiveOperationException e) {
                wrong.merge(what + ": " + (e.getCause() == null ? e : e.getCause()), 1, Integer::sum);
            }
        }
        wrong.forEach((what, count) -> System.out.println(what + " (" + count + ")"));
        System.out.println(right + " messages of " + names.size() + " kinds agree");
        System.exit(wrong.isEmpty() && right > 0 ? 0 : 1);
    }

    private static byte[] again(String name, short version, byte[] bytes) throws ReflectiveOperationException {
        Constructor<?> constructor = find(name).getConstructor(org.apache.kafka.common.protocol.Readable.class, short.class);
        ApiMessage message = (ApiMessage) constructor.newInstance(new ByteBufferAccessor(ByteBuffer.wrap(bytes)), version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer out = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(out), cache, version);
        return out.array();
    }

    private static Class<?> find(String name) throws ClassNotFoundException {
        String suffix = name.endsWith("Request") || name.endsWith("Response") ? "Data" : "";
        for (String in : PACKAGES) {
            try {
                return Class.forName(in + name + suffix);
            } catch (ClassNotFoundException e) {
                // It lies in one of the others.
            }
        }
        throw new ClassNotFoundException(name);
    }
}
