package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// checker holds what every check uses: an admin client and the names of its topics.
type checker struct {
	*suite
	admin *kadm.Client
}

func runChecks(ctx context.Context, r *report, s *suite) {
	client, err := s.client()
	if err != nil {
		r.check("client", func() error { return err })
		return
	}
	defer client.Close()
	c := &checker{s, kadm.NewClient(client)}
	for _, one := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"cluster", c.cluster}, {"topics", c.topics}, {"topic-errors", c.topicErrors}, {"configs", c.configs}, {"offsets", c.offsets},
		{"delete-records", c.deleteRecords}, {"codecs", c.codecs}, {"shapes", c.shapes}, {"acknowledgements", c.acknowledgements},
		{"no-idempotence", c.noIdempotence}, {"fetch-sessions", c.fetchSessions}, {"leader-epochs", c.leaderEpochs},
		{"group-sharing", c.groupSharing}, {"group-offsets", c.groupOffsets},
	} {
		r.check(one.name, func() error {
			limited, cancel := context.WithTimeout(ctx, 90*time.Second)
			defer cancel()
			return one.run(limited)
		})
	}
}

func (c *checker) name(stem string) string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return c.prefix + "-" + stem + "-" + hex.EncodeToString(b[:])
}

// topic makes a fresh one; configs are name, value, name, value.
func (c *checker) topic(ctx context.Context, stem string, partitions int32, configs ...string) (string, error) {
	name, set := c.name(stem), map[string]*string{}
	for i := 0; i+1 < len(configs); i += 2 {
		set[configs[i]] = kadm.StringPtr(configs[i+1])
	}
	_, err := c.admin.CreateTopic(ctx, partitions, 1, set, name)
	return name, err
}

func (c *checker) send(ctx context.Context, records []*kgo.Record, more ...kgo.Opt) error {
	client, err := c.client(append(more, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, records...).FirstErr()
}

// fetch reads count records of a topic from its beginning.
func (c *checker) fetch(ctx context.Context, topic string, count int, more ...kgo.Opt) ([]*kgo.Record, error) {
	client, err := c.client(append(more, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []*kgo.Record
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for len(found) < count {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return nil, fmt.Errorf("after %d records: %w", len(found), err)
		}
		found = append(found, fetched.Records()...)
	}
	return found, same("records", len(found), count)
}

func values(topic string, count int) []*kgo.Record {
	records := make([]*kgo.Record, count)
	for i := range records {
		records[i] = &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "%d %s", i, strings.Repeat("snow ", 40))}
	}
	return records
}

func sameValues(what string, got, want []*kgo.Record) error {
	for i := range want {
		if !bytes.Equal(got[i].Value, want[i].Value) {
			return fmt.Errorf("%s: record %d differs", what, i)
		}
	}
	return nil
}

func (c *checker) cluster(ctx context.Context) error {
	m, err := c.admin.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	if _, err := c.admin.ApiVersions(ctx); err != nil {
		return err
	}
	return errors.Join(same("brokers", len(m.Brokers), 1), same("cluster id", m.Cluster != "", true))
}

func (c *checker) topics(ctx context.Context) error {
	topic, err := c.topic(ctx, "topics", 3, "segment.bytes", "1048576")
	if err != nil {
		return err
	}
	listed, err := c.admin.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	if err := same("partitions", listed[topic].Partitions.Numbers(), []int32{0, 1, 2}); err != nil {
		return err
	}
	grown, err := c.admin.UpdatePartitions(ctx, 5, topic)
	if err := errors.Join(err, grown.Error()); err != nil {
		return err
	}
	err = until(ctx, "5 partitions", 10*time.Second, func() (bool, error) {
		listed, err := c.admin.ListTopics(ctx, topic)
		return len(listed[topic].Partitions) == 5, err
	})
	if err != nil {
		return err
	}
	deleted, err := c.admin.DeleteTopics(ctx, topic)
	if err := errors.Join(err, deleted.Error()); err != nil {
		return err
	}
	return until(ctx, "gone", 10*time.Second, func() (bool, error) {
		all, err := c.admin.ListTopics(ctx)
		return !all.Has(topic), err
	})
}

