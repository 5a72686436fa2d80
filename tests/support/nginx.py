# SPDX-License-Identifier: Apache-2.0
"""nginx with TLS and HTTP/2 in front of the test Hub, and a certificate authority of its own."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

from tests.hub import HubProcess

from .mounts import wait_until

HOSTS = ("127.0.0.1", "127.0.0.2")  # of the Hub, and of large files
NEEDED = ("nginx", "openssl")

SERVER = """
    server {{
        listen {host}:{port} ssl http2;
        location / {{
            proxy_pass http://{host}:{behind};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
"""

CONFIG = """
{user}
daemon off;
pid {base}/nginx.pid;
error_log {base}/error.log;
events {{ worker_connections 1024; }}
http {{
    log_format seen '$server_addr $server_protocol $status $request_method $uri';
    access_log {base}/access.log seen;
    ssl_certificate {base}/cert.pem;
    ssl_certificate_key {base}/key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    client_body_temp_path {base}/body;
    proxy_temp_path {base}/proxy;
    fastcgi_temp_path {base}/fastcgi;
    uwsgi_temp_path {base}/uwsgi;
    scgi_temp_path {base}/scgi;
    merge_slashes off;
{servers}
}}
"""


def missing() -> str | None:
    """The first of the needed programs that is not installed."""
    return next((name for name in NEEDED if program(name) is None), None)


def program(name: str) -> str | None:
    return shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/bin:/sbin")


def free_ports(*hosts: str) -> list[int]:
    """A port of each of the hosts that nobody listens at."""
    sockets = [socket.create_server((host, 0)) for host in hosts]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def make_certificate(base: Path) -> Path:
    """A certificate for both hosts, `cert.pem` and `key.pem`, and the authority that signed it."""

    def openssl(*arguments: str) -> None:
        subprocess.run([str(program("openssl")), *arguments], cwd=base, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # Python 3.13 insists on what RFC 5280 wants of both.
    may_sign = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    authority = ("-days", "2", "-subj", "/CN=Test authority", *may_sign)
    openssl("req", "-x509", *curve, *authority, "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", *curve, "-subj", "/CN=Test Hub", "-keyout", "key.pem", "-out", "request.pem")
    names = ",".join(f"IP:{host}" for host in HOSTS)
    (base / "extensions").write_text(
        f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
    openssl("x509", "-req", "-in", "request.pem", *signed_by, "-out", "cert.pem")
    return base / "ca.pem"


class SecureHub:
    """A Hub, and nginx before both of its hosts: `url` is what clients see, `ca` the authority they must trust."""

    def __init__(self, base: Path):
        base.mkdir(parents=True, exist_ok=True)
        self.base = base
        self.ca = make_certificate(base)
        ports = free_ports(*HOSTS, *HOSTS)  # all at once: none twice
        outside, behind = ports[: len(HOSTS)], ports[len(HOSTS) :]
        self.url, self.cdn_url = (f"https://{host}:{port}" for host, port in zip(HOSTS, outside))
        self.hub = HubProcess(
            *("--port", str(behind[0]), "--cdn-port", str(behind[1])),
            *("--public-url", self.url, "--public-cdn-url", self.cdn_url),
        )
        try:
            servers = [SERVER.format(host=h, port=p, behind=b) for h, p, b in zip(HOSTS, outside, behind)]
            user = "user root;" if base.owner() == "root" else ""
            (base / "nginx.conf").write_text(CONFIG.format(base=base, user=user, servers="".join(servers)))
            command = [str(program("nginx")), "-p", str(base), "-e", str(base / "error.log"), "-c", str(base / "nginx.conf")]
            self._nginx = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for host, port in zip(HOSTS, outside):
                wait_until(lambda: self._listens(host, port), 10, "nginx")
        except BaseException:
            self.close()
            raise

    def _listens(self, host: str, port: int) -> bool:
        assert self._nginx.poll() is None, self._nginx.stderr and self._nginx.stderr.read()
        try:
            socket.create_connection((host, port), 1).close()
        except ConnectionError:
            return False
        return True

    def seen(self) -> list[tuple[str, str, int]]:
        """What nginx answered: the host, HTTP's version, the status."""
        lines = (self.base / "access.log").read_text().splitlines()
        found = [re.match(r"(\S+) HTTP/(\S+) (\d+) ", line) for line in lines]
        return [(match[1], match[2], int(match[3])) for match in found if match]

    def forget(self) -> None:
        (self.base / "access.log").write_text("")
        self.hub.reset()

    def close(self) -> None:
        if hasattr(self, "_nginx"):
            self._nginx.terminate()
            self._nginx.wait(10)
        self.hub.close()
