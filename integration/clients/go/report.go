package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// report prints one line per check: `pass NAME SECONDS` or `fail NAME: WHY`.
type report struct{ failed int }

func (r *report) check(name string, run func() error) {
	began := time.Now()
	if err := run(); err != nil {
		r.failed++
		fmt.Printf("fail %s: %.600s\n", name, strings.Join(strings.Fields(err.Error()), " "))
		return
	}
	fmt.Printf("pass %s %.1f\n", name, time.Since(began).Seconds())
}

func (r *report) code() int {
	if r.failed > 0 {
		return 1
	}
	return 0
}

func same(what string, got, want any) error {
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

// until polls the probe until it holds.
func until(ctx context.Context, what string, limit time.Duration, probe func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if ok, err := probe(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		} else if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %s", limit, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
