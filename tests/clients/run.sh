#!/usr/bin/env bash
# Runs the program of one Kafka client against a broker, or sets all of them up.
#
#   BOOTSTRAP=127.0.0.1:9092 tests/clients/run.sh CLIENT [SCENARIO ...]
#   tests/clients/run.sh setup
#
# CLIENT is a name of the list below. What it needs is fetched and built once into a cache folder, by the hash of what it
# is made from. Without scenarios all run, but for the halves of the matrix: write_matrix, read_matrix.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/logmill-clients"
clients=(kcat confluent kafka-python aiokafka java-3.9 java-4.1 franz-go kafkajs kafka-tools)
mkdir -p "$cache"

key() { cat "$@" | sha256sum | cut -c1-12; }

# once FOLDER FUNCTION: fills FOLDER, if it is not there whole, while others who want the same wait.
once() {
  local folder=$1 fill=$2
  [ -f "$folder/ready" ] && return
  (
    flock 9
    [ -f "$folder/ready" ] && exit
    rm -rf "$folder" && mkdir -p "$folder" && "$fill" "$folder" >&2 && touch "$folder/ready"
  ) 9>"$folder.lock"
  [ -f "$folder/ready" ]
}

python="$cache/python-$(key "$here/requirements.txt")"
fill_python() {
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
}

java_39="$cache/java-3.9-$(key "$here/java/pom.xml")"
fill_java_39() {
  mvn --quiet --batch-mode --file "$here/java/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$1"
}

# The jars of 4.1 are those of Apache Kafka itself.
classes="$(key "$here"/java/* "$here"/kafka-tools/* "$here/../kafka/pom.xml")"
fill_classes_39() { javac -nowarn -XDsuppressNotes -d "$1" -cp "$java_39/*" "$here"/java/*.java; }
fill_classes_41() { javac -nowarn -XDsuppressNotes -d "$1" -cp "$kafka" "$here"/java/*.java "$here"/kafka-tools/*.java; }

franz_go="$cache/franz-go-$(key "$here"/franz-go/*)"
fill_franz_go() { (cd "$here/franz-go" && GOFLAGS=-mod=readonly go build -o "$1/franz-go" .); }

kafkajs="$cache/kafkajs-$(key "$here/kafkajs/package-lock.json")"
fill_kafkajs() { cp "$here"/kafkajs/package*.json "$1" && (cd "$1" && npm ci --silent --no-audit --no-fund); }

prepare() {
  case "$1" in
    kcat | confluent | kafka-python | aiokafka) once "$python" fill_python ;;
    java-3.9) once "$java_39" fill_java_39 && once "$cache/classes-3.9-$classes" fill_classes_39 ;;
    java-4.1 | kafka-tools)
      kafka="$("$here/../kafka/kafka.sh" classpath)"
      once "$cache/classes-4.1-$classes" fill_classes_41
      ;;
    franz-go) once "$franz_go" fill_franz_go ;;
    kafkajs) once "$kafkajs" fill_kafkajs ;;
    *) printf 'run.sh: no client %s; there are: %s\n' "$1" "${clients[*]}" >&2 && exit 2 ;;
  esac
}

client="${1:?which client? ${clients[*]}}"
shift
if [ "$client" = setup ]; then
  for client in "${clients[@]}"; do prepare "$client"; done
  exit
fi
: "${BOOTSTRAP:?the broker to test, as host:port}"
prepare "$client"
export CLIENT="$client" RECORDS="$here/records.json"
java=(java -XX:TieredStopAtLevel=1 -Xmx512m -Dlog4j2.level=OFF -Dorg.slf4j.simpleLogger.defaultLogLevel=off)
case "$client" in
  kcat | confluent | kafka-python | aiokafka) exec "$python/bin/python" "$here/$client/main.py" "$@" ;;
  java-3.9) exec "${java[@]}" -cp "$cache/classes-3.9-$classes:$java_39/*" Main "$@" ;;
  java-4.1) exec "${java[@]}" -cp "$cache/classes-4.1-$classes:$kafka" Main "$@" ;;
  kafka-tools) exec "${java[@]}" -cp "$cache/classes-4.1-$classes:$kafka" Tools "$@" ;;
  franz-go) exec "$franz_go/franz-go" "$@" ;;
  kafkajs) NODE_PATH="$kafkajs/node_modules" KAFKAJS_NO_PARTITIONER_WARNING=1 exec node "$here/kafkajs/main.js" "$@" ;;
esac
