"""The tunnel's server against a strict double of the tunnel: zds.md, row by row."""
import os
import signal


def identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def test_a_pod_comes_and_goes(server, tunnel, new_namespace):
    path = new_namespace()
    server.say(f"add u1 shop cart sa {path}")
    server.wait_outcome("u1", "add", "accepted")
    assert tunnel.workloads["u1"].identity == identity(path)
    assert tunnel.workloads["u1"].info == {"name": "cart", "namespace": "shop", "service_account": "sa"}
    server.say("delete u1")
    server.wait_outcome("u1", "delete", "accepted")
    assert not tunnel.workloads
    assert tunnel.requests == [("snapshot-sent", ""), ("add", "u1"), ("delete", "u1")]


def test_the_snapshot_waits_until_the_node_is_known_and_comes_before_what_waited(start, new_tunnel, new_namespace):
    server, path = start(ready=False), new_namespace()
    tunnel = new_tunnel()
    server.wait(lambda: server.count("connections"))
    server.say(f"put u1 shop cart sa {path}", "put u2 shop cat sa -", f"add u3 shop new - {path}", "delete u4", "state")
    server.wait(lambda: server.count("state"))
    assert not tunnel.requests and not server.count("snapshot") and not server.answers()
    server.say("ready 1")
    server.wait_outcome("u4", "delete", "accepted")
    assert tunnel.requests == [("add", "u1"), ("keep", "u2"), ("snapshot-sent", ""), ("add", "u3"), ("delete", "u4")]
    assert [(answer["kind"], answer["uid"]) for answer in server.answers()] == [
        ("snapshot-add", "u1"), ("add", "u3"), ("delete", "u4")]
    assert server.ask("state")["connections"][0]["snapshotAccepted"] is True


def test_a_reconnect_hears_the_snapshot_and_stops_the_rest(server, tunnel, new_namespace):
    path = new_namespace()
    server.say(f"add gone shop a sa {path}", f"add stays shop b sa {path}", f"add kept shop c sa {path}")
    server.wait_outcome("kept", "add", "accepted")
    server.say(f"put stays shop b sa {path}", "put kept shop c sa -", "state")
    server.wait(lambda: server.count("state"))
    tunnel.disconnect()
    tunnel.wait(lambda: tunnel.connections == 2 and tunnel.is_ready)
    assert sorted(tunnel.workloads) == ["kept", "stays"]
    server.wait_outcome("stays", "snapshot-add", "accepted")


def test_no_tunnel_an_add_fails_and_a_delete_succeeds(server, new_namespace):
    before = server.descriptors()
    server.say(f"add u1 shop cart sa {new_namespace()}", "delete u2")
    answer = server.wait_outcome("u1", "add", "absent")
    assert answer["error"].startswith("no tunnel connected")
    server.wait_outcome("u2", "delete", "accepted")
    assert server.descriptors() == before


def test_an_error_leaves_the_connection_up(server, tunnel, new_namespace):
    path = new_namespace()
    tunnel.refuse["u1"] = "busy " * 4000
    server.say(f"add u1 shop cart sa {path}", f"add u2 shop cat sa {path}")
    assert "busy" in server.wait_outcome("u1", "add", "refused")["error"]
    server.wait_outcome("u2", "add", "accepted")
    tunnel.refuse.clear()
    server.say(f"add u1 shop cart sa {path}")
    server.wait_outcome("u1", "add", "accepted", 2)
    assert tunnel.connections == 1


def test_a_tunnel_that_dies_is_no_answer(server, tunnel, new_namespace):
    path = new_namespace()
    tunnel.die_at = ("add", "u2", "before")
    server.say(*(f"add u{i} shop cart sa {path}" for i in (1, 2, 3)))
    server.wait(lambda: len(server.answers()) == 3)
    assert server.outcomes("u1", "add") == ["accepted"]
    assert server.outcomes("u2", "add") == ["lost"] and server.outcomes("u3", "add")[0] in ("lost", "absent")
    assert server.answers("u2")[0]["number"] == 104
    tunnel.wait(lambda: tunnel.is_ready and tunnel.connections == 2)