func wants(want error, got error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

func (c *checker) topicErrors(ctx context.Context) error {
	topic, err := c.topic(ctx, "again", 1)
	if err != nil {
		return err
	}
	_, again := c.admin.CreateTopic(ctx, 1, 1, nil, topic)
	_, slash := c.admin.CreateTopic(ctx, 1, 1, nil, "no/slash")
	_, copies := c.admin.CreateTopic(ctx, 1, 3, nil, topic+"x")
	_, config := c.admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": kadm.StringPtr("soon")}, topic+"x")
	gone, err := c.admin.DeleteTopics(ctx, topic+"x")
	return errors.Join(err, wants(kerr.TopicAlreadyExists, again), wants(kerr.InvalidTopicException, slash),
		wants(kerr.InvalidReplicationFactor, copies), wants(kerr.InvalidConfig, config), wants(kerr.UnknownTopicOrPartition, gone.Error()))
}

func (c *checker) configs(ctx context.Context) error {
	topic, err := c.topic(ctx, "configs", 1, "retention.ms", "3600000")
	if err != nil {
		return err
	}
	value := func(name string) (string, error) {
		described, err := c.admin.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return "", err
		}
		for _, config := range described[0].Configs {
			if config.Key == name {
				return config.MaybeValue(), nil
			}
		}
		return "", fmt.Errorf("no config %s", name)
	}
	steps := []struct {
		op   kadm.IncrementalOp
		set  *string
		want string
	}{{kadm.SetConfig, kadm.StringPtr("7200000"), "7200000"}, {kadm.DeleteConfig, nil, "604800000"}}
	for _, step := range steps {
		altered, err := c.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: step.op, Name: "retention.ms", Value: step.set}}, topic)
		if err != nil {
			return err
		}
		for _, one := range altered {
			if one.Err != nil {
				return one.Err
			}
		}
		if err := until(ctx, "retention.ms "+step.want, 10*time.Second, func() (bool, error) {
			got, err := value("retention.ms")
			return got == step.want, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// listOffset asks for one of Kafka's special offsets by its number, which kadm has no name for.
func (s *suite) listOffset(ctx context.Context, client *kgo.Client, topic string, partition int32, which int64) (int64, error) {
	ask := kmsg.NewPtrListOffsetsRequest()
	ask.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, which
	t.Partitions = append(t.Partitions, p)
	ask.Topics = append(ask.Topics, t)
	answer, err := ask.RequestWith(ctx, client)
	if err != nil {
		return 0, err
	}
	got := answer.Topics[0].Partitions[0]
	return got.Offset, kerr.ErrorForCode(got.ErrorCode)
}

// tierOffsets holds for a topic that has gone cold: start, local start, tiered end and end are in this order.
func (s *suite) tierOffsets(ctx context.Context, topic string) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	cold := false
	for _, partition := range listed[topic].Partitions.Numbers() {
		at := map[int64]int64{}
		for _, which := range []int64{-1, -2, -4, -5} {
			if at[which], err = s.listOffset(ctx, client, topic, partition, which); err != nil {
				return fmt.Errorf("partition %d at %d: %w", partition, which, err)
			}
		}
		cold = cold || at[-4] > 0
		if at[-2] != 0 || at[-4] > at[-5]+1 || at[-5] >= at[-1] {
			return fmt.Errorf("partition %d: out of order: %v", partition, at)
		}
	}
	return same("cold", cold, true)
}

func (c *checker) offsets(ctx context.Context) error {
	topic, err := c.topic(ctx, "offsets", 1, "retention.ms", "-1")
	if err != nil {
		return err
	}
	base := int64(1_700_000_000_000)
	var records []*kgo.Record
	for _, second := range []int64{0, 1, 5, 3, 4} {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte("v"), Timestamp: time.UnixMilli(base + second*1000)})
	}
	if err := c.send(ctx, records); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	for which, want := range map[int64]int64{-1: 5, -2: 0, -3: 2, -4: 0, -5: -1, base: 0, base + 1001: 2, base + 5001: -1} {
		got, err := c.listOffset(ctx, client, topic, 0, which)
		if err := errors.Join(err, same(fmt.Sprint("offset at ", which), got, want)); err != nil {
			return err
		}
	}
	_, err = c.listOffset(ctx, client, topic, 7, -1)
	return wants(kerr.UnknownTopicOrPartition, err)
}

