/* The load client of `compare`: one Kafka producer or consumer over librdkafka, the same against each broker.
 *
 *   load produce key=value...    topic parts mib rate linger acks size seconds
 *   load consume key=value...    topic parts mib seconds
 *   load disk key=value...       file kib every_ms seconds
 *
 * Prints one JSON object. MiB are of record values. With rate > 0 (MiB/s) records are due on a fixed schedule and
 * latency runs from the moment a record was due to its delivery report, so that a stall also counts against the
 * records that had to wait behind it. Meanwhile a second thread sleeps a millisecond at a time and notes how much
 * longer it took: pauses of the machine that no broker is to blame for. `disk` does the same for the disk: it overwrites a
 * file in the sizes and at the pace of a journal, each write synced, past the page cache, with no broker about.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576.0

/* ------------------------------------------------------------ options */

static int option_count;
static char **options;

static const char *option(const char *name, const char *otherwise) {
    size_t n = strlen(name);
    for (int i = 0; i < option_count; i++)
        if (!strncmp(options[i], name, n) && options[i][n] == '=') return options[i] + n + 1;
    return otherwise;
}
static double number(const char *name, double otherwise) {
    const char *text = option(name, NULL);
    return text ? strtod(text, NULL) : otherwise;
}
static void die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(2);
}

/* ------------------------------------------------------------ time and histograms, all in microseconds */

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}
static double cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* Buckets of 1/64 of a power of two: below 1.6 % error from 64 us up, exact below. */
#define SUB 64
typedef struct {
    uint64_t bucket[40 * SUB], count;
    int64_t most;
} histogram;

static unsigned bucket_of(uint64_t v) {
    if (v < SUB) return v;
    unsigned top = 63 - __builtin_clzll(v), shift = top - 6;
    return (shift + 1) * SUB + ((v >> shift) - SUB);
}
static uint64_t value_of(unsigned b) {
    return b < SUB ? b : (uint64_t)(SUB + b % SUB) << (b / SUB - 1);
}
static void note(histogram *h, int64_t us) {
    if (us < 0) us = 0;
    unsigned b = bucket_of(us), last = sizeof h->bucket / sizeof *h->bucket - 1;
    h->bucket[b < last ? b : last]++;
    h->count++;
    if (us > h->most) h->most = us;
}
static double quantile_ms(const histogram *h, double q) {
    uint64_t want = (uint64_t)(q * h->count), sum = 0;
    for (unsigned b = 0; h->count && b < sizeof h->bucket / sizeof *h->bucket; b++)
        if ((sum += h->bucket[b]) > want) return value_of(b) / 1e3;
    return h->most / 1e3;
}

static histogram pauses;
static atomic_bool over;
static void *watch_pauses(void *unused) {
    (void)unused;
    while (!over) {
        int64_t before = now();
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        note(&pauses, now() - before - 1000);
    }
    return NULL;
}

/* ------------------------------------------------------------ librdkafka */

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char why[256];
    if (rd_kafka_conf_set(conf, key, value, why, sizeof why)) die(key, why);
}
static rd_kafka_t *client(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
    char why[256];
    set(conf, "bootstrap.servers", option("bootstrap", "127.0.0.1:9092"));
    set(conf, "topic.metadata.refresh.interval.ms", "-1");
    rd_kafka_t *k = rd_kafka_new(type, conf, why, sizeof why);
    if (!k) die("client", why);
    return k;
}
/* Learns the leaders, so that nothing of it falls into the measured time. */
static void learn(rd_kafka_t *k, rd_kafka_topic_t *t) {
    const struct rd_kafka_metadata *md;
    rd_kafka_resp_err_t e = rd_kafka_metadata(k, 0, t, &md, 15000);
    if (e) die("metadata", rd_kafka_err2str(e));
    rd_kafka_metadata_destroy(md);
}

/* ------------------------------------------------------------ produce */

static histogram latencies;
static int64_t acked, failed, last_ack;
static char first_error[128];

static void delivered(rd_kafka_t *k, const rd_kafka_message_t *m, void *opaque) {
    (void)k, (void)opaque;
    if (m->err) {
        if (!failed++) snprintf(first_error, sizeof first_error, "%s", rd_kafka_err2str(m->err));
        return;
    }
    acked++;
    last_ack = now();
    note(&latencies, last_ack - (int64_t)(intptr_t)m->_private);
}

