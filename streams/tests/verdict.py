"""Whether results are what they have to be: a list of what is not."""

import collections

SUMS = [side + what for side in ("flow.", "flow.reverse.") for what in ("packets", "bytes", "frame_bytes")] + ["flows.ended"]


def of(expected, results):
    return traffic(expected, results["traffic"]) + counts(expected, results) + conversations(expected, results["conversations"])


def traffic(expected, rows):
    """Every sum of every minute and pair of workloads; and no row of one in time comes twice."""
    problems = []
    sums = collections.Counter()
    seen = collections.Counter()
    timings = collections.Counter()
    for row in rows:
        ends = [tuple(row.get(f"{end}.workload.{part}") for part in ("kind", "namespace", "name")) for end in ("source", "destination")]
        key = (row["window.start"][:16], *ends)
        for name in SUMS:
            sums[key + (name,)] += row[name]
        timing = row.get("timing", "on_time")
        timings[timing] += row["records"]
        if timing == "on_time":
            seen[key] += 1
    wanted = expected.traffic
    for key in sums.keys() | wanted.keys():
        if sums[key] != wanted[key]:
            problems.append(f"traffic {key}: {sums[key]}, not {wanted[key]}")
    problems += [f"traffic {key}: {n} rows for one window" for key, n in seen.items() if n > 1]
    print(f"traffic: {len(rows)} rows, {len(wanted)} sums, records {dict(timings)}", flush=True)
    if timings["late"] == 0:
        problems.append("traffic: nothing was late, so corrections were not tried")
    return problems


def counts(expected, results):
    """What came twice or could not be read; and that all that is left stands in the traffic."""
    found = collections.Counter()
    for row in results["counts"]:
        found[row["name"]] += row["count"]
    print(f"counts: {dict(found)}", flush=True)
    problems = [f"count {name}: {found[name]}, not {expected.counts[name]}"
                for name in ("duplicate", "overlap", "malformed", "ahead", "unchecked") if found[name] != expected.counts[name]]
    records = collections.Counter()
    for row in results["traffic"]:
        records["all"] += row["records"]
        records[row.get("timing", "on_time")] += row["records"]
    if records["all"] != expected.counts["records"]:
        problems.append(f"records in the traffic: {records['all']}, not {expected.counts['records']}")
    if records["late"] != found["late"]:
        problems.append(f"late: {found['late']} counted, {records['late']} in corrections")
    return problems


def conversations(expected, rows):
    """Each that nothing late came to: one row, hops in order, what each had, where packets were lost."""
    problems = []
    by_id = collections.defaultdict(list)
    for row in rows:
        by_id[row["flow.community_id"]].append(row)
    right = rewritten = lossy = 0
    for key, (there, back, ids) in expected.conversations.items():
        if expected.uncertain.intersection(ids):
            continue
        found = [row for each in ids for row in by_id[each]]
        if len(found) != 1:
            problems.append(f"conversation {ids}: {len(found)} rows")
            continue
        row = found[0]
        for name, hops, wanted in (("hops", row["hops"], there), ("reverse.hops", row["reverse.hops"], back)):
            got = [(hop["node"], hop["tuple"], hop["packets"]) for hop in hops]
            if got != wanted:
                problems.append(f"conversation {key} {name}: {got}, not {wanted}")
            lost = [a[2] - b[2] for a, b in zip(wanted, wanted[1:])]
            if [hop["lost.packets"] for hop in hops[1:]] != lost:
                problems.append(f"conversation {key} {name}: lost {[hop.get('lost.packets') for hop in hops]}, not {lost}")
        if (row["flow.packets"], row["flow.reverse.packets"]) != (there[0][2], back[0][2]):
            problems.append(f"conversation {key}: {row['flow.packets']} packets, not {there[0][2]}")
        if row["conversation.event"] != "end" or not row["conversation.complete"]:
            problems.append(f"conversation {key}: {row['conversation.event']}, complete {row['conversation.complete']}")
        right += 1
        rewritten += "nat.tuples" in row
        lossy += row["flow.packets.lost"] > 0
        if ("nat.tuples" in row) != (len(ids) == 2):
            problems.append(f"conversation {key}: joined, but nothing rewrote it")
    print(f"conversations: {len(rows)} rows, {right} compared, {rewritten} of them rewritten, {lossy} with loss", flush=True)
    if min(right, rewritten, lossy) == 0:
        problems.append("conversations: nothing to compare")
    return problems
