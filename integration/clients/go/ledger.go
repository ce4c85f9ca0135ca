package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ledger checks that each row of a rows file arrives once, unchanged, and in rising order within its partition.
type ledger struct {
	lines [][]byte
	seen  []bool
	count int
	last  map[int32]int
}

func newLedger(path string) (*ledger, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	return &ledger{lines: lines, seen: make([]bool, len(lines)), last: map[int32]int{}}, nil
}

// keyOf is the record key of a row: its tail number, or nil.
func keyOf(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte(`"tailnum":`))
	if !bytes.HasPrefix(rest, []byte(`"`)) {
		return nil
	}
	key, _, _ := bytes.Cut(rest[1:], []byte(`"`))
	return key
}

func (l *ledger) take(r *kgo.Record) error {
	where := fmt.Sprintf("partition %d offset %d", r.Partition, r.Offset)
	digits, isRow := bytes.CutPrefix(r.Value, []byte(`{"row":`))
	digits, _, _ = bytes.Cut(digits, []byte(","))
	number, err := strconv.Atoi(string(digits))
	if !isRow || err != nil || number < 0 || number >= len(l.lines) || !bytes.Equal(l.lines[number], r.Value) {
		return fmt.Errorf("%s: not a row as it was produced: %.120q", where, r.Value)
	}
	if key := keyOf(r.Value); !bytes.Equal(key, r.Key) || (key == nil) != (r.Key == nil) {
		return fmt.Errorf("%s: row %d has key %q", where, number, r.Key)
	}
	if len(r.Headers) == 0 || r.Headers[0].Key != "source" || len(r.Headers[0].Value) == 0 {
		return fmt.Errorf("%s: row %d lost its header", where, number)
	}
	if l.seen[number] {
		return fmt.Errorf("%s: row %d came twice", where, number)
	}
	if last, ok := l.last[r.Partition]; ok && last >= number {
		return fmt.Errorf("%s: row %d after row %d", where, number, last)
	}
	l.last[r.Partition] = number
	l.seen[number] = true
	l.count++
	return nil
}

func (l *ledger) whole() error {
	for number, seen := range l.seen {
		if !seen {
			return fmt.Errorf("%d rows missing, the first is row %d", len(l.lines)-l.count, number)
		}
	}
	return nil
}

// resume takes over what an earlier run of the same group has seen.
func (l *ledger) resume(path string) error {
	text, err := os.ReadFile(path)
	if path == "" || os.IsNotExist(err) {
		return nil
	}
	for _, field := range strings.Fields(string(text)) {
		number, err := strconv.Atoi(field)
		if err != nil {
			return err
		}
		l.seen[number] = true
		l.count++
	}
	return err
}

func (l *ledger) save(path string) error {
	if path == "" {
		return nil
	}
	var text strings.Builder
	for number, seen := range l.seen {
		if seen {
			fmt.Fprintln(&text, number)
		}
	}
	return os.WriteFile(path, []byte(text.String()), 0o644)
}