func (c *checker) deleteRecords(ctx context.Context) error {
	topic, err := c.topic(ctx, "trimmed", 1)
	if err != nil {
		return err
	}
	if err := c.send(ctx, values(topic, 20)); err != nil {
		return err
	}
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 12, -1)
	deleted, err := c.admin.DeleteRecords(ctx, offsets)
	if err := errors.Join(err, deleted.Error()); err != nil {
		return err
	}
	got, err := c.fetch(ctx, topic, 8)
	if err != nil {
		return err
	}
	return same("first left", got[0].Offset, int64(12))
}

func (c *checker) codecs(ctx context.Context) error {
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		topic, err := c.topic(ctx, "codec-"+name, 1)
		if err != nil {
			return err
		}
		want := values(topic, 2000)
		if err := c.send(ctx, want, kgo.ProducerBatchCompression(codec(name))); err != nil {
			return err
		}
		got, err := c.fetch(ctx, topic, len(want))
		if err == nil {
			err = sameValues(name, got, want)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (c *checker) shapes(ctx context.Context) error {
	topic, err := c.topic(ctx, "shapes", 1, "max.message.bytes", "2000000")
	if err != nil {
		return err
	}
	want := []*kgo.Record{
		{Topic: topic}, {Topic: topic, Key: []byte{}, Value: []byte{}}, {Topic: topic, Key: []byte("k")},
		{Topic: topic, Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "ü", Value: []byte("ß")}}},
		{Topic: topic, Key: []byte("big"), Value: bytes.Repeat([]byte("x"), 900_000)},
	}
	if err := c.send(ctx, want, kgo.ProducerBatchMaxBytes(1_900_000)); err != nil {
		return err
	}
	got, err := c.fetch(ctx, topic, len(want))
	if err != nil {
		return err
	}
	for i := range want {
		for _, pair := range [][2][]byte{{got[i].Key, want[i].Key}, {got[i].Value, want[i].Value}} {
			if !bytes.Equal(pair[0], pair[1]) || (pair[0] == nil) != (pair[1] == nil) {
				return fmt.Errorf("record %d: got %.20q, want %.20q", i, pair[0], pair[1])
			}
		}
		if err := same(fmt.Sprint("headers ", i), fmt.Sprint(got[i].Headers), fmt.Sprint(want[i].Headers)); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) acknowledgements(ctx context.Context) error {
	topic, err := c.topic(ctx, "acks", 1)
	if err != nil {
		return err
	}
	for _, acks := range []kgo.Acks{kgo.NoAck(), kgo.LeaderAck(), kgo.AllISRAcks()} {
		if err := c.send(ctx, values(topic, 10), kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite()); err != nil {
			return err
		}
	}
	_, err = c.fetch(ctx, topic, 30)
	return err
}

func (c *checker) noIdempotence(ctx context.Context) error {
	topic, err := c.topic(ctx, "plain", 1)
	if err != nil {
		return err
	}
	want := values(topic, 5000)
	if err := c.send(ctx, want, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(5), kgo.ProducerBatchMaxBytes(20_000)); err != nil {
		return err
	}
	_, err = c.fetch(ctx, topic, len(want))
	return err
}

// fetchSessions reads many partitions of which few have news, which is what incremental fetches are for (KIP-227).
func (c *checker) fetchSessions(ctx context.Context) error {
	topic, err := c.topic(ctx, "sessions", 50)
	if err != nil {
		return err
	}
	client, err := c.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	for round := range 10 {
		partition := int32(round * 37 % 50)
		if err := c.send(ctx, []*kgo.Record{{Topic: topic, Partition: partition, Value: []byte{byte(round)}}}); err != nil {
			return err
		}
		fetched := client.PollFetches(ctx)
		if err := fetched.Err(); err != nil {
			return err
		}
		got := fetched.Records()
		if len(got) != 1 || got[0].Partition != partition || got[0].Value[0] != byte(round) {
			return fmt.Errorf("round %d: got %v", round, got)
		}
		if round == 5 {
			client.PauseFetchPartitions(map[string][]int32{topic: {48, 49}})
		}
	}
	return nil
}

func (c *checker) leaderEpochs(ctx context.Context) error {
	topic, err := c.topic(ctx, "epochs", 1)
	if err != nil {
		return err
	}
	if err := c.send(ctx, values(topic, 10)); err != nil {
		return err
	}
	got, err := c.fetch(ctx, topic, 10)
	if err != nil {
		return err
	}
	var ask kadm.OffsetForLeaderEpochRequest
	ask.Add(topic, 0, got[0].LeaderEpoch)
	answer, err := c.admin.OffsetForLeaderEpoch(ctx, ask)
	if err != nil {
		return err
	}
	end := answer[topic][0]
	return errors.Join(end.Err, same("end of the epoch", end.EndOffset, int64(10)))
}

func (c *checker) member(group, topic string) (*kgo.Client, error) {
	return c.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(300*time.Millisecond), kgo.DisableAutoCommit())
}

