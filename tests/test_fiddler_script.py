"""Fiddler_script.txt fails primary reads of HelloWorld and nothing else, in V8 and in a real proxy on live traffic."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import ipaddress
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fiddler import SCRIPT, FiddlerScript
from tests.proxy import ROOT, Proxy

LABEL = "RA-GRS: fail primary reads with 503"
DOCUMENT = ROOT / "docs" / "fiddler.md"
READS = ("GET", "HEAD")
OTHERS = ("PUT", "POST", "DELETE", "PATCH", "OPTIONS", "MERGE")

# (host without port, path and query) of a read that the rule fails.
FAILED = [
    ("account.blob.core.windows.net", "/container/HelloWorld"),
    ("ACCOUNT.Blob.Core.Windows.Net", "/container/HelloWorld"),
    ("account1.blob.core.chinacloudapi.cn", "/container/HelloWorld"),
    ("account1.blob.core.usgovcloudapi.net", "/container/HelloWorld"),
    ("account1.blob.core.microsoft.scloud", "/container/HelloWorld"),
    ("account1.z12.blob.storage.azure.net", "/container/HelloWorld"),
    ("account1.privatelink.blob.core.windows.net", "/container/HelloWorld"),
    ("account.blob.core.windows.net", "/failover-demo-0af3/HelloWorld"),
    ("account.blob.core.windows.net", "/$web/HelloWorld"),
    ("account.blob.core.windows.net", "/container/HelloWorld?sv=2024-11-04&sig=a%2Fb%3D&sp=r"),
    ("account.blob.core.windows.net", "/container/HelloWorld?snapshot=2025-01-01T00:00:00.0000000Z"),
    ("account.blob.core.windows.net", "/container/HelloWorld?"),
    ("devstoreaccount1.blob.localhost", "/container/HelloWorld"),
    ("127.0.0.1", "/devstoreaccount1/container/HelloWorld"),
    ("localhost", "/devstoreaccount1/container/HelloWorld?sv=2024-11-04&sig=x"),
    ("[::1]", "/devstoreaccount1/container/HelloWorld"),
    ("ipv4.fiddler", "/devstoreaccount1/container/HelloWorld"),
    ("azurite", "/devstoreaccount1/container/HelloWorld"),
]

# ... and of one that it leaves alone.
LEFT_ALONE = [
    ("account-secondary.blob.core.windows.net", "/container/HelloWorld"),
    ("account-secondary.z12.blob.storage.azure.net", "/container/HelloWorld"),
    ("account-secondary.privatelink.blob.core.windows.net", "/container/HelloWorld"),
    ("account-secondary.blob.core.chinacloudapi.cn", "/container/HelloWorld"),
    ("devstoreaccount1-secondary.blob.localhost", "/container/HelloWorld"),
    ("127.0.0.1", "/devstoreaccount1-secondary/container/HelloWorld"),
    # other blobs, and names are case sensitive
    ("account.blob.core.windows.net", "/container/HelloWorld2"),
    ("account.blob.core.windows.net", "/container/HelloWorld.txt"),
    ("account.blob.core.windows.net", "/container/notHelloWorld"),
    ("account.blob.core.windows.net", "/container/helloworld"),
    ("account.blob.core.windows.net", "/container/HELLOWORLD"),
    ("account.blob.core.windows.net", "/container/HelloWorld/"),
    ("account.blob.core.windows.net", "/container/folder/HelloWorld"),
    ("account.blob.core.windows.net", "/container/other?marker=/container/HelloWorld"),
    ("127.0.0.1", "/devstoreaccount1/container/HelloWorld2"),
    ("127.0.0.1", "/devstoreaccount1/container/helloworld"),
    ("127.0.0.1", "/devstoreaccount1/container/folder/HelloWorld"),
    # containers, listings, the account
    ("account.blob.core.windows.net", "/HelloWorld?restype=container"),
    ("account.blob.core.windows.net", "/HelloWorld/other"),
    ("account.blob.core.windows.net", "/container?restype=container&comp=list&prefix=HelloWorld"),
    ("account.blob.core.windows.net", "/?comp=list&prefix=/container/HelloWorld"),
    ("account-secondary.blob.core.windows.net", "/?restype=service&comp=stats"),
    ("127.0.0.1", "/devstoreaccount1/HelloWorld?restype=container"),
    ("127.0.0.1", "/devstoreaccount1/HelloWorld/other"),
    ("127.0.0.1", "/devstoreaccount1?comp=list&prefix=/container/HelloWorld"),
    # a blob that is called devstoreaccount1/..., in a container, on an account
    ("account.blob.core.windows.net", "/devstoreaccount1/container/HelloWorld"),
    # other services and other sites
    ("account.queue.core.windows.net", "/container/HelloWorld"),
    ("account.dfs.core.windows.net", "/container/HelloWorld"),
    ("account.table.core.windows.net", "/container/HelloWorld"),
    ("login.microsoftonline.com", "/container/HelloWorld"),
    ("blob.core.windows.net", "/container/HelloWorld"),
    ("blob.example.com", "/container/HelloWorld"),
    ("account.blob.core.", "/container/HelloWorld"),
    ("127.0.0.1", "/container/HelloWorld"),
    ("127.0.0.1", "/other/container/HelloWorld"),
    ("example.com", "/x/devstoreaccount1/container/HelloWorld"),
]


@pytest.fixture(scope="module")
def engine() -> FiddlerScript:
    return FiddlerScript()


@pytest.fixture(params=[False, True], ids=["box off", "box on"])
def script(engine: FiddlerScript, request: pytest.FixtureRequest) -> FiddlerScript:
    engine.checked = request.param
    return engine


@pytest.mark.parametrize("method", READS)
@pytest.mark.parametrize(("host", "path"), FAILED)
def test_primary_read_gets_503_while_the_box_is_checked(
    script: FiddlerScript, method: str, host: str, path: str
) -> None:
    answer = script.answer(method, host, path)
    if script.checked:
        assert (answer.status, answer.reason) == (503, "Service Unavailable")
        assert answer.flags == {"ui-color": "red"}
    else:
        assert (answer.status, answer.reason, answer.flags) == (200, "OK", {})


@pytest.mark.parametrize(("host", "path"), LEFT_ALONE)
def test_everything_else_is_left_alone(script: FiddlerScript, host: str, path: str) -> None:
    for method in (*READS, *OTHERS):
        answer = script.answer(method, host, path, 206, "Partial Content")
        assert (answer.status, answer.reason, answer.flags) == (206, "Partial Content", {}), method


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize(("host", "path"), FAILED)
def test_only_reads_are_failed(script: FiddlerScript, method: str, host: str, path: str) -> None:
    assert script.answer(method, host, path, 201, "Created").status == 201


def test_connect_is_left_alone(script: FiddlerScript) -> None:
    # For CONNECT Fiddler's PathAndQuery is host:port. A 503 here would be "no connection", for writes too.
    host = "account.blob.core.windows.net"
    assert script.answer("CONNECT", host, f"{host}:443", 200, "Connection Established").status == 200


def test_whatever_the_primary_said_becomes_503(script: FiddlerScript) -> None:
    for status in (200, 206, 304, 404):
        answer = script.answer("GET", "127.0.0.1", "/devstoreaccount1/container/HelloWorld", status, "")
        assert answer.status == (503 if script.checked else status)


def test_fiddlers_own_lines_below_the_paste_still_work(script: FiddlerScript) -> None:
    answer = script.answer("GET", "example.com", "/", 304, "Not Modified")
    assert answer.flags == {"ui-hide": "true"}


def test_box_is_an_unchecked_entry_of_the_rules_menu() -> None:
    script = FiddlerScript()
    assert script.label == LABEL
    assert script.checked is False
    # Fiddler does not load prefs with this word in their name: a fault never outlives Fiddler.
    assert "ephemeral" in script.pref


def test_rule_uses_only_what_jscript_net_and_fiddler_have() -> None:
    # V8 knows more than JScript.NET does. So each word of the rule is one that Fiddler's own rules use as well.
    code = re.sub(r"^\s*//.*$", "", FiddlerScript().rule_paste, flags=re.MULTILINE)
    code = re.sub(r'"[^"]*"', "", code)
    code = re.sub(r"/\^(?:\\.|\[(?:\\.|[^]\\])*]|[^/\\[])+/i?", "", code)
    words = set(re.findall(r"[A-Za-z_]\w*", code))
    session = {"oSession", "HTTPMethodIs", "hostname", "PathAndQuery", "oResponse", "headers", "SetStatus"}
    assert words == session | {"if", "test", "m_FailPrimaryReads"}
    assert set(re.findall(r"[^\w\s.,;(){}\[\]]+", code)) == {"&&", "||", "?", ":", "="}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PASTE 1 BEGINS", "PASTE 3 BEGINS"),
        ("PASTE 2 ENDS", "PASTE 1 ENDS"),
        ("RulesOption(", "RulesStringValue("),
    ],
)
def test_text_of_another_form_is_refused(old: str, new: str) -> None:
    with pytest.raises(ValueError, match="paste"):
        FiddlerScript(SCRIPT.read_text(encoding="utf-8").replace(old, new))


def test_rule_with_a_member_that_fiddler_lacks_is_an_error() -> None:
    text = SCRIPT.read_text(encoding="utf-8").replace("oSession.hostname", "oSession.hostName")
    script = FiddlerScript(text)
    script.checked = True
    with pytest.raises(Exception, match="Session has no member hostName"):
        script.answer("GET", "account.blob.core.windows.net", "/container/HelloWorld")


def test_typed_local_variables_are_understood() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    head = "// Hosts: ACCOUNT"
    assert head in text
    script = FiddlerScript(text.replace(head, 'var seen: String = "x";\n' + head))
    assert script.answer("GET", "127.0.0.1", "/").status == 200


def test_text_is_safe_to_paste() -> None:
    # Fiddler takes the file for whatever the system's code page is: ASCII is the same in all of them.
    text = SCRIPT.read_bytes().decode("ascii")
    assert "\t" not in text
    for line in text.splitlines():
        assert len(line) <= 120
    for marked in ("PASTE 1", "PASTE 2", "Rules > Customize Rules...", "--ca-bundle", LABEL):
        assert marked in text


# --- a real proxy ---------------------------------------------------------------------------------------------------


class Storage(http.server.BaseHTTPRequestHandler):
    """Answers every method with 200 and a body. What it is asked does not matter here, only what arrives."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one segment: two would wait 40 ms for each other

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"Hello, World!"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0x1"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server looks up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
        pass


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server's TLS context with a certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "storage")])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


