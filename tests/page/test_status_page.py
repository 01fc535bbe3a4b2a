"""The status page in a real Chromium: what it shows, sorts, filters and explains, live, and its screenshots in docs/images."""
import socket
import tempfile
import threading
import time

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.agent.node import Node, eventually

from .browser import chromium

STATES = ["failed", "failed", "pending", "releasing", "enabled", "enabled", "enabled"]
REFUSED, WAITING, LEAVING = "shop/payments-6f4", "shop/newcomer-1", "shop/legacy-84c"


def hold_a_connection(node, pod):
    """One that the tunnel carries from now on: the pod's release waits for its end."""
    with node.host:
        server = socket.create_server(("10.91.0.1", 8080))
    with pod.netns:
        client = socket.create_connection(("10.91.0.1", 8080), 5)
    carried, _ = server.accept()
    return server, client, carried


@pytest.fixture(scope="module")
def node():
    folder = tempfile.TemporaryDirectory(prefix="node-")  # a short name, for the screenshots
    node = Node(folder.name, listeners=True, drain=300,
                settings=["listen.admin=127.0.0.1:15000", "nodeName=worker-1", "log.level=info"])
    node.label("plain")
    node.shop = [node.pod(name=name) for name in ("cart-5d9f", "catalogue-77c4", "checkout-6b8d")]
    leaving = node.pod(name="legacy-84c")
    node.batch = node.pod(name="batch-x2v", namespace="plain")
    node.pod(name="opted-out-1", show=False).show(**{"istio.io/dataplane-mode": "none"})
    ended = node.pod(name="migrate-job-k7", show=False)
    ended.status = {"phase": "Succeeded"}
    ended.show()
    node.join()
    node.wait_for("enabled", [*node.shop, leaving])
    refused = node.pod(name="payments-6f4", show=False)
    node.tunnel.refuse[refused.uid] = "port 15006 is in use by the application"
    refused.show()
    lost = node.pod(name="reports-0", show=False)
    lost.path = f"{folder.name}/no-such-namespace"
    lost.show()
    node.held = hold_a_connection(node, leaving)
    leaving.show(**{"istio.io/dataplane-mode": "none"})
    waiting = node.pod(name="newcomer-1", show=False, starts=True)
    waiting.show()
    node.wait_for("pending", [waiting])
    node.wait_for("releasing", [leaving])
    node.wait_for("failed", [refused, lost])
    yield node
    for one in node.held:
        one.close()
    node.close()
    folder.cleanup()


