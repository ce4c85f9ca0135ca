"""How the suites written in Python report: one line per check, `pass NAME` or `fail NAME: WHY`."""

import os
import sys
import time
import traceback


class Report:
    def __init__(self):
        self.failed = 0

    def check(self, name, run, *args):
        """Run one check; what it raises is the reason it failed."""
        began = time.monotonic()
        try:
            run(*args)
        except Exception as why:  # whatever the client raises is the finding
            self.failed += 1
            if os.environ.get("FIRN_SUITE_TRACE"):
                traceback.print_exc()
            text = " ".join(f"{type(why).__name__}: {why}".split())
            print(f"fail {name}: {text[:600]}", flush=True)
        else:
            print(f"pass {name} {time.monotonic() - began:.1f}", flush=True)

    def exit(self):
        sys.exit(1 if self.failed else 0)


def same(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def until(what, seconds, probe, pause=0.1):
    """Poll `probe`, every `pause` seconds, until it gives something true; an AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what} (last: {found!r})")
        time.sleep(pause)
