package firn;

import static firn.Report.same;
import static firn.Report.until;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;

/** Consumer groups of the classic protocol: sharing, taking over, offsets, and what the admin client sees of them. */
final class GroupChecks {
    private final Clients clients;
    private final String prefix;

    GroupChecks(Clients clients, String prefix) {
        this.clients = clients;
        this.prefix = prefix;
    }

    void run(Report report) {
        report.check("group-sharing", () -> sharing(RangeAssignor.class));
        report.check("group-sharing-cooperative", () -> sharing(CooperativeStickyAssignor.class));
        report.check("group-offsets", this::offsets);
        report.check("static-member", this::staticMember);
    }

    private KafkaConsumer<byte[], byte[]> member(String group, String topic, Map<String, Object> more) {
        Map<String, Object> config =
                new HashMap<>(Map.of("group.id", group, "session.timeout.ms", 10_000, "heartbeat.interval.ms", 300));
        config.putAll(more);
        var consumer = clients.consumer(config);
        consumer.subscribe(List.of(topic));
        return consumer;
    }

    private String group(String name) {
        return prefix + "-" + name + "-" + UUID.randomUUID().toString().substring(0, 8);
    }

    private void sharing(Class<?> assignor) throws Exception {
        String topic = clients.topic(prefix + "-shared", 4, Map.of()), group = group("sharing");
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < 200; i++) records.add(new ProducerRecord<>(topic, i % 4, null, Integer.toString(i).getBytes()));
        clients.send(records, Map.of());
        Set<String> seen = new HashSet<>();
        Map<String, Object> config = Map.of("partition.assignment.strategy", List.of(assignor));
        var second = member(group, topic, config);
        try (Admin admin = clients.admin()) {
            try (var first = member(group, topic, config)) {
                until("two each", 30, () -> {
                    first.poll(Duration.ofMillis(100)).forEach(r -> seen.add(new String(r.value())));
                    second.poll(Duration.ofMillis(100)).forEach(r -> seen.add(new String(r.value())));
                    Set<TopicPartition> both = new HashSet<>(first.assignment());
                    both.addAll(second.assignment());
                    return both.size() == 4 && first.assignment().size() == 2 && second.assignment().size() == 2;
                });
                var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                same("state", described.groupState(), GroupState.STABLE);
                same("assigned", described.members().stream().mapToInt(m -> m.assignment().topicPartitions().size()).sum(), 4);
                var listed = admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get();
                same("listed", listed.stream().anyMatch(g -> g.groupId().equals(group)), true);
                var stable = admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).all().get();
                same("filtered", stable.stream().anyMatch(g -> g.groupId().equals(group)), false);
                same("not empty", notEmpty(admin, group), true);
            }
            until("the other takes all", 30, () -> {
                second.poll(Duration.ofMillis(100)).forEach(r -> seen.add(new String(r.value())));
                return second.assignment().size() == 4;
            });
            until("all records", 30, () -> {
                second.poll(Duration.ofMillis(100)).forEach(r -> seen.add(new String(r.value())));
                return seen.size() == 200;
            });
        } finally {
            second.close();
        }
    }

    private static boolean notEmpty(Admin admin, String group) throws Exception {
        try {
            admin.deleteConsumerGroups(List.of(group)).all().get();
            return false;
        } catch (java.util.concurrent.ExecutionException why) {
            return why.getCause() instanceof GroupNotEmptyException;
        }
    }

    private void offsets() throws Exception {
        String topic = clients.topic(prefix + "-committed", 2, Map.of()), group = group("offsets");
        var at = new TopicPartition(topic, 0);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < 10; i++) records.add(new ProducerRecord<>(topic, 0, null, new byte[] {(byte) i}));
        clients.send(records, Map.of());
        try (var consumer = member(group, topic, Map.of())) {
            until("records", 30, () -> !consumer.poll(Duration.ofMillis(200)).isEmpty());
            consumer.commitSync(Map.of(at, new OffsetAndMetadata(5, "half")));
        }
        try (var consumer = member(group, topic, Map.of()); Admin admin = clients.admin()) {
            same("committed", consumer.committed(Set.of(at)).get(at).metadata(), "half");
            List<Long> first = new ArrayList<>();
            until("resumed", 30, () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(r -> first.add(r.offset()));
                return !first.isEmpty();
            });
            same("resumed at", first.get(0), 5L);
            consumer.close();
            until("empty", 10, () -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY);
            admin.alterConsumerGroupOffsets(group, Map.of(at, new OffsetAndMetadata(2))).all().get();
            same("altered", admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(at).offset(), 2L);
            admin.deleteConsumerGroupOffsets(group, Set.of(at)).all().get();
            same("deleted", admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(at), null);
            admin.deleteConsumerGroups(List.of(group)).all().get();
            try {
                admin.deleteConsumerGroups(List.of(group)).all().get();
                throw new AssertionError("deleted twice");
            } catch (java.util.concurrent.ExecutionException why) {
                same("unknown group", why.getCause().getClass(), GroupIdNotFoundException.class);
            }
        }
    }

    private void staticMember() throws Exception {
        String topic = clients.topic(prefix + "-static", 2, Map.of()), group = group("static");
        Map<String, Object> one = Map.of("group.instance.id", "one");
        try (Admin admin = clients.admin()) {
            for (int round = 0; round < 2; round++) {
                try (var consumer = member(group, topic, one)) {
                    until("assigned", 30, () -> {
                        consumer.poll(Duration.ofMillis(100));
                        return consumer.assignment().size() == 2;
                    });
                }
                var members = admin.describeConsumerGroups(List.of(group)).all().get().get(group).members();
                same("stays a member", members.stream().map(m -> m.groupInstanceId().orElse("")).toList(), List.of("one"));
            }
            admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(Set.of(new MemberToRemove("one")))).all().get();
            until("empty", 10, () -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY);
        }
    }
}
