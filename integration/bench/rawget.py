"""How fast the object store itself gives out what a cold read needs: parallel ranged GETs of the same objects.

Requests are signed in the query (AWS Signature Version 4), so that any HTTP client can send them.
"""

import datetime
import hashlib
import hmac
import http.client
import re
import threading
import time
import urllib.parse

KEY = SECRET = "firnfirn"
REGION = "us-east-1"
RANGE = 4 << 20


def presigned(host, path, query):
    """`path?query` with a signature that holds for an hour."""
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    query = dict(query) | {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{KEY}/{scope}", "X-Amz-Date": stamp,
        "X-Amz-Expires": "3600", "X-Amz-SignedHeaders": "host",
    }
    path = urllib.parse.quote(path)
    text = "&".join(f"{urllib.parse.quote(k, safe='')}={urllib.parse.quote(v, safe='')}" for k, v in sorted(query.items()))
    request = f"GET\n{path}\n{text}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
    key = f"AWS4{SECRET}".encode()
    for part in (*scope.split("/")[:3], "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    return f"{path}?{text}&X-Amz-Signature={hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()}"


def objects(host, bucket, suffix):
    """(key, size) of each object whose key ends in `suffix`, biggest first; at most a thousand are listed."""
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", presigned(host, f"/{bucket}", {"list-type": "2"}))
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.findall(r"<Key>([^<]+)</Key>.*?<Size>(\d+)</Size>", text, re.S)
    return sorted(((k, int(n)) for k, n in found if k.endswith(suffix)), key=lambda o: -o[1])


def mib_per_s(host, bucket, suffix, mib, parallel):
    """MiB/s of `parallel` connections that fetch `mib` MiB of the biggest objects in ranges of 4 MiB; None without objects."""
    ranges, left = [], mib << 20
    for key, size in objects(host, bucket, suffix):
        url = presigned(host, f"/{bucket}/{key}", {})
        for at in range(0, size, RANGE):
            if left > 0:
                length = min(RANGE, size - at, left)
                ranges.append((url, at, length))
                left -= length
    if not ranges:
        return None
    asked = sum(length for _, _, length in ranges)
    ranges.reverse()
    failures = []

    def fetch():
        connection, buffer = http.client.HTTPConnection(host, timeout=30), bytearray(1 << 20)
        while ranges and not failures:
            try:
                url, at, length = ranges.pop()
            except IndexError:
                break
            connection.request("GET", url, headers={"Range": f"bytes={at}-{at + length - 1}"})
            answer, got = connection.getresponse(), 0
            while n := answer.readinto(buffer):
                got += n
            if answer.status != 206 or got != length:
                failures.append(f"status {answer.status}, {got} of {length} bytes")
        connection.close()

    began = time.monotonic()
    threads = [threading.Thread(target=fetch) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"raw GETs: {failures[0]}")
    return asked / 1048576 / (time.monotonic() - began)
