// storeproxy stands between Firn and an S3 server on loopback. It counts what passes and can slow it down.
//
//	storeproxy LISTEN UPSTREAM
//
//	GET /-/stats                 counters since the last reset, as JSON
//	GET /-/stats?reset           the same, and start from zero
//	GET /-/set?delay_ms=100      hold back each response's first byte; 0 turns it off
//	GET /-/set?fail_every=7      answer every 7th request 503 without passing it on; 0 turns it off
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"
)

type proxy struct {
	upstream http.Handler

	mu        sync.Mutex
	delay     time.Duration
	failEvery int64
	seen      int64
	inFlight  int64
	stats     stats
}

// stats counts requests and body bytes by HTTP method. Bytes down are what the client received.
type stats struct {
	Requests    map[string]int64 `json:"requests"`
	BytesUp     map[string]int64 `json:"bytes_up"`
	BytesDown   map[string]int64 `json:"bytes_down"`
	Failed      int64            `json:"failed"`
	MostAtOnce  int64            `json:"most_at_once"`
	DelayMillis int64            `json:"delay_ms"`
}

func fresh() stats {
	return stats{Requests: map[string]int64{}, BytesUp: map[string]int64{}, BytesDown: map[string]int64{}}
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: storeproxy LISTEN UPSTREAM")
	}
	upstream, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			r.Out.Host = r.In.Host // part of what the client signed
		},
		// As many kept connections as a client may have requests in flight; bytes pass unchanged.
		Transport: &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true},
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, &proxy{upstream: forward, stats: fresh()}))
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/-/stats":
		p.report(w, r)
		return
	case "/-/set":
		p.set(w, r)
		return
	}
	delay, fail := p.enter()
	counted := &countingWriter{ResponseWriter: w}
	defer func() { p.leave(r, counted.bytes, fail) }()
	time.Sleep(delay)
	if fail {
		http.Error(counted, "told to fail", http.StatusServiceUnavailable)
		return
	}
	p.upstream.ServeHTTP(counted, r)
}

func (p *proxy) enter() (delay time.Duration, fail bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	p.inFlight++
	p.stats.MostAtOnce = max(p.stats.MostAtOnce, p.inFlight)
	return p.delay, p.failEvery > 0 && p.seen%p.failEvery == 0
}

func (p *proxy) leave(r *http.Request, down int64, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inFlight--
	p.stats.Requests[r.Method]++
	p.stats.BytesUp[r.Method] += max(r.ContentLength, 0)
	p.stats.BytesDown[r.Method] += down
	if failed {
		p.stats.Failed++
	}
}

func (p *proxy) report(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.DelayMillis = p.delay.Milliseconds()
	_ = json.NewEncoder(w).Encode(p.stats)
	if r.URL.Query().Has("reset") {
		p.stats = fresh()
	}
}

func (p *proxy) set(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, values := range r.URL.Query() {
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err != nil || n < 0 {
			http.Error(w, name+": not a number", http.StatusBadRequest)
			return
		}
		switch name {
		case "delay_ms":
			p.delay = time.Duration(n) * time.Millisecond
		case "fail_every":
			p.failEvery = n
		default:
			http.Error(w, name+": not a setting", http.StatusBadRequest)
			return
		}
	}
}

// countingWriter counts the bytes of a response's body.
type countingWriter struct {
	http.ResponseWriter
	bytes int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush streamed bodies.
func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
