"""The product beside a tunnel that is a program of its own: the one that ZTUNNEL names in the environment, by default the double in a
ztunnel's clothes. What such a tunnel does is seen from outside alone: by traffic, by the kernel's counters, by what the agent says."""
import json
import os

import pytest

from .pods import MODE, container
from .product import TUNNEL_SOCKET
from .tunnel_program import TunnelProgram
from .waiting import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture
def program(node, tmp_path):
    path = os.environ.get("ZTUNNEL")
    if not path:
        path = str(tmp_path / "ztunnel")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\nexec /usr/bin/python3 {HERE}/tunnel_stand_in.py\n")
    node.machine.programs.pop("tunnel").stop()
    program = TunnelProgram(node, path, TUNNEL_SOCKET)
    yield program
    if "ztunnel" in node.machine.programs:
        node.machine.programs.pop("ztunnel").stop()
    node.product.start_tunnel()


def packets(node, workspace, name):
    return json.loads(node.product.command("explain", f"{workspace.name}/{name}", "-o", "json", check=False))["rules"]["packets"]


def test_pods_pass_a_tunnel_of_its_own(node, make_workspace, program):
    workspace = make_workspace(node)
    workspace.create_pair()
    program.know(workspace)
    program.start()
    # The server first: as long as it is not in the mesh nobody may reach it by HBONE, and this tunnel does not ask.
    for name in ("server", "client"):
        workspace.label_pod(name, "ambient")
        workspace.wait_redirection(name, "enabled")
        assert node.product.is_redirected(workspace.uid(name))
    before = packets(node, workspace, "client")
    workspace.wait_traffic("client")
    assert packets(node, workspace, "client")["outbound"] > before["outbound"], program.node.machine.programs["ztunnel"].tail()
    assert packets(node, workspace, "server")["hbone"] > 0
    assert workspace.traffic("client").lost == 0
    assert packets(node, workspace, "server")["probe"] > 0 and workspace.is_ready("server")
    # One that is new waits for its acknowledgement, and gets it.
    workspace.create("new", container("idle", "workload", "pause"), labels={MODE: "ambient"})
    workspace.wait_ready("new")
    workspace.wait_redirection("new", "enabled")
    # It is started anew, and told of all of them.
    program.stop()
    program.know(workspace)
    program.start()
    workspace.wait_traffic("client")
    for name in ("server", "client", "new"):
        assert workspace.redirection(name) == "enabled"
        said = json.loads(node.product.command("explain", f"{workspace.name}/{name}", "-o", "json", check=False))
        assert said["tunnel"]["acknowledged"] and said["rules"]["difference"] == ""
    # And out again. Connections that it carries end by its will, not by ours; new ones go direct.
    lost = workspace.traffic("client").last["opened"]["lost"]
    for name in ("client", "server", "new"):
        workspace.label_pod(name, None)
        workspace.wait_redirection(name, None)
    for name in ("client", "server", "new"):
        wait_until(lambda uid=workspace.uid(name): "ambient" not in node.product.tables(uid), 60, f"{name} is released")
    workspace.wait_traffic("client")
    assert workspace.traffic("client").last["opened"]["lost"] == lost
    assert workspace.restarts("client") == workspace.restarts("server") == 0
