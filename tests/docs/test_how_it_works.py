"""docs/how-it-works.md and its picture: the rules are those that the library installs, the numbers those of the headers, and what is
named is there."""
import re
import subprocess
import xml.etree.ElementTree as ET

import pytest

from netns import redirect
from netns.namespace import Namespace
from probe.host import POD, Host

from .documents import REPOSITORY, find_function, find_test, rows

DOCUMENT = (REPOSITORY / "docs/how-it-works.md").read_text()
SOURCE = (REPOSITORY / "lib/redirect_ruleset.c").read_text()
PICTURE = REPOSITORY / "docs/images/packet-path.svg"
BLOCKS = re.findall(r"^```nft\n(.*?)^```", DOCUMENT, re.S | re.M)
CHAINS = {block.split()[1]: block for block in BLOCKS if block.startswith("chain ")}
(TIMEOUT,) = [block for block in BLOCKS if block.startswith("ct timeout ")]
(HOST_RULES,) = [block.splitlines() for block in BLOCKS if block.split()[0] not in ("chain", "ct")]
# In the order in which the library makes them, which is the order of a listing.
ORDER = ["prerouting-zone", "prerouting", "prerouting-redirect", "input", "output-zone", "output", "output-redirect"]


@pytest.fixture
def namespaces():
    made = [Namespace(), Namespace()]
    yield made
    for namespace in made:
        namespace.close()


def listing(namespace, table):
    return re.sub(r"counter packets \d+ bytes \d+", "counter", namespace.run("nft", "list", "table", "inet", table))


def table(chains):
    return f"table inet {redirect.TABLE} {{\n{TIMEOUT}" + "\n".join(CHAINS[name] for name in chains) + "}\n"


@pytest.mark.parametrize("stage, chains", [
    ("full", ORDER), ("guard", [name for name in ORDER if "redirect" not in name] + ["output-nat"])])
def test_the_rules_are_those_that_the_library_installs(namespaces, stage, chains):
    documented, real = namespaces
    documented.nft(table(chains))
    (redirect.apply if stage == "full" else redirect.guard)(real)
    shown = listing(documented, redirect.TABLE)
    assert shown.count("comment") > 4
    assert shown == listing(real, redirect.TABLE)


def test_rule_and_route_are_those_that_the_library_installs(namespaces):
    _, real = namespaces
    redirect.apply(real)
    (block,) = re.findall(r"^```text\n(.*?)^```", DOCUMENT, re.S | re.M)
    rule, route = [" ".join(line.split()[2:]) for line in block.splitlines()]
    for family in ("-4", "-6"):
        assert rule in [" ".join(line.split()) for line in real.run("ip", family, "rule").splitlines()]
        said = real.run("ip", family, "route", "show", "table", rule.split()[-1]).splitlines()
        # IPv6 lists a metric and a preference too.
        assert len(said) == 1 and set(route.split()) - {"table", rule.split()[-1]} <= set(said[0].split()), (route, said)


def test_the_hosts_rules_are_those_that_the_agent_installs(namespaces):
    documented, place = namespaces[0], Host()
    try:
        place.enrol(POD[4], POD[6])
        real = [line.strip() for line in listing(place.host, "ambient-cni-host").splitlines()]
        documented.nft("table inet ambient-cni-host {\nset pods-ipv4 { type ipv4_addr; }\nset pods-ipv6 { type ipv6_addr; }\n"
                       "chain postrouting {\ntype nat hook postrouting priority srcnat - 1; policy accept;\n"
                       + "\n".join(HOST_RULES) + "\n}\n}\n")
        shown = [line.strip() for line in listing(documented, "ambient-cni-host").splitlines()]
        assert len(HOST_RULES) == 2 and [line for line in real if "comment" in line] == [line for line in shown if "comment" in line]
        assert [line for line in real if line.startswith("type nat")] == [line for line in shown if line.startswith("type nat")]
    finally:
        place.close()


def rule_names(text):
    return re.findall(r'comment "([^"]+)"', text)


def test_each_rule_is_explained_below_its_chain():
    for name in ("prerouting-redirect", "output-redirect"):
        section = DOCUMENT.partition(f": chain {name}")[2].partition("\n## ")[0]
        explained = [word for row in rows(section) for word in row[0].split(", ")]
        assert sorted(explained) == sorted(rule_names(CHAINS[name]))


