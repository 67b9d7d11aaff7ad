package mermin.streams.record;

import java.util.Objects;

/**
 * Who an end of a flow is: the most telling name that the record has for it.
 *
 * <p>A pod is named by what it belongs to, since pods come and go; of a chain of owners the last one counts (a deployment, not
 * its replica set). What is no pod is a service, a node, a network of the configuration, or else the bare address.
 */
public class Workload {
    /** Kinds, the most telling first: a smaller ordinal wins. */
    public enum Kind {
        DEPLOYMENT, STATEFULSET, DAEMONSET, CRONJOB, JOB, REPLICASET, POD, SERVICE, NODE, NAMESPACE, NAME, ADDRESS;

        public String text() {
            return name().toLowerCase(java.util.Locale.ROOT);
        }
    }

    public Kind kind;
    /** Absent where the kind has none. */
    public String namespace;
    public String name;

    public Workload() {}

    public Workload(Kind kind, String namespace, String name) {
        this.kind = kind;
        this.namespace = namespace;
        this.name = name;
    }

    /** Takes a name that the record has, if it tells more than what is known so far. */
    public void offer(Kind kind, String name) {
        if (this.kind == null || kind.ordinal() < this.kind.ordinal()) {
            this.kind = kind;
            this.name = name;
        }
    }

    /** To be called when all of a record was read: nodes, networks and addresses are in no namespace. */
    public void settle() {
        if (kind != null && kind.ordinal() > Kind.NAMESPACE.ordinal() || kind == Kind.NODE) {
            namespace = null;
        }
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Workload w
                && kind == w.kind && Objects.equals(namespace, w.namespace) && Objects.equals(name, w.name);
    }

    @Override
    public int hashCode() {
        return Objects.hash(kind == null ? null : kind.name(), namespace, name);
    }

    @Override
    public String toString() {
        return kind + " " + namespace + "/" + name;
    }
}
