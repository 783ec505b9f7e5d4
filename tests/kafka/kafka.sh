#!/usr/bin/env bash
# Apache Kafka from Maven Central on this machine: one KRaft node (broker and controller), and Kafka's own tools.
#
#   kafka.sh fetch                              fetches the jars into the cache, if they are not there
#   kafka.sh start DIR PORT [KEY=VALUE ...]     formats DIR if it is new, starts a node on 127.0.0.1:PORT, waits until it serves
#   kafka.sh stop DIR                           SIGTERM, then waits until it has gone
#   kafka.sh kill DIR                           SIGKILL
#   kafka.sh tool MAIN_CLASS [ARG ...]          runs one of Kafka's tools, such as org.apache.kafka.tools.TopicCommand
#   kafka.sh classpath                          prints the class path of all jars
#
# KEY=VALUE are broker settings, written to DIR/server.properties over the defaults below. DIR/data holds the partitions,
# DIR/log what the node said, DIR/pid its process id. KAFKA_HEAP sets the node's heap (1g).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
version="$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/logmill-kafka-$version"
cluster_id=bG9nbWlsbC10ZXN0cy0wMQ

fail() { printf 'kafka.sh: %s\n' "$1" >&2; exit 1; }

fetch() {
  local key
  key="$(sha256sum "$here/pom.xml" | cut -c1-12)"
  [ "$(cat "$cache/ready" 2>/dev/null)" = "$key" ] && return
  rm -rf "$cache" && mkdir -p "$cache"
  mvn --quiet --batch-mode --file "$here/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$cache/jars" >&2
  printf '%s' "$key" >"$cache/ready"
}

free_port_from() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  printf '%s' "$port"
}

# Writes DIR/server.properties; settings given by the caller stand last, and the last one of a key counts.
configure() {
  local dir=$1 port=$2 controller
  shift 2
  controller="$(free_port_from $((port + 1)))"
  {
    printf '%s\n' \
      process.roles=broker,controller node.id=1 "controller.quorum.voters=1@127.0.0.1:$controller" \
      "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller" \
      "advertised.listeners=PLAINTEXT://127.0.0.1:$port" controller.listener.names=CONTROLLER \
      "log.dirs=$dir/data" num.partitions=1 offsets.topic.replication.factor=1 offsets.topic.num.partitions=16 \
      transaction.state.log.replication.factor=1 transaction.state.log.min.isr=1 \
      share.coordinator.state.topic.replication.factor=1 share.coordinator.state.topic.min.isr=1 \
      group.initial.rebalance.delay.ms=0
    [ $# -eq 0 ] || printf '%s\n' "$@"
  } >"$dir/server.properties"
}

start() {
  local dir port pid
  [ $# -ge 2 ] || fail "start needs a folder and a port"
  mkdir -p "$1" && dir="$(cd "$1" && pwd)" && port=$2
  shift 2
  fetch
  [ ! -f "$dir/pid" ] || ! kill -0 "$(cat "$dir/pid")" 2>/dev/null || fail "a node already runs in $dir"
  configure "$dir" "$port" "$@"
  if [ ! -f "$dir/data/meta.properties" ]; then
    java -cp "$cache/jars/*" -Dlog4j2.level=ERROR kafka.tools.StorageTool format --cluster-id "$cluster_id" \
      --config "$dir/server.properties" >"$dir/format.log" 2>&1 || fail "cannot format: $(cat "$dir/format.log")"
  fi
  # The options of Kafka's own start script.
  setsid java "-Xms${KAFKA_HEAP:-1g}" "-Xmx${KAFKA_HEAP:-1g}" -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
    -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true \
    -Dlog4j2.level=INFO -cp "$cache/jars/*" kafka.Kafka "$dir/server.properties" \
    >"$dir/log" 2>&1 </dev/null &
  pid=$!
  printf '%s' "$pid" >"$dir/pid"
  for _ in $(seq 600); do
    grep -q 'Kafka Server started' "$dir/log" && return
    kill -0 "$pid" 2>/dev/null || fail "the node died: $(tail -n 20 "$dir/log")"
    sleep 0.1
  done
  fail "the node is not ready after 60 s: $(tail -n 20 "$dir/log")"
}

end() {
  local signal=$1 dir=$2 pid
  pid="$(cat "$dir/pid" 2>/dev/null)" || return 0
  kill "-$signal" "$pid" 2>/dev/null || true
  for _ in $(seq 600); do
    kill -0 "$pid" 2>/dev/null || { rm -f "$dir/pid"; return; }
    sleep 0.1
  done
  fail "the node (process $pid) has not stopped after 60 s"
}

command="${1:-}"
[ $# -eq 0 ] || shift
case "$command" in
  fetch) fetch ;;
  start) start "$@" ;;
  stop) end TERM "$1" ;;
  kill) end KILL "$1" ;;
  tool) fetch && exec java -XX:TieredStopAtLevel=1 -Xshare:auto -Dlog4j2.level=WARN -cp "$cache/jars/*" "$@" ;;
  classpath) fetch && printf '%s\n' "$cache/jars/*" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
