"""Logmill beside Apache Kafka: the same client, the same partitions, the same fsync policy, in turns.

Both brokers run all the time, and are measured one after the other in every round, so that a busy machine slows both.
One uncounted round first warms the JVM's compiler and both allocators. A run has a topic of its own, and begins after
a sync, so that it does not pay for the pages that the last one left. What counts as the broker's CPU time is the user and
system time of its process during the run, as /proc tells it.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
KAFKA = HERE.parent / "kafka" / "kafka.sh"
README = HERE / "README.md"
MARK = ("<!-- table: written by tests/bench/run -->", "<!-- end of table -->")
TICK = os.sysconf("SC_CLK_TCK")
MB = 1e6

# When an acknowledgement means that the disk has the record: topic configs of each broker.
POLICIES = {
    "os": {"logmill": ["flush=os"], "kafka": []},
    "sync": {"logmill": [], "kafka": ["flush.messages=1"]},
}


class Broker:
    """A running broker."""

    def __init__(self, name, title, pid, port):
        self.name, self.title, self.pid = name, title, pid
        self.address = f"127.0.0.1:{port}"

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        """Resident now and at most, in MB."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return tuple(int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024 / MB for key in ("VmRSS", "VmHWM"))


class Scenario:
    """Something that is measured: how the client is called, on which topic."""

    def __init__(self, kind, title, policy, record_bytes, records, arguments):
        self.kind, self.title, self.policy = kind, title, policy
        self.record_bytes, self.records, self.arguments = record_bytes, records, arguments


def scenarios(scale):
    def count(number):
        return max(1000, int(number * scale))

    found = []
    for size, fast, synced in ((100, 2_000_000, 300_000), (1000, 400_000, 80_000)):
        for policy, acks in (("os", "1"), ("os", "all"), ("sync", "all")):
            for producers in (1, 8):
                records = count(fast if policy == "os" else synced)
                title = f"{size} B, acks={acks}{', synced' if policy == 'sync' else ''}, producers: {producers}"
                arguments = ["--acks", acks, "--producers", producers]
                found.append(Scenario("produce", title, policy, size, records, arguments))
    for size, records in ((100, 3_000_000), (1000, 600_000)):
        found.append(Scenario("consume", f"{size} B", "os", size, count(records), []))
    for policy in ("os", "sync"):
        title = f"100 B, 20,000 records/s, acks=all{', synced' if policy == 'sync' else ''}"
        seconds = max(1, int(10 * scale))
        arguments = ["--acks", "all", "--rate", 20_000, "--seconds", seconds, "--warm-up-seconds", 2]
        found.append(Scenario("latency", title, policy, 100, None, arguments))
        # What a sync costs shows in the acknowledgement: consumers of Logmill see a record as soon as it is appended.
        arguments = ["--acks", "all", "--rate", 20_000, "--linger-ms", 1]
        found.append(Scenario("acknowledge", title, policy, 100, 20_000 * seconds, arguments))
    return found


