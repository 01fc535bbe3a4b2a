"""The socket stays at its path, whoever unlinks it, and yields to a successor."""
import os
import socket
import subprocess
import time

import pytest

from server_process import BUILD, Server


def wait_for(condition, seconds=8):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def inode(path):
    try:
        return os.lstat(path).st_ino
    except FileNotFoundError:
        return None


def test_it_goes_with_its_server(path):
    os.makedirs(os.path.dirname(path))
    server = Server(path)
    assert inode(path)
    server.stop()
    assert os.listdir(os.path.dirname(path)) == ["ztunnel.sock.log"]


@pytest.mark.parametrize("what", ["stale socket", "file"])
def test_what_lies_at_the_path_is_replaced(start, new_tunnel, path, what):
    if what == "file":
        open(path, "w").close()
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(path)
    start()
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)


def test_somebody_unlinks_it(server, tunnel, path, new_tunnel):
    for turn in (2, 3):
        os.unlink(path)
        wait_for(lambda: inode(path))
        server.wait_log("bound again")
        assert server.ask("statistics")["binds"] == turn
    second = new_tunnel()
    second.wait(lambda: second.is_ready)
    assert tunnel.connections == 1 and tunnel.is_connected
    assert not server.count("superseded")


def test_the_directory_goes_too(server, path, new_tunnel):
    os.rename(os.path.dirname(path), os.path.dirname(path) + ".old")
    wait_for(lambda: inode(path))
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)
    # It is watched where it is now.
    os.unlink(path)
    begin = time.monotonic()
    wait_for(lambda: inode(path))
    assert time.monotonic() - begin < 1


def test_a_file_takes_its_place(server, path, new_tunnel):
    open(path + ".x", "w").close()
    os.rename(path + ".x", path)
    server.wait_log("bound again")
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)


def test_a_successor_takes_over_and_the_tunnel_dials_it(start, path, new_tunnel, new_namespace):
    first = start()
    namespace = new_namespace()
    first.say(f"put u1 shop cart sa {namespace}")
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready and "u1" in tunnel.workloads)
    # As an agent does: its pods are known before the tunnel is told of any.
    second = start(ready=False)
    second.say(f"put u1 shop cart sa {namespace}", "ready 1")
    first.wait(lambda: first.count("superseded") == 1)
    tunnel.wait(lambda: tunnel.connections == 2 and tunnel.is_ready)
    taken = inode(path)
    first.stop()
    assert inode(path) == taken, "the leaving one removed its successor's socket"
    assert second.ask("state")["connections"] and sorted(tunnel.workloads) == ["u1"]
    assert first.count("superseded") == 1 and not second.count("superseded")


def test_a_successor_that_unlinks_before_it_binds_gets_its_turn(start, path):
    """As istio-cni does."""
    server = start(absence=2000)
    os.unlink(path)
    time.sleep(0.02)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
        successor.bind(path)
        successor.listen()
        server.wait(lambda: server.count("superseded") == 1)
        taken = inode(path)
        server.stop()
        assert inode(path) == taken


def test_a_path_that_no_socket_can_have(path, tmp_path):
    for wrong, word in ((str(tmp_path / ("x" * 100)), "at most 107 characters"), ("relative", "absolute"), ("/tmp/", "absolute")):
        done = subprocess.run([BUILD / "tests/tunnel_tool", wrong], input="", capture_output=True, text=True)
        assert done.returncode == 1 and word in done.stderr, done


def test_the_missing_directory_is_made(tmp_path):
    path = str(tmp_path / "a.sock")
    server = Server(path)
    server.stop()
    deep = tmp_path / "b" / "c"
    done = subprocess.run([BUILD / "tests/tunnel_tool", str(deep / "z.sock")], input="", capture_output=True, text=True)
    assert done.returncode == 0 and "listening" in done.stdout, done
    assert deep.stat().st_mode & 0o777 == 0o700 and not list(deep.iterdir())