def test_answers_that_were_sent_before_the_end_count(server, tunnel, new_namespace):
    """The tunnel closes with requests unread: the kernel says ECONNRESET before it hands out what is queued."""
    path = new_namespace()
    tunnel.die_at = ("add", "u20", "after")
    server.say(*(f"add u{i} shop cart sa {path}" for i in range(40)))
    server.wait(lambda: len(server.answers()) == 40)
    assert all(server.outcomes(f"u{i}", "add") == ["accepted"] for i in range(21))
    assert all(server.outcomes(f"u{i}", "add")[0] in ("lost", "absent") for i in range(21, 40))


def test_the_window_is_bounded_and_later_requests_supersede_those_that_wait(start, new_tunnel, new_namespace):
    server, path = start(window=4), new_namespace()
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)
    tunnel.hold(True)
    server.say(*(f"add u{i} shop cart sa {path}" for i in range(10)))
    state = server.ask("state")["connections"][0]
    assert state["unanswered"] == 4 and state["waiting"] == 6
    server.say("delete u8", "delete u0", f"add u9 shop cart sa {path}", f"add u0 shop cart sa {path}")
    server.wait(lambda: len(server.answers()) == 3)
    assert server.outcomes("u8", "add") == server.outcomes("u9", "add") == server.outcomes("u0", "delete") == ["superseded"]
    tunnel.hold(False)
    server.wait(lambda: len(server.answers()) == 14)
    assert server.outcomes("u8", "delete") == ["accepted"] and server.outcomes("u9", "add") == ["superseded", "accepted"]
    assert [request for request in tunnel.requests if request[1] in ("u0", "u8", "u9")] == [
        ("add", "u0"), ("delete", "u8"), ("add", "u9"), ("add", "u0")]


def test_the_deadline_runs_from_the_previous_answer(start, new_tunnel, new_namespace):
    server, path = start(answer=1000), new_namespace()
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)
    tunnel.delay = 0.3
    server.say(*(f"add u{i} shop cart sa {path}" for i in range(5)))
    server.wait(lambda: len(server.answers()) == 5)
    assert {answer["outcome"] for answer in server.answers()} == {"accepted"}
    tunnel.delay = 0
    tunnel.hold(True)
    server.say(f"add late shop cart sa {path}")
    assert server.wait_outcome("late", "add", "late")["number"] == 110
    tunnel.hold(False)
    tunnel.wait(lambda: tunnel.connections == 2 and tunnel.is_ready)


def test_one_connection_takes_anothers_place_in_one_turn_of_the_loop(server, new_tunnel):
    """As many as before, and all the same news: who met none in between waits to hear of one."""
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)
    server.wait(lambda: server.count("connections") == 1)
    server.process.send_signal(signal.SIGSTOP)
    tunnel.disconnect()
    tunnel.wait(lambda: tunnel.connections == 2)
    server.process.send_signal(signal.SIGCONT)
    tunnel.wait(lambda: tunnel.is_ready)
    server.wait(lambda: server.count("connections") >= 2)
    assert [event["count"] for event in server.events if event["event"] == "connections"][-1] == 1


def test_two_tunnels(server, new_tunnel, new_namespace):
    path = new_namespace()
    old = new_tunnel()
    old.wait(lambda: old.is_ready)
    server.say(f"add u1 shop cart sa {path}", f"put u1 shop cart sa {path}")
    server.wait_outcome("u1", "add", "accepted")
    new = new_tunnel(redial=False)
    new.wait(lambda: new.is_ready)
    assert sorted(new.workloads) == ["u1"]
    server.say(f"add u2 shop cat sa {path}", f"put u2 shop cat sa {path}")
    server.wait_outcome("u2", "add", "accepted")
    assert "u2" in new.workloads and "u2" not in old.workloads
    server.say("drop u1", "delete u1")
    server.wait_outcome("u1", "delete", "accepted")
    assert "u1" not in new.workloads and "u1" not in old.workloads
    assert [event["count"] for event in server.events if event["event"] == "connections"] == [1, 2]

    # The newer one goes with an Add unread: the older one hears what it missed, and the next Add is its own.
    new.hold(True)
    new.stop()
    old.wait(lambda: "u2" in old.workloads)
    server.say(f"add u3 shop dog sa {path}")
    server.wait_outcome("u3", "add", "accepted")
    assert "u3" in old.workloads and old.connections == 1
    assert old.requests.count(("snapshot-sent", "")) == 1


