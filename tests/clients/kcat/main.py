"""The scenarios with kcat, the command line of librdkafka; topics that need settings are made on first use."""

import json
import pathlib
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from scenario import BOOTSTRAP, CODECS, LIMIT_S, check, equal, exactly_once, main, matrix, name, records, until


def kcat(*arguments, given=b"", may_fail=False):
    done = subprocess.run(["kcat", "-b", BOOTSTRAP, "-m", "20", *arguments], input=given, capture_output=True, timeout=LIMIT_S)
    if not may_fail and done.returncode != 0:
        raise AssertionError(f"kcat {arguments}: {done.stderr.decode()}")
    return done


def send(topic, *arguments, given):
    """Produces; creates the topic if it is missing."""
    kcat("-P", "-t", topic, *arguments, given=given)


def read(topic, *arguments):
    return json_lines(kcat("-C", "-t", topic, "-e", "-q", "-J", *arguments).stdout)


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def cluster():
    found = json.loads(kcat("-L", "-J").stdout)
    equal([node["name"] for node in found["brokers"]], [BOOTSTRAP], "nodes")
    equal(found["controllerid"], found["brokers"][0]["id"], "controller")


def topics():
    topic = name("kcat")
    send(topic, given=b"1\n")
    found = json.loads(kcat("-L", "-J", "-t", topic).stdout)["topics"][0]
    equal([(p["partition"], len(p["replicas"]), len(p["isrs"])) for p in found["partitions"]], [(0, 1, 1)], "partitions")


def topic_errors():
    done = kcat("-C", "-t", name("unknown"), "-e", "-X", "allow.auto.create.topics=false", may_fail=True)
    check(done.returncode != 0 and b"Unknown topic or partition" in done.stderr, f"an unknown topic: {done.stderr}")


def produce_codecs():
    topic, expected = name("codecs"), []
    for codec in CODECS:
        for acks in ("0", "1", "all"):
            values = [f"{codec} {acks} {i} {'x' * 200}" for i in range(20)]
            send(topic, "-z", codec, "-X", f"acks={acks}", given="\n".join(values).encode())
            expected += values
            # Without acknowledgement the next producer might overtake this one.
            until(lambda: [m["payload"] for m in read(topic)] == expected, f"{codec}, acks={acks}")


def produce_idempotent():
    topic, values = name("idempotent"), [str(i) for i in range(2000)]
    send(topic, "-X", "enable.idempotence=true", "-X", "batch.num.messages=10", given="\n".join(values).encode())
    found = read(topic)
    equal([(m["offset"], m["payload"]) for m in found], list(enumerate(values)), "values in order")


def record_fields():
    topic = name("fields")
    headers = ("-H", "a=1", "-H", "b=2", "-H", "a=3", "-H", "empty=", "-H", "null")
    send(topic, "-K:", *headers, given=b"key:value\n")
    send(topic, "-K:", "-Z", given=b"tombstone:\n:no key\n")
    first, second, third = read(topic)
    equal((first["key"], first["payload"]), ("key", "value"), "key and value")
    equal(first["headers"], ["a", "1", "b", "2", "a", "3", "empty", "", "null", None], "headers")
    equal((second["key"], second["payload"]), ("tombstone", None), "a null value")
    equal((third["key"], third["payload"]), (None, "no key"), "a null key")


def positions():
    topic = name("positions")
    send(topic, given="\n".join(map(str, range(100))).encode())
    equal(read(topic, "-o", "42", "-c", "1")[0]["payload"], "42", "from an offset")
    equal(read(topic, "-o", "beginning", "-c", "1")[0]["payload"], "0", "from the beginning")
    equal([m["payload"] for m in read(topic, "-o", "-3")], ["97", "98", "99"], "the last three")
    equal(read(topic, "-o", "end"), [], "nothing at the end")
    time.sleep(0.01)
    start = int(time.time() * 1000)
    send(topic, given=b"later\n")
    equal([m["payload"] for m in read(topic, "-o", f"s@{start}")], ["later"], "from a time")
    found = kcat("-Q", "-t", f"{topic}:0:-1", "-t", f"{topic}:0:-2").stdout.decode()
    check("offset 101" in found or "offset 0" in found, f"offsets: {found}")


def large_messages():
    value = b"x" * (900 << 10)
    topic = name("large")
    send(topic, "-D", "\n", given=value + b"\n" + value[1:])
    equal([len(m["payload"]) for m in read(topic)], [len(value), len(value) - 1], "large messages")
    done = kcat("-P", "-t", topic, "-X", "message.max.bytes=5000000", given=b"x" * (2 << 20), may_fail=True)
    check(b"too large" in done.stderr.lower() or b"MSG_SIZE_TOO_LARGE" in done.stderr, f"too large: {done.stderr[:300]}")


class Member(threading.Thread):
    """`kcat -G` in a process of its own; commits by itself, and when it is told to go."""

    def __init__(self, group, topic, delivered):
        super().__init__(daemon=True)
        self.delivered, self.count = delivered, 0
        settings = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=300",
                    "-X", "partition.assignment.strategy=cooperative-sticky"]
        command = ["kcat", "-b", BOOTSTRAP, "-G", group, "-q", "-u", *settings, topic]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.delivered.append(int(line))
            self.count += 1

    def leave(self):
        self.process.terminate()
        equal(self.process.wait(LIMIT_S), 0, "exit of a member")
        self.join(LIMIT_S)


def group_of_three():
    topic, group, delivered = name("group"), name("group"), []
    send(topic, given="\n".join(map(str, range(1000))).encode())
    first = Member(group, topic, delivered)
    until(lambda: len(delivered) >= 1000, f"the first 1000 records, now {len(delivered)}")
    others = [Member(group, topic, delivered) for _ in range(2)]
    first.leave()
    send(topic, given="\n".join(map(str, range(1000, 2000))).encode())
    until(lambda: len(delivered) >= 2000, f"all records, now {len(delivered)}")
    for member in others:
        member.leave()
    exactly_once(delivered, 2000)


def read_matrix():
    for topic in matrix(one["topic"] for one in json.loads(kcat("-L", "-J").stdout)["topics"]):
        # kcat prints headers as text: compared is everything else.
        expected = [(p, t, -1 if k is None else len(k), -1 if v is None else len(v), (k or b"") + (v or b""))
                    for p, k, v, _, t in records(topic)]
        for partition in range(3):
            printed = kcat("-C", "-t", topic, "-p", str(partition), "-e", "-q", "-f", "%T %K %S\n%k%s\n").stdout
            equal(parsed(printed, partition), [one for one in expected if one[0] == partition], topic)


def parsed(printed, partition):
    found = []
    while printed:
        head, _, printed = printed.partition(b"\n")
        timestamp, key, value = map(int, head.split())
        end = max(key, 0) + max(value, 0)
        found.append((partition, timestamp, key, value, printed[:end]))
        printed = printed[end + 1:]
    return found


if __name__ == "__main__":
    main([
        cluster, topics, topic_errors, produce_codecs, produce_idempotent, record_fields, positions, large_messages,
        group_of_three, read_matrix,
    ])
