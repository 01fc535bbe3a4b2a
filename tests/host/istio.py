"""istio-cni's packet rules, written from its documented chains, marks and tables, by nft and iptables as it does it."""

POD_RULE = """
rule add fwmark 0x111/0xfff lookup 100 pref 32764
route add local default dev lo table 100
"""


def add_routes(namespace, families):
    for family in families:
        namespace.run("ip", f"-{family}", "-batch", "-", stdin=POD_RULE)


NFT_FAMILY = {4: ("ip", "127.0.0.1", "169.254.7.127"), 6: ("ip6", "::1", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")}


def nftables_pod(namespace, families=(4, 6)):
    """Tables istio-ambient-mangle, -nat and -raw, with DNS capture."""
    prerouting = output = ""
    for family in families:
        ip, loopback, probe = NFT_FAMILY[family]
        prerouting += f"meta l4proto tcp {ip} saddr {probe} counter accept\n"
        prerouting += f"{ip} daddr != {loopback} tcp dport != 15008 mark and 0xfff != 0x539 counter redirect to :15006\n"
        output += f"meta l4proto tcp {ip} daddr {probe} counter accept\n"
    output += 'oifname != "lo" mark and 0xfff != 0x539 udp dport 53 counter redirect to :15053\n'
    for family in families:
        ip, loopback, _ = NFT_FAMILY[family]
        output += f"{ip} daddr != {loopback} tcp dport 53 mark and 0xfff != 0x539 counter redirect to :15053\n"
    output += "meta l4proto tcp mark and 0xfff == 0x111 counter accept\n"
    for family in families:
        ip, loopback, _ = NFT_FAMILY[family]
        output += f'oifname "lo" {ip} daddr != {loopback} counter accept\n'
    for family in families:
        ip, loopback, _ = NFT_FAMILY[family]
        output += f"meta l4proto tcp {ip} daddr != {loopback} mark and 0xfff != 0x539 counter redirect to :15001\n"
    namespace.nft(f"""
table inet istio-ambient-nat {{
  chain istio-prerouting {{
    {prerouting}
  }}
  chain istio-output {{
    {output}
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump istio-prerouting; }}
  chain output {{ type nat hook output priority -100; jump istio-output; }}
}}
table inet istio-ambient-mangle {{
  chain istio-prerouting {{
    meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111
  }}
  chain istio-output {{
    ct mark and 0xfff == 0x111 counter meta mark set ct mark
  }}
  chain prerouting {{ type filter hook prerouting priority mangle; jump istio-prerouting; }}
  chain output {{ type route hook output priority mangle; jump istio-output; }}
}}
table inet istio-ambient-raw {{
  chain istio-prerouting {{
    udp sport 53 meta mark and 0xfff != 0x539 counter ct zone set 1
  }}
  chain istio-output {{
    udp dport 53 meta mark and 0xfff == 0x539 counter ct zone set 1
  }}
  chain prerouting {{ type filter hook prerouting priority raw; jump istio-prerouting; }}
  chain output {{ type filter hook output priority raw; jump istio-output; }}
}}
""")


def iptables_pod_text(family):
    loopback, probe = {4: ("127.0.0.1/32", "169.254.7.127"),
                       6: ("::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")}[family]
    return f"""*mangle
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A OUTPUT -j ISTIO_OUTPUT
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT -s {probe} -p tcp -m tcp -j ACCEPT
-A ISTIO_OUTPUT -d {probe} -p tcp -m tcp -j ACCEPT
-A ISTIO_PRERT ! -d {loopback} -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT ! -o lo -p udp -m mark ! --mark 0x539/0xfff -m udp --dport 53 -j REDIRECT --to-port 15053
-A ISTIO_OUTPUT ! -d {loopback} -p tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d {loopback} -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d {loopback} -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
*raw
:ISTIO_OUTPUT - [0:0]
:ISTIO_PRERT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1
-A ISTIO_PRERT -p udp -m mark ! --mark 0x539/0xfff -m udp --sport 53 -j CT --zone 1
COMMIT
"""


PROGRAMS = {4: "iptables", 6: "ip6tables"}


def iptables_pod(namespace, families=(4, 6), variant="nft"):
    for family in families:
        namespace.run(f"{PROGRAMS[family]}-{variant}-restore", "--noflush", stdin=iptables_pod_text(family))


def iptables_save(namespace, variant="nft", families=(4, 6)):
    return "".join(namespace.run(f"{PROGRAMS[family]}-{variant}-save") for family in families)


def nftables_host(namespace):
    namespace.nft("""
table inet istio-ambient-nat {
  set istio-inpod-probes-v4 { type ipv4_addr; elements = { 10.88.0.2 } }
  set istio-inpod-probes-v6 { type ipv6_addr; elements = { fd88::2 } }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    meta l4proto tcp skuid 0 ip daddr @istio-inpod-probes-v4 counter snat ip to 169.254.7.127
    meta l4proto tcp skuid 0 ip6 daddr @istio-inpod-probes-v6 counter snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff
  }
}
""")


def iptables_host(namespace, variant="nft"):
    for family, program, source in ((4, "iptables", "169.254.7.127"),
                                    (6, "ip6tables", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")):
        domain = "inet" if family == 4 else "inet6"
        namespace.run("ipset", "create", f"istio-inpod-probes-v{family}", "hash:ip", "family", domain)
        namespace.run(f"{program}-{variant}-restore", "--noflush", stdin=f"""*nat
:ISTIO_POSTRT - [0:0]
-I POSTROUTING 1 -j ISTIO_POSTRT
-A ISTIO_POSTRT -m owner --socket-exists -p tcp -m set --match-set istio-inpod-probes-v{family} dst -j SNAT --to-source {source}
COMMIT
""")