func (c *checker) groupSharing(ctx context.Context) error {
	topic, err := c.topic(ctx, "shared", 4)
	if err != nil {
		return err
	}
	records := values(topic, 200)
	for i := range records {
		records[i].Partition = int32(i % 4)
	}
	if err := c.send(ctx, records); err != nil {
		return err
	}
	group, seen := c.name("sharing"), map[string]bool{}
	first, err := c.member(group, topic)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := c.member(group, topic)
	if err != nil {
		return err
	}
	defer second.Close()
	drain := func(client *kgo.Client) {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		client.PollFetches(short).EachRecord(func(r *kgo.Record) { seen[string(r.Value)] = true })
	}
	err = until(ctx, "two each", 30*time.Second, func() (bool, error) {
		drain(first)
		drain(second)
		described, err := c.admin.DescribeGroups(ctx, group)
		if err != nil {
			return false, err
		}
		counts := []int{}
		for _, m := range described[group].Members {
			if a, ok := m.Assigned.AsConsumer(); ok {
				n := 0
				for _, t := range a.Topics {
					n += len(t.Partitions)
				}
				counts = append(counts, n)
			}
		}
		return described[group].State == "Stable" && slices.Equal(counts, []int{2, 2}), nil
	})
	if err != nil {
		return err
	}
	listed, err := c.admin.ListGroups(ctx)
	if _, ok := listed[group]; err != nil || !ok {
		return fmt.Errorf("group is not listed: %w", err)
	}
	first.LeaveGroup()
	return until(ctx, "the other takes all, and all records", 30*time.Second, func() (bool, error) {
		drain(second)
		described, err := c.admin.DescribeGroups(ctx, group)
		return err == nil && len(described[group].Members) == 1 && len(described.AssignedPartitions()[topic]) == 4 && len(seen) == 200, err
	})
}

func (c *checker) groupOffsets(ctx context.Context) error {
	topic, err := c.topic(ctx, "committed", 1)
	if err != nil {
		return err
	}
	if err := c.send(ctx, values(topic, 10)); err != nil {
		return err
	}
	group := c.name("offsets")
	var offsets kadm.Offsets
	offsets.AddOffset(topic, 0, 5, -1)
	if committed, err := c.admin.CommitOffsets(ctx, group, offsets); err != nil || committed.Error() != nil {
		return fmt.Errorf("commit: %w", errors.Join(err, committed.Error()))
	}
	consumer, err := c.member(group, topic)
	if err != nil {
		return err
	}
	fetched := consumer.PollFetches(ctx)
	consumer.Close()
	if err := fetched.Err(); err != nil {
		return err
	}
	if err := same("resumed at", fetched.Records()[0].Offset, int64(5)); err != nil {
		return err
	}
	lag, err := c.admin.Lag(ctx, group)
	if err := errors.Join(err, lag.Error()); err != nil {
		return err
	}
	if err := same("lag", lag[group].Lag.Total(), int64(5)); err != nil {
		return err
	}
	if gone, err := c.admin.DeleteGroup(ctx, group); err != nil || gone.Err != nil {
		return fmt.Errorf("delete: %w", errors.Join(err, gone.Err))
	}
	again, err := c.admin.DeleteGroup(ctx, group)
	if err == nil {
		err = again.Err
	}
	return wants(kerr.GroupIDNotFound, err)
}
