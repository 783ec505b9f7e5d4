"""Runs the scenarios of one Python client and compares what it read with what was written.

A client's program is `main.py MODE` with BOOTSTRAP (host:port) in the environment. A scenario is a function that raises
where the client saw something else than a Kafka broker would have shown it. The names of scenarios are shared by the
programs of all clients; README.md says what each one means.
"""

import asyncio
import base64
import inspect
import json
import os
import pathlib
import sys
import time
import traceback
import uuid

BOOTSTRAP = os.environ["BOOTSTRAP"]
MANY_TOPICS = int(os.environ.get("MANY_TOPICS", "1000"))
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = json.loads((pathlib.Path(__file__).parent / "records.json").read_text())
LIMIT_S = 60
# How many topics the writers of the matrix have made.
MATRIX_TOPICS = int(os.environ.get("MATRIX_TOPICS", "1"))


def decode(text):
    return None if text is None else base64.b64decode(text)


def records(topic=""):
    """The shared records: (partition, key, value, headers, timestamp).

    A topic whose name ends in `plain` holds those without null values and duplicate keys in headers, which some clients
    cannot write.
    """
    for record in RECORDS:
        headers = [(name, decode(value)) for name, value in record["headers"]]
        plain = len(dict(headers)) == len(headers) and None not in dict(headers).values()
        if topic.endswith("plain") and not plain:
            continue
        yield record["partition"], decode(record["key"]), decode(record["value"]), headers, record["timestamp"]


def name(what):
    """A name that no other run uses."""
    return f"{what}-{uuid.uuid4().hex[:10]}"


def equal(found, expected, what):
    if found != expected:
        raise AssertionError(f"{what}: expected {shortened(expected)}, found {shortened(found)}")


def shortened(value):
    text = repr(value)
    return text if len(text) < 600 else f"{text[:600]}... ({len(text)} characters)"


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def until(condition, what, limit_s=LIMIT_S):
    """Calls until it returns something true, and returns that."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {limit_s} s")


def restart_node():
    """Asks whoever runs the program to restart the broker; false if nobody does."""
    print("RESTART?", flush=True)
    return sys.stdin.readline().strip() == "restarted"


def matrix(topics):
    """The topics of the matrix among these."""
    found = sorted(topic for topic in topics if topic.startswith("matrix-"))
    check(len(found) >= MATRIX_TOPICS, f"{MATRIX_TOPICS} topics of the matrix, found {found}")
    return found


def exactly_once(delivered, count):
    """Asserts that each of the values 0..count was delivered once."""
    missing = sorted(set(range(count)) - set(delivered))
    check(not missing, f"{len(missing)} of {count} records not delivered, such as {missing[:5]}")
    twice = len(delivered) - len(set(delivered))
    check(twice == 0, f"{twice} of {count} records delivered twice")


def main(scenarios):
    """Runs the scenarios named on the command line, or all but the halves of the matrix, and exits."""
    known = {scenario.__name__: scenario for scenario in scenarios}
    chosen = sys.argv[1:] or [scenario for scenario in known if scenario not in ("write_matrix", "read_matrix")]
    failed = 0
    for chosen_name in chosen:
        started = time.monotonic()
        try:
            result = known[chosen_name]()
            if inspect.iscoroutine(result):
                asyncio.run(result)
            print(f"PASS {chosen_name} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:  # what it is, is what the report says
            failed += 1
            trace = "".join(traceback.format_exception(error)).rstrip()
            print(f"FAIL {chosen_name}: {error!r}\n{trace}", flush=True)
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # threads of a client that failed may hang