static void offer(rd_kafka_t *k, rd_kafka_topic_t *t, int32_t partition, char *value, size_t size, int64_t due) {
    while (rd_kafka_produce(t, partition, RD_KAFKA_MSG_F_COPY, value, size, NULL, 0, (void *)(intptr_t)due)) {
        if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) die("produce", rd_kafka_err2str(rd_kafka_last_error()));
        rd_kafka_poll(k, 5);
    }
}

static int produce(void) {
    int parts = number("parts", 1);
    double rate = number("rate", 0) * MIB, mib = number("mib", 0);
    size_t size = number("size", 1024), spare = 1 << 16;
    int64_t limit = number("seconds", 10) * 1e6, total = mib > 0 ? mib * MIB / size : INT64_MAX;

    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "linger.ms", option("linger", "5"));
    set(conf, "acks", option("acks", "all"));
    set(conf, "enable.idempotence", option("idempotent", "false"));
    set(conf, "batch.size", "1000000");
    set(conf, "queue.buffering.max.kbytes", "262144");
    set(conf, "queue.buffering.max.messages", "250000");
    set(conf, "message.timeout.ms", "60000");
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_t *k = client(RD_KAFKA_PRODUCER, conf);
    rd_kafka_topic_t *t = rd_kafka_topic_new(k, option("topic", "load"), NULL);
    learn(k, t);

    /* Text that no codec or file system could make much smaller; each record begins elsewhere in it. */
    char *text = malloc(size + spare);
    uint64_t state = 88172645463325252ULL;
    for (size_t i = 0; i < size + spare; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        text[i] = ' ' + state % 95;
    }
    /* One record to each partition outside of the clock: connections, producer state. */
    for (int p = 0; p < parts; p++) offer(k, t, p, text, size, now());
    rd_kafka_flush(k, 30000);
    if (failed) die("first records", first_error);
    acked = 0;
    memset(&latencies, 0, sizeof latencies);

    double cpu = cpu_seconds();
    int64_t start = now(), sent = 0, t_now;
    while (sent < total && (t_now = now()) - start < limit) {
        int64_t due = rate > 0 ? (int64_t)((t_now - start) / 1e6 * rate / size) : sent + 500;
        if (due > total) due = total;
        for (; sent < due; sent++) {
            int64_t when = rate > 0 ? start + (int64_t)(sent * (size / rate) * 1e6) : now();
            offer(k, t, sent % parts, text + sent * 61 % spare, size, when);
        }
        rd_kafka_poll(k, rate > 0 ? 1 : 0);
    }
    rd_kafka_flush(k, 60000);
    double seconds = (last_ack - start) / 1e6, got = acked * (double)size / MIB;
    printf("{\"mib\":%.2f,\"seconds\":%.3f,\"mib_per_s\":%.2f,\"lost\":%lld,\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"p999_ms\":%.2f,"
           "\"max_ms\":%.2f,\"pause_p999_ms\":%.2f,\"pause_max_ms\":%.2f,\"client_cpu_s\":%.2f,\"error\":\"%s\"}\n",
           got, seconds, seconds > 0 ? got / seconds : 0, (long long)(sent - acked), quantile_ms(&latencies, .5),
           quantile_ms(&latencies, .99), quantile_ms(&latencies, .999), latencies.most / 1e3, quantile_ms(&pauses, .999),
           pauses.most / 1e3, cpu_seconds() - cpu, first_error);
    return sent != acked;
}

/* ------------------------------------------------------------ consume */

