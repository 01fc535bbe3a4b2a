"""Who we are to the API server, and whether it is the right one: tokens and authorities that rotate, certificates."""
import time

import pytest


def test_in_a_cluster(server, start, tmp_path):
    server.put_pod("shop", "cart")
    folder = server.write_service_account(tmp_path / "account")
    tool = start(kubeconfig=None, service_host="127.0.0.1", service_port=server.port, directory=folder)
    tool.synced()
    assert "put" in tool.told("pod")


def test_a_token_that_expires(server, start, tmp_path):
    """At a 401 the token file is read anew, and the request is made once more."""
    server.put_pod("shop", "cart")
    folder = server.write_service_account(tmp_path / "account")
    tool = start(kubeconfig=None, service_host="127.0.0.1", service_port=server.port, directory=folder)
    tool.synced()
    time.sleep(1)
    server.tokens = {"token-2"}
    server.write_service_account(folder, "token-2")
    assert tool.ask("get_pod", namespace="shop", name="cart")["outcome"] == "done"
    statuses = [status for _, path, status in server.requests if path.endswith("/pods/cart")]
    assert statuses == [401, 200]
    server.order_watchers("end")
    server.order_watchers("close")
    server.put_pod("shop", "after")
    tool.put("pod", "after")
    assert "trouble" not in tool.told("pod")


def test_a_token_that_is_read_before_it_expires(server, start, tmp_path):
    server.put_pod("shop", "cart")
    folder = server.write_service_account(tmp_path / "account")
    tool = start(kubeconfig=None, service_host="127.0.0.1", service_port=server.port, directory=folder, reload=100)
    tool.synced()
    server.tokens.add("token-2")
    server.write_service_account(folder, "token-2")
    time.sleep(0.2)
    assert tool.ask("get_pod", namespace="shop", name="cart")["outcome"] == "done"
    server.tokens.remove("token-1")
    assert tool.ask("get_pod", namespace="shop", name="cart")["outcome"] == "done"
    assert 401 not in [status for _, _, status in server.requests]
    # What can't be read is reported once, and what is there goes on being used.
    (folder / "token").unlink()
    for _ in range(3):
        time.sleep(0.15)
        assert tool.ask("get_pod", namespace="shop", name="cart")["outcome"] == "done"
    warnings = [line for line in tool.errors if "credentials in use are kept" in line]
    assert len(warnings) == 1 and str(folder / "token") in warnings[0]


def test_a_token_that_is_wrong(server, start, tmp_path):
    server.write_kubeconfig(tmp_path / "kubeconfig", token="wrong")
    tool = start()
    trouble = tool.next(told="trouble", kind="pod")
    assert "401" in trouble["reason"] and "Unauthorized" in trouble["reason"]
    answer = tool.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "failed" and "401" in answer["error"]
    # Somebody writes a new kubeconfig.
    server.write_kubeconfig(tmp_path / "kubeconfig")
    tool.synced()


def test_an_authority_that_changes(server, start, tmp_path):
    server.put_pod("shop", "cart")
    folder = server.write_service_account(tmp_path / "account")
    tool = start(kubeconfig=None, service_host="127.0.0.1", service_port=server.port, directory=folder, reload=100)
    tool.synced()
    server.rotate_authority()
    server.write_service_account(folder)
    server.cut_connections()
    server.put_pod("shop", "after")
    tool.put("pod", "after")
    assert tool.ask("get_pod", namespace="shop", name="cart")["outcome"] == "done"


@pytest.mark.parametrize("kind,words,asked_for", [
    ("wrong-name", "is for another name than 127.0.0.1", None), ("unknown-ca", "is not trusted", None),
    ("good", "is for another name than another.example", "another.example")])
def test_a_certificate_that_is_not_the_servers(server, start, tmp_path, kind, words, asked_for):
    server.use_certificate(kind)
    server.write_kubeconfig(tmp_path / "kubeconfig", cluster={"tls-server-name": asked_for})
    server.put_pod("shop", "cart")
    tool = start(reload=100)
    trouble = tool.next(told="trouble", kind="pod")
    assert words in trouble["reason"]
    begun = time.monotonic()
    answer = tool.ask("get_pod", namespace="shop", name="cart")
    assert answer["outcome"] == "failed" and words in answer["error"] and time.monotonic() - begun < 2
    assert not server.requests, "nothing was sent, the token least of all"
    server.use_certificate("good")
    server.write_kubeconfig(tmp_path / "kubeconfig")
    tool.synced()


def test_a_server_by_name(server, start, tmp_path):
    """Names are looked up by libevent, and stand in the certificate and in SNI. The name has two addresses, of which one is
    refused."""
    server.put_pod("shop", "cart")
    server.write_kubeconfig(tmp_path / "kubeconfig", host="localhost")
    tool = start()
    tool.synced()


def test_a_name_that_there_is_not(server, start, tmp_path):
    server.write_kubeconfig(tmp_path / "kubeconfig", host="localhost.invalid.")
    tool = start()
    trouble = tool.next(told="trouble", kind="pod", seconds=30)
    assert "cannot resolve the API server's name localhost.invalid." in trouble["reason"]


def test_another_name_in_the_certificate(server, start, tmp_path):
    server.put_pod("shop", "cart")
    server.use_certificate("wrong-name")
    server.write_kubeconfig(tmp_path / "kubeconfig", cluster={"tls-server-name": "elsewhere.example"})
    start().synced()


def test_a_client_certificate(server, start, tmp_path):
    server.put_pod("shop", "cart")
    certificate, key = server.authority.issue("agent")
    (tmp_path / "client.crt").write_bytes(certificate)
    (tmp_path / "client.key").write_bytes(key)
    server.tokens.clear()
    server.write_kubeconfig(tmp_path / "kubeconfig", user={"token": None, "client-certificate": "client.crt",
                                                           "client-key": "client.key"})
    start().synced()


def test_no_look_at_the_certificate(server, start, tmp_path):
    server.put_pod("shop", "cart")
    server.use_certificate("unknown-ca")
    server.write_kubeconfig(tmp_path / "kubeconfig", cluster={"certificate-authority-data": None,
                                                              "insecure-skip-tls-verify": True})
    start().synced()


def test_paths_have_a_prefix(server, start, tmp_path):
    """A server behind a proxy: https://HOST/k8s/cluster."""
    server.prefix = "/k8s/cluster"
    server.put_pod("shop", "cart")
    server.write_kubeconfig(tmp_path / "kubeconfig", cluster={"server": f"https://127.0.0.1:{server.port}/k8s/cluster/"})
    start().synced()
