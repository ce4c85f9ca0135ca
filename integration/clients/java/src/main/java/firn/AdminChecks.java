package firn;

import static firn.Report.same;
import static firn.Report.until;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** The breadth of the admin client: topics, configs, offsets, log directories, the cluster. */
final class AdminChecks {
    private final Clients clients;
    private final String prefix;

    AdminChecks(Clients clients, String prefix) {
        this.clients = clients;
        this.prefix = prefix;
    }

    void run(Report report) {
        report.check("cluster", this::cluster);
        report.check("topics", this::topics);
        report.check("topic-ids", this::topicIds);
        report.check("topic-errors", this::topicErrors);
        report.check("topic-paging", this::topicPaging);
        report.check("configs", this::configs);
        report.check("config-errors", this::configErrors);
        report.check("config-documentation", this::configDocumentation);
        report.check("create-answers-configs", this::createAnswersConfigs);
        report.check("offsets", this::offsets);
        report.check("delete-records", this::deleteRecords);
        report.check("log-dirs", this::logDirs);
        report.check("producers", this::producers);
    }

    private interface Call {
        void run() throws Exception;
    }

    private static void refused(Class<?> error, Call call) throws Exception {
        try {
            call.run();
        } catch (ExecutionException why) {
            same("error", why.getCause().getClass().getSimpleName(), error.getSimpleName());
            return;
        }
        throw new AssertionError("was accepted, want " + error.getSimpleName());
    }

