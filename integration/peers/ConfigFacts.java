import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.server.config.ConfigSynonym;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.config.ServerTopicConfigSynonyms;
import org.apache.kafka.storage.internals.log.LogConfig;

/**
 * Prints one line for each topic and broker config: names, types, defaults, bounds, importance, how it can be altered,
 * whether it is documented, synonyms with their factor, and which of some sample values it takes. No texts.
 */
public class ConfigFacts {
    static final String[] SAMPLES = {
        "", "x", "true", "TRUE", "yes", "0", "1", "-1", "-2", "-3", "+7", " 9 ", "2147483647", "2147483648", "32768",
        "9223372036854775807", "9223372036854775808", "0.5", "1.5", "1e-1", "none", "uncompressed", "LZ4", "lz4", "producer",
        "delete", "compact, delete", "delete,delete", "delete,x", "*", "0:1,2:3", "0:1,x", "CreateTime", "createtime",
        "classic,consumer", "UPGRADE", "upgrade", "required", "broker",
    };

    public static void main(String[] args) {
        Map<String, String> modes = DynamicBrokerConfig.dynamicConfigUpdateModes();
        print("topic", LogConfig.configDefCopy(), Map.of());
        print("broker", kafka.server.KafkaConfig.configDef(), modes);
    }

    static void print(String scope, ConfigDef configs, Map<String, String> modes) {
        for (ConfigDef.ConfigKey key : new TreeMap<>(configs.configKeys()).values()) {
            boolean topic = scope.equals("topic");
            System.out.println(String.join("\t", scope, key.name, key.type.toString(), preset(key),
                key.importance.toString(), topic ? "-" : modes.getOrDefault(key.name, "read-only"),
                key.internalConfig ? "internal" : "public", topic ? synonyms(key.name) : "-", taken(key)));
        }
    }

    static String preset(ConfigDef.ConfigKey key) {
        if (key.defaultValue == ConfigDef.NO_DEFAULT_VALUE) return "(required)";
        return key.defaultValue == null ? "(null)" : ConfigDef.convertToString(key.defaultValue, key.type);
    }

    static String synonyms(String name) {
        List<ConfigSynonym> synonyms = ServerTopicConfigSynonyms.ALL_TOPIC_CONFIG_SYNONYMS.getOrDefault(name, List.of());
        List<String> found = new ArrayList<>();
        for (ConfigSynonym synonym : synonyms) {
            long factor;
            try {
                factor = Long.parseLong(synonym.converter().apply("1"));
            } catch (NumberFormatException noNumber) {
                factor = 1;
            }
            found.add(synonym.name() + "*" + factor);
        }
        return found.isEmpty() ? "-" : String.join(",", found);
    }

    /** The samples, and the edges of the bounds, that the config takes, each in quotes; then those it does not. */
    static String taken(ConfigDef.ConfigKey key) {
        Set<String> values = new LinkedHashSet<>(List.of(SAMPLES));
        Matcher number = Pattern.compile("-?\\d{1,18}").matcher(String.valueOf(key.validator));
        while (number.find()) {
            long edge = Long.parseLong(number.group());
            for (long value = edge - 1; value <= edge + 1; value++) values.add(Long.toString(value));
        }
        StringBuilder yes = new StringBuilder();
        StringBuilder no = new StringBuilder();
        for (String value : values) (takes(key, value) ? yes : no).append('|').append(value);
        return yes + "\t" + no;
    }

    static boolean takes(ConfigDef.ConfigKey key, String value) {
        try {
            Object parsed = ConfigDef.parseType(key.name, value, key.type);
            if (key.validator != null) key.validator.ensureValid(key.name, parsed);
            return true;
        } catch (RuntimeException refused) {
            return false;
        }
    }
}
