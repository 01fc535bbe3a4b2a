"""One call of the static plugin, over one start of a static program that does nothing."""
import json

TITLE = "The plugin: one start, over a static program that does nothing"
# (what, verb, other namespaces that stand meanwhile, target)
CALLS = [("VERSION", "VERSION", 0, 1.7), ("ADD, enrollment always", "ADD", 0, 3), ("the same beside 250 redirected namespaces",
                                                                                "ADD", 250, None)]


def run(bench):
    rows = []
    for number, (what, verb, others, target) in enumerate(CALLS):
        configuration = bench.folder / f"plugin{number}.json"
        configuration.write_text(json.dumps({
            "cniVersion": "1.1.0", "name": "bench", "type": "ambient-cni", "enrollment": "always",
            "runDir": str(bench.folder / f"run{number}"),
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
                           "ips": [{"address": "10.244.0.7/24", "gateway": "10.244.0.1", "interface": 0}], "dns": {}}}))
        floor, subject = bench.measure_pairs(bench.program("start"), str(bench.pairs), str(others), verb, str(configuration),
                                             bench.program("nothing"), bench.plugin())
        rows.append(bench.compare(what, floor, subject, target))
    bench.table(["call", "nothing", "plugin", "ratio", "target"], rows)