@pytest.fixture(scope="module")
def page(node, tmp_path_factory):
    with chromium(node, tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_health_and_pods(page, node):
    eventually(lambda: len(page.names()) == 7, what=lambda: str(page.driver.get_log("browser")))
    assert page.text("#ready") == "ready" and page.text("#node") == "worker-1"
    # The worst first.
    assert [page.row(name).split("\n")[0].split()[1] for name in page.names()] == STATES
    checks = " ".join(page.text("#checks").split())
    for check in ("Source well", "Tunnel well", "Plugin's socket well", "Rules on the host well", "Installed well"):
        assert check in checks
    # Each badge stands beside its title.
    for check in page.all(By.CSS_SELECTOR, ".check h2"):
        title, badge = check.find_elements(By.TAG_NAME, "span")
        assert abs(title.rect["y"] - badge.rect["y"]) < 8, check.text
    assert "running pods enrolled" in page.text("#figures") and "Enrolled" in page.text("#events")
    assert page.text("#shown") == "7 of 10 pods" and page.text("#live").startswith("live, as of ")
    assert page.show("all") == 10
    page.screenshot("status-page.png")
    page.scheme("dark")
    page.screenshot("status-page-dark.png")
    page.scheme("light")
    page.show("mesh")


def test_each_row_says_why_in_a_few_words(page):
    assert page.row("shop/cart-5d9f").endswith("label of its namespace")
    assert "port 15006 is in use" in page.row(REFUSED)
    assert "no-such-namespace" in page.row("shop/reports-0")
    assert page.show("outside") == 3
    assert page.row("plain/batch-x2v").endswith("no label selects it") and "outside" in page.row("plain/batch-x2v")
    assert page.row("shop/opted-out-1").endswith("label of the pod says none")
    assert "ended" in page.row("shop/migrate-job-k7") and page.row("shop/migrate-job-k7").endswith("the pod has ended")
    page.show("mesh")


def test_filter(page):
    assert page.show("all") == 10 and len(page.names()) == 10
    assert page.show("enabled") == 3 and len(page.names()) == 3
    page.search("shop cart")
    assert page.names() == ["shop/cart-5d9f"]
    # The filters count what the search finds.
    assert page.show("all") == 1 and page.show("failed") == 0 and page.text("#pods") == "No pod is like that."
    page.search("10.91.0.3")
    assert page.show("all") == 1 and page.names() == ["shop/catalogue-77c4"]
    page.search("no-such-pod")
    assert page.names() == [] and page.text("#shown") == "0 of 10 pods"
    page.search("")
    page.show("mesh")
    assert len(page.names()) == 7


def test_sort(page):
    page.column("Pod").find_element(By.TAG_NAME, "button").click()
    assert page.names() == sorted(page.names())
    page.column("Pod").find_element(By.TAG_NAME, "button").click()
    assert page.names() == sorted(page.names(), reverse=True)
    assert page.column("Pod").get_attribute("aria-sort") == "descending" and page.column("State").get_attribute("aria-sort") == "none"
    for column in page.all(By.CSS_SELECTOR, "#columns button"):
        column.click()
        assert len(page.names()) == 7
    page.column("Address").find_element(By.TAG_NAME, "button").click()
    order = [page.names().index(name) for name in ("shop/cart-5d9f", REFUSED, "shop/reports-0")]  # 10.91.0.2, .9, .10
    assert order == sorted(order)
    page.column("State").find_element(By.TAG_NAME, "button").click()


def test_the_view_stands_in_the_address(page):
    page.show("all")
    page.search("shop")
    page.column("Pod").find_element(By.TAG_NAME, "button").click()
    page.column("Pod").find_element(By.TAG_NAME, "button").click()
    names, address = page.names(), page.driver.current_url
    page.driver.get("about:blank")
    page.driver.get(address)
    eventually(page.names)
    assert page.names() == names and page.by(By.ID, "search").get_attribute("value") == "shop"
    page.load()
    eventually(lambda: len(page.names()) == 7)


def test_a_row_explains_its_pod(page):
    page.button("shop/cart-5d9f").click()
    eventually(lambda: "Labels of the pod" in page.text("tr.story"))
    eventually(lambda: "15008" not in page.text("tr.story"))  # everything listens
    for part in ("of its namespace: istio.io/dataplane-mode=ambient",
                 "It belongs to the mesh: its namespace has label istio.io/dataplane-mode=ambient (enablementSelectors[1])",
                 "Its redirection stands", "The tunnel has accepted it as shop/account.", "in the host's probe set",
                 "ambient-installer explain shop/cart-5d9f"):
        assert part in page.text("tr.story"), page.text("tr.story")
    page.button(REFUSED).click()
    eventually(lambda: len(page.all(By.CSS_SELECTOR, "tr.story li.wrong")) == 1)
    assert "port 15006 is in use by the application" in page.text("tr.story li.wrong")
    page.screenshot("status-page-explain.png")
    page.button(REFUSED).click()
    # It stays open, and the focus where it is, over polls; and a text that somebody selects stays selected.
    page.button("shop/cart-5d9f").send_keys("")
    page.driver.execute_script("getSelection().selectAllChildren(document.querySelector('tr.pod td.why'))")
    time.sleep(4)
    assert page.all(By.CSS_SELECTOR, "tr.story") and page.driver.execute_script("return String(getSelection())")
    assert page.focused().get_attribute("data-pod") == "shop/cart-5d9f"
    page.focused().send_keys(Keys.SPACE)
    assert not page.all(By.CSS_SELECTOR, "tr.story")


def test_the_keyboard_is_enough(page):
    page.driver.execute_script("document.activeElement.blur(); getSelection().removeAllRanges()")
    page.by(By.TAG_NAME, "body").send_keys("/")
    assert page.focused().get_attribute("id") == "search"
    page.focused().send_keys("checkout")
    assert page.names() == ["shop/checkout-6b8d"]
    page.focused().send_keys(Keys.ARROW_DOWN)
    assert page.focused().get_attribute("data-pod") == "shop/checkout-6b8d"
    page.focused().send_keys(Keys.ENTER)
    assert page.focused().get_attribute("aria-expanded") == "true" and page.all(By.CSS_SELECTOR, "tr.story")
    page.focused().send_keys(Keys.ENTER)
    page.by(By.TAG_NAME, "body").send_keys("/")
    page.focused().send_keys(Keys.ESCAPE)
    assert len(page.names()) == 7
    names = page.names()
    for name in (*names, names[-1]):
        page.focused().send_keys(Keys.ARROW_DOWN)
        assert page.focused().get_attribute("data-pod") == name
    page.focused().send_keys(Keys.ARROW_UP)
    assert page.focused().get_attribute("data-pod") == names[-2]
    # Tab reaches everything, and where it is, is seen.
    page.load()
    eventually(lambda: len(page.names()) == 7)
    seen = set()
    for _ in range(40):
        page.focused().send_keys(Keys.TAB)
        element = page.focused()
        if element.tag_name == "body":
            break
        assert element.value_of_css_property("outline-style") == "solid", element.text
        seen.add((element.get_attribute("id") or element.get_attribute("data-show") or element.get_attribute("data-pod") or element.text).split(" ▲")[0])
    assert {"search", "mesh", "failed", "Pod", "Why", "shop/cart-5d9f"} <= seen, seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    """WCAG AA, for everything that is written: 4.5 to 1."""
    page.scheme(scheme)
    page.show("all")
    page.button(REFUSED).click()
    eventually(lambda: page.all(By.CSS_SELECTOR, "tr.story li.wrong"))
    ratio, text = page.contrast()
    page.button(REFUSED).click()
    page.show("mesh")
    page.scheme("light")
    assert ratio >= 4.5, f"{ratio:.2f} for {text!r}"


def test_nothing_from_the_cluster_is_markup(page, node):
    pod = node.pod(show=False, name="evil")
    pod.path = str(node.folder) + '/<img src=x onerror="document.title=1">'
    pod.show()
    node.wait_for("failed", [pod])
    page.show("failed")
    eventually(lambda: "shop/evil" in page.names())
    page.button("shop/evil").click()
    eventually(lambda: page.all(By.CSS_SELECTOR, "tr.story"))
    assert "<img src=x" in page.row("shop/evil") and not page.all(By.CSS_SELECTOR, "#pods img")
    pod.hide()
    eventually(lambda: "shop/evil" not in page.names())
    page.show("mesh")


def test_a_pause_is_told(page, node):
    status, _ = node.request("POST", "/pods/shop/cart-5d9f/pause?seconds=600")
    assert status == 200
    eventually(lambda: "repair paused" in page.row("shop/cart-5d9f"))
    # What somebody does to its rules meanwhile is shown as a diff.
    node.shop[0].netns.nft("add chain inet ambient-cni theirs\n")
    page.button("shop/cart-5d9f").click()
    eventually(lambda: page.text("tr.story pre") == "+ chain theirs", what=lambda: page.text("tr.story"))
    page.button("shop/cart-5d9f").click()
    node.request("POST", "/pods/shop/cart-5d9f/pause?seconds=0")
    eventually(lambda: "repair paused" not in page.row("shop/cart-5d9f"))


def test_it_is_live(page, node):
    node.tunnel.stop()
    eventually(lambda: "Tunnel waits" in " ".join(page.text("#checks").split()))
    page.screenshot("status-page-no-tunnel.png")
    node.connect()
    eventually(lambda: "Tunnel well" in " ".join(page.text("#checks").split()))


@pytest.mark.parametrize("width", [320, 480, 800, 1280, 1920])
def test_it_fits_every_screen(page, width):
    page.size(width, 900)
    page.button("shop/cart-5d9f").click()
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
    if width < 900:
        mark = "getComputedStyle(document.querySelector('tr.pod td.mark'), '::before').content"
        assert "rules" in page.driver.execute_script(f"return {mark}")
        page.driver.execute_script("const s = document.getElementById('sort'); s.value = 0; s.dispatchEvent(new Event('change'))")
        assert page.names() == sorted(page.names())
    page.button("shop/cart-5d9f").click()
    if width == 480:
        page.screenshot("status-page-narrow.png")
    page.driver.execute_script("const s = document.getElementById('sort'); s.value = 1; s.dispatchEvent(new Event('change'))")
    page.size(1280, 1100)


def test_an_agent_that_is_gone_is_told(page, node):
    node.stop()
    eventually(lambda: "does not answer" in page.text("#lost"), 15)
    node.start()
    eventually(lambda: not page.by(By.ID, "lost").is_displayed(), 15)
    page.driver.get_log("browser")  # the requests that failed meanwhile
