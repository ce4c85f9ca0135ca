// The suite of franz-go. See ../README.md for the commands.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	commandTime = 10 * time.Minute
	idleTime    = time.Minute
)

type topicList []string

func (t *topicList) String() string     { return strings.Join(*t, ",") }
func (t *topicList) Set(s string) error { *t = append(*t, s); return nil }

type suite struct {
	bootstrap, rows, codec, mode, group, seen, prefix string
	stopAfter, partitions                             int
	every                                             time.Duration
	topics                                            topicList
}

func main() {
	var s suite
	flags := flag.NewFlagSet("suite", flag.ExitOnError)
	flags.StringVar(&s.bootstrap, "bootstrap", "127.0.0.1:9092", "")
	flags.StringVar(&s.rows, "rows", "", "the rows file")
	flags.StringVar(&s.codec, "codec", "none", "")
	flags.StringVar(&s.mode, "mode", "assign", "assign or group")
	flags.StringVar(&s.group, "group", "", "")
	flags.StringVar(&s.seen, "seen", "", "file of rows that the group has seen")
	flags.StringVar(&s.prefix, "prefix", "go", "")
	flags.IntVar(&s.stopAfter, "stop-after", 0, "rows in all")
	flags.IntVar(&s.partitions, "partitions", 1, "of the topic that is paced")
	flags.DurationVar(&s.every, "every", 4*time.Millisecond, "between two records of a partition")
	flags.Var(&s.topics, "topic", "repeatable")
	_ = flags.Parse(os.Args[2:])
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	var r report
	switch os.Args[1] {
	case "checks":
		runChecks(ctx, &r, &s)
	case "produce":
		for _, topic := range s.topics {
			r.check("produce "+topic, func() error { return s.produce(ctx, topic) })
		}
	case "consume":
		for _, topic := range s.topics {
			r.check("consume "+topic+" by "+s.mode, func() error { return s.consume(ctx, topic) })
		}
	case "tier":
		for _, topic := range s.topics {
			r.check("tier offsets "+topic, func() error { return s.tierOffsets(ctx, topic) })
		}
	case "pace":
		if err := s.pace(s.topics[0], s.partitions, s.every); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "produce, consume, tier, pace or checks")
		os.Exit(2)
	}
	cancel()
	os.Exit(r.code())
}

func (s *suite) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(s.bootstrap, ",")...), kgo.RetryTimeout(time.Minute)}, more...)...)
}

func codec(name string) kgo.CompressionCodec {
	return map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[name]
}

// Every row in order with an idempotent producer (franz-go's default); prints `progress N` as records are acknowledged.
func (s *suite) produce(ctx context.Context, topic string) error {
	l, err := newLedger(s.rows)
	if err != nil {
		return err
	}
	client, err := s.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec(s.codec)),
		kgo.MaxBufferedRecords(10000), kgo.ProducerLinger(5*time.Millisecond), kgo.RecordDeliveryTimeout(2*time.Minute))
	if err != nil {
		return err
	}
	defer client.Close()
	var acknowledged atomic.Int64
	var failure atomic.Value
	for _, line := range l.lines {
		record := &kgo.Record{Key: keyOf(line), Value: line, Headers: []kgo.RecordHeader{{Key: "source", Value: []byte("go")}}}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				failure.CompareAndSwap(nil, err)
			} else if n := acknowledged.Add(1); n%2000 == 0 {
				fmt.Println("progress", n)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if err := failure.Load(); err != nil {
		return err.(error)
	}
	return same("acknowledged", int(acknowledged.Load()), len(l.lines))
}

// One topic from its beginning to its end, by assignment or in a group, against the rows file.
func (s *suite) consume(ctx context.Context, topic string) error {
	l, err := newLedger(s.rows)
	if err != nil {
		return err
	}
	if err := l.resume(s.seen); err != nil {
		return err
	}
	options := []kgo.Opt{kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}
	if s.mode == "group" {
		options = append(options, kgo.ConsumerGroup(s.group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.SessionTimeout(10*time.Second))
	} else {
		options = append(options, kgo.ConsumeTopics(topic))
	}
	client, err := s.client(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := endOffsets(ctx, client, topic)
	if err != nil {
		return err
	}
	at, err := s.startingAt(ctx, client, topic)
	if err != nil {
		return err
	}
	for s.stopAfter == 0 && !reached(at, ends) || s.stopAfter > 0 && l.count < s.stopAfter {
		poll, cancel := context.WithTimeout(ctx, idleTime)
		limit := 10000
		if s.stopAfter > 0 {
			limit = min(limit, s.stopAfter-l.count)
		}
		fetched := client.PollRecords(poll, limit)
		cancel()
		if err := fetched.Err(); err != nil {
			return fmt.Errorf("after %d rows: %w", l.count, err)
		}
		for _, record := range fetched.Records() {
			if err := l.take(record); err != nil {
				return err
			}
			at[record.Partition] = record.Offset + 1
		}
	}
	if s.mode == "group" {
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
	}
	if err := l.save(s.seen); err != nil {
		return err
	}
	if s.stopAfter > 0 {
		return nil
	}
	return l.whole()
}

// Where each partition is read from: what the group has committed, else the beginning.
func (s *suite) startingAt(ctx context.Context, client *kgo.Client, topic string) (map[int32]int64, error) {
	at := map[int32]int64{}
	if s.mode != "group" {
		return at, nil
	}
	committed, err := kadm.NewClient(client).FetchOffsets(ctx, s.group)
	if err != nil {
		return nil, err
	}
	committed.Each(func(o kadm.OffsetResponse) {
		if o.Topic == topic && o.At > 0 {
			at[o.Partition] = o.At
		}
	})
	return at, nil
}

func reached(at map[int32]int64, ends kadm.ListedOffsets) bool {
	all := true
	ends.Each(func(end kadm.ListedOffset) { all = all && at[end.Partition] >= end.Offset })
	return all
}

// endOffsets asks again while the answer is one that a new leader gives at first, which this client hands on.
func endOffsets(ctx context.Context, client *kgo.Client, topic string) (kadm.ListedOffsets, error) {
	for {
		ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
		if err == nil {
			err = ends.Error()
		}
		if !kerr.IsRetriable(err) || ctx.Err() != nil {
			return ends, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