class Client(requests.Session):
    """Sends everything through the proxy, whatever the environment says."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self.trust_env = False
        self.proxies = {"http": proxy.url, "https": proxy.url}

    def status(self, method: str, url: str, *, verify: str | bool = True) -> int:
        return self.request(method, url, timeout=30, verify=verify).status_code


@pytest.mark.proxy
def test_live_traffic_follows_the_box() -> None:
    host = "account.blob.core.windows.net"
    with serve() as port, Proxy(routes={host: port, f"account-secondary{host[7:]}": port}) as proxy:
        blob = f"http://127.0.0.1:{port}/devstoreaccount1/container/HelloWorld"
        failed = [("GET", blob), ("HEAD", blob), ("GET", blob + "?sv=1&sig=x"), ("GET", f"http://{host}/c/HelloWorld")]
        passing = [
            ("PUT", blob),
            ("DELETE", blob),
            ("GET", blob + "2"),
            ("GET", blob.replace("account1", "account1-secondary")),
            ("GET", f"http://account-secondary{host[7:]}/c/HelloWorld"),
            ("PUT", f"http://{host}/c/HelloWorld"),
        ]
        with Client(proxy) as client:
            for on in (False, True, False, True):
                proxy.check(on)
                before = len(proxy.seen)
                for method, url in failed:
                    assert client.status(method, url) == (503 if on else 200), (method, url)
                for method, url in passing:
                    assert client.status(method, url) == 200, (method, url)
                seen = proxy.seen[before:]
                assert [(one.method, one.url) for one in seen] == failed + passing
                # The primary did answer: its answer was replaced.
                assert {one.original for one in seen} == {200}
                assert [one.final for one in seen] == [503 if on else 200] * len(failed) + [200] * len(passing)


@pytest.mark.proxy
def test_body_and_headers_stay_when_the_status_is_replaced() -> None:
    with serve() as port, Proxy() as proxy, Client(proxy) as client:
        proxy.check(True)
        answer = client.get(f"http://127.0.0.1:{port}/devstoreaccount1/c/HelloWorld", timeout=30)
        assert (answer.status_code, answer.reason) == (503, "Service Unavailable")
        assert (answer.content, answer.headers["ETag"]) == (b"Hello, World!", '"0x1"')


@pytest.mark.proxy
def test_https_is_read_with_the_certificate_as_pem_and_as_der(tmp_path: Path) -> None:
    host = "account.blob.core.windows.net"
    with serve(own_certificate(tmp_path)) as port, Proxy(routes={host: port}) as proxy, Client(proxy) as client:
        urls = [f"https://{host}/c/HelloWorld", f"https://127.0.0.1:{port}/devstoreaccount1/c/HelloWorld"]
        # Trusted by nobody else: without the file there is no connection, as on a machine with Fiddler.
        with pytest.raises(requests.exceptions.SSLError):
            client.status("GET", urls[0])
        from_der = tmp_path / "from-der.pem"
        from_der.write_text(ssl.DER_cert_to_PEM_cert(proxy.ca_der.read_bytes()), encoding="ascii")
        for bundle in (proxy.ca_pem, from_der):
            for on in (True, False):
                proxy.check(on)
                for url in urls:
                    assert client.status("GET", url, verify=str(bundle)) == (503 if on else 200)
                    assert client.status("PUT", url, verify=str(bundle)) == 200


@pytest.mark.proxy
def test_proxy_keeps_to_this_machine_and_goes_away() -> None:
    with Proxy() as proxy, Client(proxy) as client:
        assert client.status("GET", "http://account.blob.core.windows.net/c/HelloWorld") == 502
        assert proxy.seen == []
        folder = proxy.folder
    assert not folder.exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(proxy.url, timeout=30)
    proxy.stop()


@pytest.mark.proxy
def test_rule_that_breaks_on_live_traffic_is_not_overlooked() -> None:
    text = SCRIPT.read_text(encoding="utf-8").replace("oSession.PathAndQuery", "oSession.pathAndQuery")
    with serve() as port, Proxy(script=text) as proxy, Client(proxy) as client:
        proxy.check(True)
        client.status("GET", f"http://127.0.0.1:{port}/devstoreaccount1/c/HelloWorld")
        with pytest.raises(RuntimeError, match="no member pathAndQuery"):
            _ = proxy.seen


@pytest.mark.proxy
def test_rule_that_does_not_load_ends_the_start() -> None:
    with pytest.raises(RuntimeError, match="exactly two marked pastes"):
        Proxy(script="no pastes here")


# --- the page for the user --------------------------------------------------------------------------------------------


def test_document_and_script_name_the_same_box() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert LABEL in text
    assert "(../Fiddler_script.txt)" in text


@pytest.mark.proxy
def test_mitmproxy_addon_of_the_document_does_the_same(tmp_path: Path) -> None:
    (addon,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "fail.py"
    file.write_text(addon, encoding="utf-8")
    hosts = {host for host, _ in FAILED + LEFT_ALONE if not re.match(r"127|\[|localhost$", host)}
    with (
        serve() as port,
        Proxy(routes={host.lower(): port for host in hosts}, script=None, addons=[file]) as proxy,
        Client(proxy) as client,
    ):
        for on in (False, True):
            box = proxy.folder / "fail"
            box.touch() if on else box.unlink(missing_ok=True)
            for table, read in ((FAILED, 503 if on else 200), (LEFT_ALONE, 200)):
                for host, path in table:
                    if host in ("[::1]", "azurite", "ipv4.fiddler", "devstoreaccount1.blob.localhost"):
                        continue  # names that matter with Fiddler and with Docker; the document keeps to the two usual
                    name = f"127.0.0.1:{port}" if re.match(r"127|localhost$", host) else host.lower()
                    assert client.status("GET", f"http://{name}{path}") == read, (host, path)
                    assert client.status("HEAD", f"http://{name}{path}") == read, (host, path)
                    assert client.status("PUT", f"http://{name}{path}") == 200, (host, path)