    private void send(String topic, int count) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) records.add(new ProducerRecord<>(topic, 0, null, new byte[100]));
        clients.send(records, Map.of());
    }

    private void cluster() throws Exception {
        try (Admin admin = clients.admin()) {
            var cluster = admin.describeCluster(new DescribeClusterOptions().includeFencedBrokers(true));
            same("nodes", cluster.nodes().get().size(), 1);
            same("cluster id", cluster.clusterId().get().isEmpty(), false);
            var features = admin.describeFeatures().featureMetadata().get();
            same("features", features != null, true);
        }
    }

    private void topics() throws Exception {
        String topic = clients.topic(prefix + "-topics", 3, Map.of("segment.bytes", "1048576"));
        try (Admin admin = clients.admin()) {
            var described = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            same("partitions", described.partitions().stream().map(p -> p.partition()).toList(), List.of(0, 1, 2));
            same("in sync", described.partitions().stream().allMatch(p -> p.leader() != null && p.isr().size() == 1), true);
            same("internal", described.isInternal(), false);
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            until("5 partitions", 10, () -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 5);
            send(topic, 1);
            admin.deleteTopics(List.of(topic)).all().get();
            until("gone", 10, () -> !admin.listTopics().names().get().contains(topic));
            refused(UnknownTopicOrPartitionException.class, () -> admin.describeTopics(List.of(topic)).allTopicNames().get());
        }
    }

    private void topicIds() throws Exception {
        String topic = clients.topic(prefix + "-ids", 1, Map.of());
        try (Admin admin = clients.admin()) {
            var id = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
            var byId = admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id);
            same("name by id", byId.name(), topic);
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
            until("gone", 10, () -> !admin.listTopics().names().get().contains(topic));
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            same("another id", admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId().equals(id), false);
        }
    }

    private void topicErrors() throws Exception {
        String topic = clients.topic(prefix + "-again", 2, Map.of());
        try (Admin admin = clients.admin()) {
            refused(TopicExistsException.class, () -> create(admin, new NewTopic(topic, 1, (short) 1)));
            refused(InvalidTopicException.class, () -> create(admin, new NewTopic("no/slash", 1, (short) 1)));
            refused(InvalidTopicException.class, () -> create(admin, new NewTopic("n".repeat(250), 1, (short) 1)));
            refused(InvalidReplicationFactorException.class, () -> create(admin, new NewTopic(topic + "x", 1, (short) 3)));
            refused(InvalidPartitionsException.class, () -> create(admin, new NewTopic(topic + "x", 0, (short) 1)));
            refused(InvalidPartitionsException.class, () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all().get());
            refused(InvalidPartitionsException.class, () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all().get());
            refused(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(topic + "x")).all().get());
            admin.createTopics(List.of(new NewTopic(topic + "y", 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all().get();
            same("validate only", admin.listTopics().names().get().contains(topic + "y"), false);
        }
    }

    private static void create(Admin admin, NewTopic topic) throws Exception {
        admin.createTopics(List.of(topic)).all().get();
    }

    /** DescribeTopicPartitions hands out pages of at most the asked number of partitions (KIP-966). */
    private void topicPaging() throws Exception {
        Set<String> names = new TreeSet<>();
        for (int i = 0; i < 3; i++) names.add(clients.topic(prefix + "-page" + i, 7, Map.of()));
        try (Admin admin = clients.admin()) {
            var paged = admin.describeTopics(names, new DescribeTopicsOptions().partitionSizeLimitPerResponse(5)).allTopicNames().get();
            same("topics", new TreeSet<>(paged.keySet()), names);
            for (var topic : paged.values())
                same("partitions", topic.partitions().stream().map(p -> p.partition()).toList(), List.of(0, 1, 2, 3, 4, 5, 6));
        }
    }

    private static Config describe(Admin admin, ConfigResource resource, DescribeConfigsOptions options) throws Exception {
        return admin.describeConfigs(List.of(resource), options).all().get().get(resource);
    }

    private static Call alter(Admin admin, ConfigResource resource, String name, String value, AlterConfigOp.OpType op) {
        return () -> admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(name, value), op)))).all().get();
    }

    private void configs() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, clients.topic(prefix + "-configs", 1, Map.of("retention.ms", "3600000", "segment.bytes", "1048576")));
        var options = new DescribeConfigsOptions().includeSynonyms(true);
        try (Admin admin = clients.admin()) {
            var before = describe(admin, resource, options);
            same("as created", before.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
            same("synonyms", before.get("segment.bytes").synonyms().size() >= 2, true);
            same("default", before.get("segment.ms").isDefault(), true);
            alter(admin, resource, "retention.ms", "7200000", AlterConfigOp.OpType.SET).run();
            alter(admin, resource, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND).run();
            until("altered", 10, () -> describe(admin, resource, options).get("retention.ms").value().equals("7200000"));
            same("appended", describe(admin, resource, options).get("cleanup.policy").value(), "delete,compact");
            alter(admin, resource, "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT).run();
            alter(admin, resource, "retention.ms", null, AlterConfigOp.OpType.DELETE).run();
            until("back at the default", 10, () -> describe(admin, resource, options).get("retention.ms").value().equals("604800000"));
            var broker = new ConfigResource(ConfigResource.Type.BROKER, admin.describeCluster().nodes().get().iterator().next().idString());
            var brokerConfig = describe(admin, broker, options);
            for (String name : List.of("log.dirs", "num.partitions", "message.max.bytes", "log.retention.ms", "group.max.session.timeout.ms"))
                same("broker has " + name, brokerConfig.get(name) != null, true);
        }
    }

    private void configErrors() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, clients.topic(prefix + "-bad-configs", 1, Map.of()));
        try (Admin admin = clients.admin()) {
            for (var bad : Map.of("retention.ms", "soon", "no.such.config", "1", "cleanup.policy", "shred", "segment.bytes", "-5").entrySet())
                refused(InvalidConfigurationException.class, alter(admin, resource, bad.getKey(), bad.getValue(), AlterConfigOp.OpType.SET));
            var missing = new ConfigResource(ConfigResource.Type.TOPIC, prefix + "-is-not-there");
            refused(UnknownTopicOrPartitionException.class, alter(admin, missing, "retention.ms", "1", AlterConfigOp.OpType.SET));
            refused(UnknownTopicOrPartitionException.class, () -> describe(admin, missing, new DescribeConfigsOptions()));
        }
    }

    private void configDocumentation() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, clients.topic(prefix + "-documented", 1, Map.of()));
        try (Admin admin = clients.admin()) {
            var config = describe(admin, resource, new DescribeConfigsOptions().includeDocumentation(true));
            for (ConfigEntry entry : config.entries())
                same(entry.name() + " is documented", entry.documentation() != null && !entry.documentation().isBlank(), true);
            same("type", config.get("segment.bytes").type(), ConfigEntry.ConfigType.INT);
        }
    }

    private void createAnswersConfigs() throws Exception {
        String topic = prefix + "-answered-" + System.nanoTime();
        try (Admin admin = clients.admin()) {
            var created = admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1).configs(Map.of("retention.ms", "1234567"))));
            same("partitions", created.numPartitions(topic).get(), 2);
            same("replication", created.replicationFactor(topic).get(), 1);
            same("config", created.config(topic).get().get("retention.ms").value(), "1234567");
            same("id", created.topicId(topic).get(), admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId());
        }
    }

    private void offsets() throws Exception {
        String topic = clients.topic(prefix + "-offsets", 1, Map.of("retention.ms", "-1"));
        long base = 1_700_000_000_000L;
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (long seconds : new long[] {0, 1, 5, 3, 4}) records.add(new ProducerRecord<>(topic, 0, base + seconds * 1000, null, new byte[10]));
        clients.send(records, Map.of("linger.ms", 20));
        Map<OffsetSpec, Long> wanted = new HashMap<>();
        wanted.put(OffsetSpec.earliest(), 0L);
        wanted.put(OffsetSpec.latest(), 5L);
        wanted.put(OffsetSpec.maxTimestamp(), 2L);
        wanted.put(OffsetSpec.forTimestamp(base), 0L);
        wanted.put(OffsetSpec.forTimestamp(base + 1001), 2L);
        wanted.put(OffsetSpec.forTimestamp(base + 5001), -1L);
        wanted.put(OffsetSpec.earliestLocal(), 0L);
        wanted.put(OffsetSpec.latestTiered(), -1L);
        for (var want : wanted.entrySet())
            same(want.getKey().getClass().getSimpleName(), offset(topic, 0, want.getKey()), want.getValue());
    }

    private long offset(String topic, int partition, OffsetSpec spec) throws Exception {
        var at = new TopicPartition(topic, partition);
        try (Admin admin = clients.admin()) {
            return admin.listOffsets(Map.of(at, spec)).partitionResult(at).get().offset();
        }
    }

    /** Of a topic that has gone cold: the local log begins later than the log, and ends later than the tier. */
    void tierOffsets(String topic) throws Exception {
        try (Admin admin = clients.admin()) {
            boolean cold = false;
            for (var p : admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions()) {
                long earliest = offset(topic, p.partition(), OffsetSpec.earliest());
                long local = offset(topic, p.partition(), OffsetSpec.earliestLocal());
                long tiered = offset(topic, p.partition(), OffsetSpec.latestTiered());
                long latest = offset(topic, p.partition(), OffsetSpec.latest());
                same("earliest " + p.partition(), earliest, 0L);
                same("in order " + List.of(earliest, local, tiered, latest), earliest <= local && local <= tiered + 1 && tiered < latest, true);
                cold |= local > 0;
            }
            same("cold", cold, true);
        }
    }

    private void deleteRecords() throws Exception {
        String topic = clients.topic(prefix + "-trimmed", 1, Map.of());
        var at = new TopicPartition(topic, 0);
        send(topic, 20);
        try (Admin admin = clients.admin()) {
            var deleted = admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(12))).lowWatermarks().get(at).get();
            same("low watermark", deleted.lowWatermark(), 12L);
            same("earliest", offset(topic, 0, OffsetSpec.earliest()), 12L);
            same("first left", clients.fetch(topic, 8, Map.of()).get(0).offset(), 12L);
            refused(OffsetOutOfRangeException.class, () -> admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(21))).all().get());
        }
    }

    private void logDirs() throws Exception {
        String topic = clients.topic(prefix + "-dirs", 2, Map.of());
        send(topic, 50);
        try (Admin admin = clients.admin()) {
            int broker = admin.describeCluster().nodes().get().iterator().next().id();
            long bytes = 0;
            int replicas = 0;
            for (var directory : admin.describeLogDirs(List.of(broker)).allDescriptions().get().get(broker).entrySet()) {
                same(directory.getKey() + " is well", directory.getValue().error(), null);
                same("total bytes known", directory.getValue().totalBytes().isPresent(), true);
                for (var replica : directory.getValue().replicaInfos().entrySet()) {
                    if (!replica.getKey().topic().equals(topic)) continue;
                    replicas++;
                    bytes += replica.getValue().size();
                }
            }
            same("replicas", replicas, 2);
            same("at least the records", bytes >= 5000, true);
        }
    }

    private void producers() throws Exception {
        String topic = clients.topic(prefix + "-producers", 1, Map.of());
        send(topic, 5);
        try (Admin admin = clients.admin()) {
            var at = new TopicPartition(topic, 0);
            var states = admin.describeProducers(List.of(at)).partitionResult(at).get().activeProducers();
            same("one idempotent producer", states.stream().map(s -> s.lastSequence()).toList(), List.of(4));
        }
    }
}
