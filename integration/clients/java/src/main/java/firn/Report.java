package firn;

/** One line per check: {@code pass NAME SECONDS} or {@code fail NAME: WHY}. */
final class Report {
    interface Check {
        void run() throws Exception;
    }

    interface Probe {
        boolean holds() throws Exception;
    }

    private int failed;

    void check(String name, Check check) {
        long began = System.nanoTime();
        try {
            check.run();
            System.out.printf("pass %s %.1f%n", name, (System.nanoTime() - began) / 1e9);
        } catch (Exception | AssertionError why) {
            failed++;
            if (System.getenv("FIRN_SUITE_TRACE") != null) why.printStackTrace();
            Throwable cause = why instanceof java.util.concurrent.ExecutionException ? why.getCause() : why;
            String text = cause.toString().replaceAll("\\s+", " ");
            System.out.printf("fail %s: %s%n", name, text.substring(0, Math.min(600, text.length())));
        }
    }

    int code() {
        return failed == 0 ? 0 : 1;
    }

    static void same(String what, Object got, Object want) {
        if (!java.util.Objects.equals(got, want)) throw new AssertionError(what + ": got " + got + ", want " + want);
    }

    /** Polls until the probe holds; fails after {@code seconds}. */
    static void until(String what, int seconds, Probe probe) throws Exception {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!probe.holds()) {
            if (System.nanoTime() > end) throw new AssertionError("not within " + seconds + " s: " + what);
            Thread.sleep(50);
        }
    }
}
