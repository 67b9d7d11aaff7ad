#!/usr/bin/env bash
# kafka.sh DIR: puts an Apache Kafka broker (KRaft, one node) into DIR, from Maven Central, and DIR/kafka to run it.
#
# All ports are on 127.0.0.1: clients $KAFKA_PORT, controller one more. Data in $KAFKA_DATA. For tests only.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,4p' "$0"; exit 64; }
# The jars are those of the project's other tests.
pom=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/tests/servers/kafka/pom.xml
mkdir -p "$1"; dir=$(cd "$1" && pwd)
if [ ! -e "$dir/lib" ]; then
    rm -rf "$dir/partial"
    mvn -B -q -ntp -f "$pom" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$dir/partial"
    mv "$dir/partial" "$dir/lib"
fi
cat >"$dir/log4j2.properties" <<'P'
rootLogger.level = warn
rootLogger.appenderRef.o.ref = o
appender.o.type = Console
appender.o.name = o
appender.o.layout.type = PatternLayout
appender.o.layout.pattern = %d %p %c{1} %m%n
P
cat >"$dir/kafka" <<'SH'
#!/usr/bin/env bash
# kafka start | stop | topic NAME PARTITIONS | lag GROUP TOPIC
set -euo pipefail
dir=$(cd "$(dirname "$0")" && pwd)
data=${KAFKA_DATA:?} port=${KAFKA_PORT:?}
j() { java -Dlog4j2.configurationFile="$dir/log4j2.properties" -cp "$dir/lib/*" "$@"; }
case ${1:-} in
start)
    mkdir -p "$data"
    cat >"$data/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$data/logs
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# Records have the time of their packets, and tests' captures are years old.
log.retention.ms=-1
P
    [ -e "$data/logs/meta.properties" ] ||
        j -Xmx256m kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c "$data/server.properties" >"$data/format.log" 2>&1
    j -Xms512m -Xmx512m -XX:+UseG1GC kafka.Kafka "$data/server.properties" >>"$data/log" 2>&1 </dev/null &
    pid=$!
    echo $pid >"$data/pid"
    for _ in $(seq 600); do
        kill -0 $pid 2>/dev/null || { echo "kafka ended, see $data/log" >&2; exit 1; }
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && exit 0
        sleep 0.1
    done
    echo "kafka is not there after 60 s, see $data/log" >&2; exit 1 ;;
stop)
    [ -s "$data/pid" ] || exit 0
    pid=$(cat "$data/pid"); kill -9 "$pid" 2>/dev/null || true; rm -f "$data/pid" ;;
topic)
    j -Xmx256m -XX:TieredStopAtLevel=1 org.apache.kafka.tools.TopicCommand --bootstrap-server "127.0.0.1:$port" \
        --create --topic "$2" --partitions "$3" 2>&1 | grep -v '^WARNING' ;;
lag) # What the group has not committed of the topic's messages.
    j -Xmx256m -XX:TieredStopAtLevel=1 org.apache.kafka.tools.consumer.group.ConsumerGroupCommand \
        --bootstrap-server "127.0.0.1:$port" --describe --group "$2" 2>/dev/null |
        awk -v topic="$3" '$2 == topic { known = 1; lag += $6 == "-" ? $5 : $6 } END { print known ? lag : "unknown" }' ;;
*) sed -n '2p' "$0"; exit 64 ;;
esac
SH
chmod +x "$dir/kafka"