class Bench:
    def __init__(self, options):
        self.options, self.brokers, self.children = options, [], []
        self.folder = pathlib.Path(options.dir).resolve()

    def start(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        port = free_port()
        log = open(self.folder / "logmill.log", "w")
        command = [self.options.binary, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", self.folder / "logmill"]
        child = subprocess.Popen(command, stderr=log, stdout=log)
        self.children.append(child)
        version = subprocess.check_output([self.options.binary, "--version"], text=True).split()[1]
        self.brokers.append(Broker("logmill", f"Logmill {version}", child.pid, port))
        wait_for_port(port)
        port = free_port()
        kafka = self.folder / "kafka"
        settings = ["log.segment.delete.delay.ms=1000", "auto.create.topics.enable=false"]
        subprocess.run([KAFKA, "start", kafka, str(port), *settings], check=True)
        version = re.search(r"<kafka.version>(.*)</kafka.version>", (KAFKA.parent / "pom.xml").read_text())[1]
        pid = int((kafka / "pid").read_text())
        self.brokers.append(Broker("kafka", f"Apache Kafka {version}", pid, port))

    def stop(self):
        for child in self.children:
            child.send_signal(signal.SIGTERM)
            child.wait()
        if (self.folder / "kafka" / "pid").exists():
            subprocess.run([KAFKA, "stop", self.folder / "kafka"], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, broker, *arguments):
        command = [self.options.binary, *arguments, "--bootstrap", broker.address]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LOGMILL_")}
        done = subprocess.run([str(a) for a in command], capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
        return done.stdout

    def topic(self, broker, scenario, name):
        configs = [part for config in POLICIES[scenario.policy][broker.name] for part in ("--config", config)]
        self.client(broker, "topic", "create", name, "--partitions", self.options.partitions, *configs)

    def produce(self, broker, scenario, name, arguments):
        size = ["--topic", name, "--record-bytes", scenario.record_bytes, "--records", scenario.records]
        return self.client(broker, "bench", "kafka", "produce", "--json", *size, *arguments)

    def measure(self, broker, scenario, name):
        """One run: the client's figures, and what the broker used."""
        if scenario.kind == "consume":
            # Read three times and more, written once.
            if name.endswith("-0"):
                self.topic(broker, scenario, scenario_topic(scenario))
                self.produce(broker, scenario, scenario_topic(scenario), ["--acks", "1"])
        else:
            self.topic(broker, scenario, name)
        os.sync()
        before = broker.cpu_seconds()
        if scenario.kind in ("produce", "acknowledge"):
            printed = self.produce(broker, scenario, name, scenario.arguments)
        elif scenario.kind == "consume":
            printed = self.client(broker, "bench", "kafka", "consume", "--json", "--topic", scenario_topic(scenario))
        else:
            size = ["--topic", name, "--record-bytes", scenario.record_bytes]
            printed = self.client(broker, "bench", "kafka", "latency", "--json", *size, *scenario.arguments)
        cpu = broker.cpu_seconds() - before
        if scenario.kind != "consume":
            self.client(broker, "topic", "delete", name)
        return {**json.loads(printed), "cpu_seconds": cpu}

    def run(self):
        found = [s for s in scenarios(self.options.scale) if re.search(self.options.only, f"{s.kind} {s.title}")]
        idle = {broker.name: broker.memory()[0] for broker in self.brokers}
        results = {}
        for round_number in range(self.options.rounds + 1):
            for number, scenario in enumerate(found):
                for broker in self.brokers:
                    result = self.measure(broker, scenario, f"bench-{number}-{round_number}")
                    told = f"{result['bytes_per_second'] / MB:.1f} MB/s, broker's CPU {result['cpu_seconds']:.2f} s"
                    if result["latency_us"]:
                        told += f", p99 {result['latency_us']['p99'] / 1000:.2f} ms"
                    warm = " (warm-up)" if round_number == 0 else ""
                    print(f"{scenario.kind} {scenario.title}: {broker.name}{warm}: {told}", file=sys.stderr, flush=True)
                    if round_number > 0:
                        results.setdefault((scenario.kind, scenario.title), {}).setdefault(broker.name, []).append(result)
        memory = {broker.name: (idle[broker.name], *broker.memory()) for broker in self.brokers}
        return results, memory


def scenario_topic(scenario):
    return f"consume-{scenario.record_bytes}"


def free_port():
    """A port that is free, and the next one too; below those that the system gives to outgoing connections."""
    for port in range(random.randrange(20_000, 30_000, 2), 32_000, 2):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
                return port
            except OSError:
                continue
    raise SystemExit("no port is free")


def wait_for_port(port):
    for _ in range(600):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("logmill does not listen")


def spread(values, digits):
    """Median, and the range in brackets."""
    text = f"{statistics.median(values):,.{digits}f}"
    return f"{text} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def ratio(ours, theirs):
    theirs = statistics.median(theirs)
    return f"{statistics.median(ours) / theirs:.2f}" if theirs else "-"


def table(title, heading, brokers, rows, digits):
    """Rows are (name, our values, their values)."""
    lines = [f"### {title}", "", f"| {heading} | {brokers[0].title} | {brokers[1].title} | ratio |", "|---|---:|---:|---:|"]
    for name, ours, theirs in rows:
        lines.append(f"| {name} | {spread(ours, digits)} | {spread(theirs, digits)} | {ratio(ours, theirs)} |")
    return "\n".join(lines) + "\n"


def report(brokers, results, memory, options):
    def rows(kinds, value):
        found = []
        for (kind, title), by_broker in results.items():
            if kind in kinds:
                sides = [[value(result) for result in by_broker[broker.name]] for broker in brokers]
                found.append((f"{kind} {title}", *sides))
        return found

    def per_cpu(result):
        return result["bytes"] / MB / max(result["cpu_seconds"], 1 / TICK)

    def latencies(kind):
        return [
            (f"{title.removeprefix(kind).strip()}, {name.replace('p999', 'p99.9')}", ours, theirs)
            for name in ("p50", "p99", "p999")
            for title, ours, theirs in rows({kind}, lambda result: result["latency_us"][name] / 1000)
        ]

    machine = f"{os.cpu_count()} cores, {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    parts = [
        f"Measured on {machine}, {platform.system()} {platform.release()}; client and broker share the cores. "
        f"{options.partitions} partitions, {options.rounds} rounds: median (smallest–largest).\n",
        table("Throughput, MB/s", "", brokers, rows({"produce", "consume"}, lambda r: r["bytes_per_second"] / MB), 1),
        table("Throughput per CPU second of the broker, MB", "", brokers, rows({"produce", "consume"}, per_cpu), 1),
        table("From when a record was due until it was consumed, ms", "", brokers,
              latencies("latency"), 2),
        table("From when a record was due until it was acknowledged, ms", "", brokers, latencies("acknowledge"), 2),
        table("CPU seconds of the broker at that rate", "", brokers, rows({"latency"}, lambda r: r["cpu_seconds"]), 2),
        table("p99 from send to acknowledgement at full load, ms", "", brokers,
              rows({"produce"}, lambda r: r["latency_us"]["p99"] / 1000), 1),
        memory_table(brokers, memory),
    ]
    return "\n".join(parts)


def memory_table(brokers, memory):
    lines = ["### Resident memory of the broker, MB", "", f"| | {brokers[0].title} | {brokers[1].title} | ratio |", "|---|---:|---:|---:|"]
    for index, name in enumerate(("after start", "after all runs", "at most")):
        ours, theirs = (memory[broker.name][index] for broker in brokers)
        lines.append(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |")
    return "\n".join(lines) + "\n"


def write(text):
    """Puts the tables between their marks."""
    readme = README.read_text()
    before, rest = readme.split(MARK[0])
    after = rest.split(MARK[1])[1]
    README.write_text(f"{before}{MARK[0]}\n\n{text}\n{MARK[1]}{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    parser.add_argument("--binary", default=os.environ.get("LOGMILL_BENCH_BINARY"), help="the logmill to measure")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the records; below 1 nothing is written")
    parser.add_argument("--only", default="", help="measure what matches this pattern; nothing is written")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--dir", default=f"{target}/bench", help="where the brokers keep their data; emptied")
    parser.add_argument("--results", help="write every run's figures to this JSON file as well")
    options = parser.parse_args()
    bench = Bench(options)
    try:
        bench.start()
        results, memory = bench.run()
    finally:
        bench.stop()
    text = report(bench.brokers, results, memory, options)
    print(text)
    if options.results:
        runs = [{"kind": kind, "title": title, **by} for (kind, title), by in results.items()]
        pathlib.Path(options.results).write_text(json.dumps({"runs": runs, "memory_mb": memory}, indent=1))
    if options.scale >= 1 and not options.only:
        write(text)


if __name__ == "__main__":
    main()
