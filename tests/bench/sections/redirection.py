"""The redirection itself, in one process, over the same messages sent by hand; and what 200 of them leave behind."""

TITLE = "The redirection: enter, build, commit, routes, back, over the same messages sent by hand"


def run(bench):
    floor, subject = bench.measure_pairs(bench.program("apply"), str(bench.pairs))
    bench.table(["work", "by hand", "library", "ratio", "target"], [bench.compare("a new namespace", floor, subject, 1.5)])

    # What malloc keeps at hand for the next time (tcache) would count as in use.
    left = bench.run(bench.program("apply"), "--leaks", "200", GLIBC_TUNABLES="glibc.malloc.tcache_count=0")
    descriptors, heap, resident, rules = map(int, left.split())
    bench.table(["left by 200 namespaces", "found", "target"],
                [["descriptors", descriptors, bench.judge("descriptors left", descriptors, 1)],
                 ["bytes of heap", heap, bench.judge("heap left", heap, 1024)],
                 ["resident memory, kB", resident, bench.judge("resident memory grown", resident, 256)],
                 ["namespaces with rules", rules, bench.judge("rules left", rules, 1)]])
