"""The status page in a real Chromium: what it shows, sorts, filters and explains, live, and its screenshots in docs/images."""
import os
import shutil
import tempfile
import time

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.agent.node import REPOSITORY, Node, eventually

PAGE = "http://127.0.0.1:15000/"
IMAGES = REPOSITORY / "docs/images"


@pytest.fixture(scope="module")
def node():
    folder = tempfile.TemporaryDirectory(prefix="node-")  # a short name, for the screenshots
    node = Node(folder.name, listeners=True, drain=0, settings=["listen.admin=127.0.0.1:15000", "nodeName=worker-1"])
    node.label("plain")
    node.shop = [node.pod(name=name) for name in ("cart-5d9f", "catalogue-77c4", "checkout-6b8d")]
    node.plain = node.pod(name="batch-x2v", namespace="plain")
    node.join()
    node.wait_for("enabled", node.shop)
    yield node
    node.close()
    folder.cleanup()


@pytest.fixture(scope="module")
def browser(node, tmp_path_factory):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1150",
                     f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(shutil.which("chromedriver"))
    with node.host:
        browser = webdriver.Chrome(options=options, service=service)
        browser.get(PAGE)
        yield browser
        # A request of its own for an icon is all that may have failed.
        complaints = [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
        browser.quit()
    assert not complaints, complaints


def rows(browser):
    return [row.text for row in browser.find_elements(By.CSS_SELECTOR, "tr.pod")]


def names(browser):
    return [row.get_attribute("data-pod") for row in browser.find_elements(By.CSS_SELECTOR, "tr.pod")]


def text(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector).text


def choose(browser, state):
    browser.execute_script("const s = document.getElementById('state'); s.value = arguments[0];"
                           "s.dispatchEvent(new Event('change'))", state)


def search(browser, words):
    box = browser.find_element(By.ID, "search")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(words or Keys.DELETE)


def screenshot(browser, name):
    if os.environ.get("AMBIENT_SCREENSHOTS"):
        browser.save_screenshot(str(IMAGES / name))


def test_health_and_pods(browser, node):
    eventually(lambda: len(names(browser)) == 3, what=lambda: str(browser.get_log("browser")))
    assert text(browser, "#ready") == "ready" and text(browser, "#node") == "worker-1"
    assert sorted(names(browser)) == [pod.key for pod in node.shop] and all("enabled" in row for row in rows(browser))
    checks = text(browser, "#checks")
    for check in ("Source well", "Tunnel well", "Plugin's socket well", "Rules on the host well"):
        assert check in checks
    assert "3" in text(browser, "#figures") and "Enrolled" in text(browser, "#events")
    assert text(browser, "#shown") == "3 of 4 pods"
    screenshot(browser, "status-page.png")


def test_filter(browser, node):
    choose(browser, "")
    assert len(names(browser)) == 4
    choose(browser, "none")
    assert names(browser) == [node.plain.key]
    choose(browser, "")
    search(browser, "shop cart")
    assert names(browser) == ["shop/cart-5d9f"]
    search(browser, "no-such-pod")
    assert names(browser) == [] and text(browser, "#shown") == "0 of 4 pods"
    search(browser, "")
    choose(browser, "traces")
    assert len(names(browser)) == 3


def test_sort(browser):
    pod_column = browser.find_element(By.CSS_SELECTOR, "#columns th:first-child button")
    pod_column.click()
    assert names(browser) == sorted(names(browser))
    browser.find_element(By.CSS_SELECTOR, "#columns th:first-child button").click()
    assert names(browser) == sorted(names(browser), reverse=True)
    assert browser.find_element(By.CSS_SELECTOR, "#columns th:first-child").get_attribute("aria-sort") == "descending"


def test_a_row_explains_its_pod(browser, node):
    row = browser.find_element(By.CSS_SELECTOR, 'tr[data-pod="shop/cart-5d9f"]')
    row.send_keys(Keys.ENTER)
    story = eventually(lambda: [one.text for one in browser.find_elements(By.CSS_SELECTOR, "tr.story")])[0]
    eventually(lambda: "15008" not in text(browser, "tr.story"))  # everything listens
    for part in ("It belongs to the mesh: its namespace has label istio.io/dataplane-mode=ambient", "Its redirection stands",
                 "The tunnel has accepted it.", "ambient-installer explain shop/cart-5d9f"):
        assert part in story, story
    screenshot(browser, "status-page-explain.png")
    # It stays open, and the focus where it is, over polls.
    time.sleep(4)
    assert browser.find_elements(By.CSS_SELECTOR, "tr.story")
    assert browser.switch_to.active_element.get_attribute("data-pod") == "shop/cart-5d9f"
    browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert not browser.find_elements(By.CSS_SELECTOR, "tr.story")


def test_nothing_from_the_cluster_is_markup(browser, node):
    pod = node.pod(show=False, name="evil")
    pod.path = str(node.folder) + '/<img src=x onerror="document.title=1">'
    pod.show()
    node.wait_for("failed", [pod])
    choose(browser, "failed")
    row = eventually(lambda: rows(browser))[0]
    assert "<img src=x" in row and not browser.find_elements(By.CSS_SELECTOR, "#pods img")
    pod.hide()
    choose(browser, "traces")


def test_it_is_live(browser, node):
    node.tunnel.stop()
    eventually(lambda: "Tunnel waits" in text(browser, "#checks"))
    screenshot(browser, "status-page-no-tunnel.png")
    node.connect()
    eventually(lambda: "Tunnel well" in text(browser, "#checks"))


def test_it_fits_a_telephone(browser):
    browser.set_window_size(480, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.set_window_size(1280, 1150)


def test_an_agent_that_is_gone_is_told(browser, node):
    node.stop()
    eventually(lambda: "does not answer" in text(browser, "#lost"), 15)
    node.start()
    eventually(lambda: not browser.find_element(By.ID, "lost").is_displayed(), 15)
    browser.get_log("browser")  # the requests that failed meanwhile
