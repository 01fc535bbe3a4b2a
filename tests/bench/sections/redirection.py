"""The redirection itself, in one process, over the same messages sent by hand; and what 200 of them leave behind."""

TITLE = "The redirection: enter, build, commit, routes, back, over the same messages sent by hand"


def run(bench):
    floor, subject = bench.measure_pairs(bench.program("apply"), str(bench.pairs))
    bench.table(["work", "by hand", "library", "ratio", "target"], [bench.compare("a new namespace", floor, subject, 1.5)])

    descriptors, heap, resident, rules = map(int, bench.run(bench.program("apply"), "--leaks", "200").split())
    bench.table(["left by 200 namespaces", "found", "target"],
                [["descriptors", descriptors, bench.judge("descriptors left", descriptors, 1)],
                 # What the allocator keeps in its caches counts as in use; make asan looks for single lost bytes.
                 ["bytes of heap", heap, bench.judge("heap left", heap, 16384)],
                 ["resident memory, kB", resident, bench.judge("resident memory grown", resident, 256)],
                 ["namespaces with rules", rules, bench.judge("rules left", rules, 1)]])
