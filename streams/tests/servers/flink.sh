#!/usr/bin/env bash
# flink.sh DIR: puts Apache Flink into DIR, and DIR/flink to run a JobManager and TaskManagers as plain processes.
#
# Flink's own distribution is on Apache's servers only; PyPI has the same jars as apache-flink-libraries. All ports are on
# 127.0.0.1: REST $FLINK_PORT, the JobManager's RPC and blobs 42 and 43 above it. Data in $FLINK_DATA. For tests only.
# $FLINK_HEAP and $FLINK_MANAGED: a TaskManager's memory for state in MiB, in Java and in RocksDB; $FLINK_HEARTBEAT:
# after how many milliseconds of silence it counts as dead; $FLINK_CONFIG: more settings.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,7p' "$0"; exit 64; }
FLINK=2.2.1
mkdir -p "$1"; dir=$(cd "$1" && pwd)
if [ ! -e "$dir/lib/.$FLINK" ]; then
    work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
    python3 -m pip download -q --disable-pip-version-check --no-deps -d "$work" "apache-flink-libraries==$FLINK"
    unzip -q "$work"/apache_flink_libraries-*.whl 'pyflink/lib/*' 'pyflink/plugins/*' -d "$work"
    for d in lib plugins; do rm -rf "${dir:?}/$d"; mv "$work/pyflink/$d" "$dir/$d"; done
    touch "$dir/lib/.$FLINK"
fi
cat >"$dir/log4j2.properties" <<'P'
rootLogger.level = info
rootLogger.appenderRef.o.ref = o
appender.o.type = Console
appender.o.name = o
appender.o.layout.type = PatternLayout
appender.o.layout.pattern = %d %p %c{1} %m%n
P
cat >"$dir/flink" <<'SH'
#!/usr/bin/env bash
# flink start | tm-start N | tm-kill N | stop | --version
set -euo pipefail
dir=$(cd "$(dirname "$0")" && pwd)
[ "${1:-}" != --version ] || { basename "$dir"/lib/.[0-9]*; exit; }
data=${FLINK_DATA:?} port=${FLINK_PORT:?} slots=${FLINK_SLOTS:-2} heap=${FLINK_HEAP:-640} managed=${FLINK_MANAGED:-128}
open=$(printf -- '--add-opens=java.base/%s=ALL-UNNAMED ' java.lang java.net java.io java.nio java.util java.util.concurrent \
    java.util.concurrent.atomic java.util.concurrent.locks java.time java.text java.lang.reflect sun.net.util)
open="$open--add-exports=java.base/sun.net.util=ALL-UNNAMED --add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED"
run() { # NAME HEAP CLASS ARGS
    local name=$1 heap=$2; shift 2
    # shellcheck disable=SC2086
    FLINK_CONF_DIR="$data/conf" FLINK_PLUGINS_DIR="$dir/plugins" FLINK_LIB_DIR="$dir/lib" \
        java -Xmx"$heap" -Dlog4j2.configurationFile="$dir/log4j2.properties" $open ${JAVA_MORE:-} -cp "$dir/lib/*" "$@" \
        >>"$data/$name.log" 2>&1 </dev/null &
    echo $! >"$data/$name.pid"
}
tm() { # A TaskManager that is started by hand has to be told how its memory is divided.
    JAVA_MORE=-XX:MaxDirectMemorySize=400m run "tm$1" "$((heap + 128))m" \
        org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$data/conf" \
        -D taskmanager.memory.framework.heap.size=128m -D taskmanager.memory.task.heap.size="${heap}m" \
        -D taskmanager.memory.framework.off-heap.size=128m -D taskmanager.memory.task.off-heap.size=64m \
        -D taskmanager.memory.managed.size="${managed}m" -D taskmanager.memory.network.min=128m -D taskmanager.memory.network.max=128m \
        -D taskmanager.memory.jvm-metaspace.size=256m -D taskmanager.memory.jvm-overhead.min=64m \
        -D taskmanager.memory.jvm-overhead.max=64m -D taskmanager.cpu.cores="$slots" -D taskmanager.resource-id="tm$1-$$"
    for _ in $(seq 900); do
        curl -fs "http://127.0.0.1:$port/taskmanagers" 2>/dev/null | grep -q "\"id\":\"tm$1-$$\"" && return 0
        sleep 0.1
    done
    echo "TaskManager $1 is not there after 90 s, see $data/*.log" >&2; return 1
}
case ${1:-} in
start)
    mkdir -p "$data/conf" "$data/tmp"
    cat >"$data/conf/config.yaml" <<P
jobmanager.rpc.address: 127.0.0.1
jobmanager.bind-host: 127.0.0.1
jobmanager.rpc.port: $((port + 42))
blob.server.port: $((port + 43))
jobmanager.memory.process.size: 1024m
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: $port
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.memory.process.size: 1792m
taskmanager.numberOfTaskSlots: $slots
io.tmp.dirs: $data/tmp
execution.checkpointing.dir: file://$data/checkpoints
heartbeat.interval: 1000
heartbeat.timeout: ${FLINK_HEARTBEAT:-5000}
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 1000
restart-strategy.fixed-delay.delay: 500ms
${FLINK_CONFIG:-}
P
    run jm 512m org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$data/conf" --executionMode cluster
    tm 1 ;;
tm-start) tm "$2" ;;
tm-kill) kill -9 "$(cat "$data/tm$2.pid")"; rm -f "$data/tm$2.pid" ;;
stop) for f in "$data"/*.pid; do [ -e "$f" ] && { kill -9 "$(cat "$f")" 2>/dev/null || true; rm -f "$f"; }; done ;;
*) sed -n '2p' "$0"; exit 64 ;;
esac
SH
chmod +x "$dir/flink"