static int consume(void) {
    int parts = number("parts", 1);
    double want = number("mib", 0) * MIB;
    int64_t limit = number("seconds", 30) * 1e6;

    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", "load");
    set(conf, "enable.auto.commit", "false");
    set(conf, "auto.offset.reset", "error");
    set(conf, "fetch.message.max.bytes", "1048576"); /* what a Java consumer asks for per partition */
    set(conf, "queued.min.messages", "100000");
    rd_kafka_t *k = client(RD_KAFKA_CONSUMER, conf);
    rd_kafka_poll_set_consumer(k);
    rd_kafka_topic_t *t = rd_kafka_topic_new(k, option("topic", "load"), NULL);
    learn(k, t);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(k);
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(parts);
    int64_t *next = malloc(parts * sizeof *next), low, high;
    for (int p = 0; p < parts; p++) {
        rd_kafka_topic_partition_list_add(all, option("topic", "load"), p)->offset = RD_KAFKA_OFFSET_BEGINNING;
        next[p] = -1;
    }
    rd_kafka_query_watermark_offsets(k, option("topic", "load"), 0, &low, &high, 10000); /* connects to the leader */

    rd_kafka_message_t *batch[2000];
    double cpu = cpu_seconds(), bytes = 0;
    int64_t start = now(), first = 0, last = start, gaps = 0;
    rd_kafka_assign(k, all);
    while (bytes < want && now() - start < limit) {
        ssize_t n = rd_kafka_consume_batch_queue(queue, 10, batch, 2000);
        if (n > 0) last = now();
        for (ssize_t i = 0; i < n; i++) {
            rd_kafka_message_t *m = batch[i];
            if (m->err) {
                snprintf(first_error, sizeof first_error, "%s", rd_kafka_err2str(m->err));
            } else {
                if (!first) first = last;
                gaps += next[m->partition] >= 0 && next[m->partition] != m->offset;
                next[m->partition] = m->offset + 1;
                bytes += m->len;
            }
            rd_kafka_message_destroy(m);
        }
    }
    double seconds = (last - start) / 1e6;
    printf("{\"mib\":%.2f,\"seconds\":%.3f,\"mib_per_s\":%.2f,\"first_ms\":%.2f,\"gaps\":%lld,\"complete\":%s,\"pause_max_ms\":%.2f,"
           "\"client_cpu_s\":%.2f,\"error\":\"%s\"}\n",
           bytes / MIB, seconds, seconds > 0 ? bytes / MIB / seconds : 0, first ? (first - start) / 1e3 : -1, (long long)gaps,
           bytes >= want ? "true" : "false", pauses.most / 1e3, cpu_seconds() - cpu, first_error);
    return bytes < want || gaps;
}

static int disk(void) {
    enum { FILE_BYTES = 64 << 20, BLOCK = 1 << 20 };
    const char *path = option("file", "probe.dat");
    size_t size = (size_t)number("kib", 64) << 10;
    int64_t every = number("every_ms", 6) * 1e3, limit = number("seconds", 10) * 1e6;
    int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0644);
    void *bytes = NULL;
    if (fd < 0 || posix_memalign(&bytes, 4096, BLOCK)) die(path, "cannot be written past the page cache");
    memset(bytes, 7, BLOCK);
    struct iovec part = {bytes, BLOCK};
    for (off_t at = 0; at < FILE_BYTES; at += BLOCK)
        if (pwritev(fd, &part, 1, at) != BLOCK) die(path, "no room for the probe");
    fsync(fd);
    static histogram writes;
    off_t at = 0;
    part.iov_len = size;
    for (int64_t start = now(), due = start; due - start < limit; due += every) {
        int64_t wait = due - now();
        if (wait > 0) usleep(wait);
        int64_t began = now();
        if (pwritev2(fd, &part, 1, at, RWF_DSYNC) != (ssize_t)size) die(path, "cannot be written");
        note(&writes, now() - began);
        at = at + 2 * (off_t)size > FILE_BYTES ? 0 : at + size;
    }
    close(fd);
    unlink(path);
    printf("{\"p50_ms\":%.2f,\"p99_ms\":%.2f,\"p999_ms\":%.2f,\"max_ms\":%.2f}\n", quantile_ms(&writes, .5), quantile_ms(&writes, .99),
           quantile_ms(&writes, .999), writes.most / 1e3);
    return 0;
}

int main(int argc, char **argv) {
    option_count = argc - 2;
    options = argv + 2;
    int (*run)(void) = argc < 2                     ? NULL
                       : !strcmp(argv[1], "produce") ? produce
                       : !strcmp(argv[1], "consume") ? consume
                       : !strcmp(argv[1], "disk")    ? disk
                                                     : NULL;
    if (!run) die("load", "produce, consume or disk, then key=value");
    pthread_t watcher;
    pthread_create(&watcher, NULL, watch_pauses, NULL);
    int code = run();
    over = true;
    pthread_join(watcher, NULL);
    fflush(stdout);
    _Exit(code); /* closing the client would only take time */
}