def test_what_waits_goes_to_the_older_tunnel(start, new_tunnel, new_namespace):
    server, path = start(window=1), new_namespace()
    old = new_tunnel()
    old.wait(lambda: old.is_ready)
    new = new_tunnel(redial=False)
    new.wait(lambda: new.is_ready)
    new.hold(True)
    server.say(f"add sent shop cart sa {path}", f"add waits shop cat sa {path}", "delete other")
    server.ask("state")
    new.stop()
    server.wait_outcome("sent", "add", "lost")
    server.wait_outcome("waits", "add", "accepted")
    server.wait_outcome("other", "delete", "accepted")
    assert sorted(old.workloads) == ["waits"]


def test_what_the_older_tunnel_missed_does_not_bring_a_deleted_pod_back(server, new_tunnel, new_namespace):
    path = new_namespace()
    old = new_tunnel()
    old.wait(lambda: old.is_ready)
    new = new_tunnel(redial=False)
    new.wait(lambda: new.is_ready)
    server.say(f"put u1 shop cart sa {path}", f"put u2 shop cat sa {path}", f"add u1 shop cart sa {path}")
    server.wait_outcome("u1", "add", "accepted")
    # A Delete is on its way to both, and the mesh still counts the pod as being released, when the newer tunnel goes.
    old.hold(True)
    new.hold(True)
    server.say("delete u1")
    server.ask("state")
    new.stop()
    server.wait(lambda: server.count("snapshot") == 3)
    old.hold(False)
    server.wait_outcome("u1", "delete", "accepted")
    old.wait(lambda: "u2" in old.workloads)
    assert "u1" not in old.workloads


def test_closing_the_connections_and_asking_from_inside_an_answer(server, tunnel, new_namespace):
    path = new_namespace()
    server.say(f"again u1 shop cart sa {path}")
    server.wait(lambda: server.outcomes("u1", "add") == ["accepted", "accepted"])
    tunnel.hold(True)
    server.say(f"again u2 shop cart sa {path}", "close")
    server.wait(lambda: len(server.outcomes("u2", "add")) == 2)
    assert server.outcomes("u2", "add") == ["lost", "absent"]
    tunnel.hold(False)
    tunnel.wait(lambda: tunnel.connections == 2 and tunnel.is_ready)


def test_descriptors_run_out(start, new_tunnel, new_namespace):
    """In a snapshot, a pod whose namespace can't be held is kept, not cut off."""
    server, path = start(ready=False), new_namespace()
    tunnel = new_tunnel()
    server.wait(lambda: server.count("connections"))
    server.say(*(f"put u{i} shop cart sa {path}" for i in range(20)), f"descriptors {server.descriptors() + 11}", "ready 1")
    tunnel.wait(lambda: tunnel.is_ready)
    kinds = [kind for kind, _ in tunnel.requests]
    assert kinds.count("add") in range(5, 15) and kinds.count("add") + kinds.count("keep") == 20
    server.wait(lambda: len(server.answers(kind="snapshot-add")) == 20)
    assert {answer["outcome"] for answer in server.answers()} == {"accepted", "absent"}
    server.say("descriptors 1024")


def test_a_pod_with_names_that_no_message_holds_harms_no_other(start, new_tunnel, new_namespace):
    server, path = start(ready=False), new_namespace()
    server.say(f"put u1 shop {'n' * 1100} sa {path}", f"put u2 shop cart sa {path}", "ready 1")
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)
    assert sorted(tunnel.workloads) == ["u2"]
    server.say(f"add u3 shop {'n' * 1100} sa {path}")
    server.wait(lambda: server.count("failed") == 2)
    assert all("at most 1024" in event["error"] for event in server.events if event["event"] == "failed")


def test_a_thousand_pods(server, tunnel, new_namespace):
    path = new_namespace()
    server.ask("state")
    before = server.descriptors()
    uids = [f"00000000-0000-0000-0000-{i:012}" for i in range(1000)]
    server.say(*(f"add {uid} shop pod-{uid} default {path}" for uid in uids))
    server.wait(lambda: len(server.answers()) == 1000)
    server.say(*(f"delete {uid}" for uid in uids))
    server.wait(lambda: len(server.answers()) == 2000)
    assert [uid for _, uid in tunnel.requests[1:]] == uids + uids and not tunnel.workloads
    statistics = server.ask("statistics")
    assert statistics["add"]["accepted"] == statistics["delete"]["accepted"] == 1000
    assert statistics["answers"] == statistics["inBuckets"] == 2001 and statistics["protocolErrors"] == 0
    assert statistics["cpu"] < 2, statistics
    assert server.descriptors() == before