def test_each_rule_is_built_in_the_function_that_the_section_names():
    """Every rule, in lib/redirect_ruleset.c, between the beginning and the end of the function."""
    checked = 0
    for section in DOCUMENT.split("\n## ")[1:]:
        built = re.findall(r"^Built by (.*?)\.$", section, re.S | re.M)
        names = [name for block in re.findall(r"^```nft\n(chain .*?)^```", section, re.S | re.M) for name in rule_names(block)]
        if not names:
            continue
        functions = re.findall(r"`([a-z_]+)`", built[0].partition(";")[0])
        text = "".join(find_function("lib/redirect_ruleset.c", function) for function in functions)
        for name in names:
            assert f'"{name}"' in text, (name, functions)
            checked += 1
    assert checked == sum(len(rule_names(chain)) for chain in CHAINS.values())


def test_functions_and_tests_that_are_named_are_there():
    checked = 0
    for row in rows(DOCUMENT):
        words = re.findall(r"`([^`]+)`", " | ".join(row))
        for name in (word for word in words if "::" in word):
            find_test(name)
            checked += 1
        files = [word for word in words if word.endswith(".c")]
        for function in (word for word in words if files and re.fullmatch(r"[a-z]+(_[a-z]+)+", word)):
            find_function(files[0], function)
            checked += 1
    assert checked == 22
    for function, file in re.findall(r"`(\w+)` in\s+`([\w/]+\.c)`", DOCUMENT):
        find_function(file, function)
    for function in ("add_rule_request", "add_route_request"):
        assert function in DOCUMENT and find_function("lib/route.c", function)


def define(name):
    text = (REPOSITORY / "include/ambient/redirect.h").read_text()
    return re.search(rf"^#define {name} (\w+?)u?(?:\s|$)", text, re.M).group(1)


def test_the_pictures_numbers_are_those_of_the_headers():
    texts = ["".join(element.itertext()) for element in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text")]
    found = {word for text in texts for word in re.findall(r"0x[0-9a-f]+|\d+(?:\.\d+){3}|\b\d+\b", text)}
    names = ["TUNNEL_MARK", "CONNECTION_MARK", "ROUTE_TABLE", "RULE_PREFERENCE", "PORT_OUTBOUND", "PORT_INBOUND", "PORT_HBONE",
             "PORT_DNS", "DNS_ZONE"]
    probe = re.search(r"\d+\.\d+\.\d+\.\d+", HOST_RULES[0]).group(0)
    assert found == {define(f"REDIRECT_{name}") for name in names} | {probe, "53"}


def test_the_pictures_rules_and_chains_are_real_ones():
    tree = ET.parse(PICTURE)
    words = {kind: {"".join(element.itertext()) for element in tree.iter() if element.get("class") == kind} for kind in ("rule", "chain")}
    assert words["chain"] == {"prerouting-redirect", "input", "output", "output-redirect", "output-zone"}
    assert len(words["rule"]) == 13
    assert words["rule"] <= {name for chain in CHAINS.values() for name in rule_names(chain)}


def test_the_picture_is_for_light_and_dark():
    """Every colour is a variable, and both sets have all of them; the ground is drawn, whatever page it stands on."""
    text = PICTURE.read_text()
    style = text[text.index("<style>"):text.index("</style>")]
    light, dark = (dict(re.findall(r"(--\w+): (#\w+)", part)) for part in style.split("@media (prefers-color-scheme: dark)"))
    assert light.keys() == dark.keys() and all(light[name] != dark[name] for name in light)
    assert set(re.findall(r"var\((--\w+)\)", text)) == set(light)
    assert not re.findall(r'(?:fill|stroke)="(?!none)', text)
    assert '<rect class="ground" width="1180" height="770"/>' in text

    def brightness(colour):
        return sum(weight * (int(colour[at:at + 2], 16) / 255) ** 2.2 for weight, at in ((0.2126, 1), (0.7152, 3), (0.0722, 5)))

    for colours in (light, dark):
        for ground in ("--ground", "--pod", "--box"):
            for ink in ("--text", "--faint", "--stop"):
                low, high = sorted((brightness(colours[ground]), brightness(colours[ink])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, ink)


def test_what_render_prints_is_this_page():
    text = subprocess.run([str(redirect.BUILD / "ambient-installer"), "render"], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"chain (\S+)", text) == ORDER
    assert " ".join(TIMEOUT.split()) in " ".join(text.split())
    for name in ORDER:
        lines = [line.strip() for line in CHAINS[name].splitlines()]
        (chain,) = re.findall(rf"^\t(chain {name} \{{\n.*?^\t\}})", text, re.S | re.M)
        assert [line.strip() for line in chain.splitlines()] == lines
