package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pace sends a record to every partition in each interval until its standard input ends, with nothing set but addresses and the
// partition of each record, and prints `ack PARTITION OFFSET UNIX-NANOSECONDS VALUE` or `fail PARTITION WHY` as answers come.
func (s *suite) pace(topic string, partitions int, every time.Duration) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(s.bootstrap, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	out := bufio.NewWriter(os.Stdout)
	var mutex sync.Mutex
	heard := func(r *kgo.Record, err error) {
		now := time.Now().UnixNano()
		mutex.Lock()
		defer mutex.Unlock()
		if err != nil {
			fmt.Fprintf(out, "fail %d %s\n", r.Partition, strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Fprintf(out, "ack %d %d %d %s\n", r.Partition, r.Offset, now, r.Value)
		}
		_ = out.Flush()
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for number := 0; ; number++ {
		select {
		case <-ended:
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return client.Flush(ctx)
		case <-ticker.C:
		}
		for partition := range partitions {
			value := []byte(fmt.Sprint(number))
			client.TryProduce(context.Background(), &kgo.Record{Partition: int32(partition), Value: value}, heard)
		}
	}
}
