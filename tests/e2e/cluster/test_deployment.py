"""What docs/deployment.rst says of systemd, nginx, two hosts and Compose, run as it stands there.

Only paths, ports and addresses are others. systemd is its unit's commands and signals, a host is
an address of the loopback.
"""

from __future__ import annotations

import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from flask_chsk.errors import BrokerUnavailable
from flask_chsk.publisher import Publisher
from tests.e2e.browser.test_proxies import Nginx, documented, documented_at
from tests.e2e.browser.test_proxies import nginx as nginx
from tests.e2e.cluster.storm import PATIENCE, User
from tests.peer import EDN, Peer
from tests.process import ROOT, START, WAIT, Process, Server, eventually, free_port, program

APP = "tests.e2e.apps.cluster"
PROXIED = ["proxy_pass http://chat/;", "proxy_connect_timeout 2s;"]  # in the location
AS_IT_STANDS = {"GUNICORN_CMD_ARGS": None}  # the tests' own are not in the docs
Start = Callable[..., Process]


# The parts --------------------------------------------------------------------------------


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """What is in /srv/chat: the wsgi.py of the docs, around an application of the tests."""
    folder = tmp_path / "chat"
    folder.mkdir()
    wsgi = documented("wsgi.py")
    assert "from example_app import app" in wsgi
    text = wsgi.replace("from example_app import app", f"from {APP} import app")
    (folder / "wsgi.py").write_text(text, encoding="utf-8")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(name: str, redis: str) -> dict[str, str]:
    """An environment file, with the URL of a Redis in place of the one it names."""
    lines = [line for line in documented(name).splitlines() if line and line[0] != "#"]
    env = dict(line.split("=", 1) for line in lines)
    assert set(env) == {"CHSK_BROKER_URL", "SECRET_KEY"}
    return {**env, "CHSK_BROKER_URL": redis}


def unit() -> configparser.SectionProxy:
    """What the unit says of its service."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(documented("chat@.service").replace("\\\n", " "))
    return parser["Service"]


def in_folder(folder: Path, command: list[str]) -> list[str]:
    """``WorkingDirectory``; the application of the tests is found from there, too."""
    return ["env", "-C", str(folder), f"PYTHONPATH={ROOT}", *command]


class Instance(Process):
    """``chat@8001``: what systemd does with the unit's Service section, but for the user."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.service = unit()
        path = log.with_suffix(".notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(path))
            told.settimeout(START)
            super().__init__(command, log, {**env, **AS_IT_STANDS, "NOTIFY_SOCKET": str(path)})
            try:  # Type=notify: started is what says so itself
                assert b"READY=1" in told.recv(4096)
            except BaseException:
                super().stop(timeout=0)
                raise

    @property
    def worker(self) -> int:
        [pid] = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(pid)

    def reload(self) -> None:
        """``systemctl reload``, until another worker has taken over."""
        before = self.worker
        command = self.service["ExecReload"].replace("$MAINPID", str(self.pid))
        subprocess.run(shlex.split(command), check=True)

        def replaced() -> bool:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return len(children) == 1 and int(children[0]) != before

        eventually(replaced, float(self.service["TimeoutStopSec"]))

    def stop(self, number: int = signal.SIGTERM, timeout: float | None = None) -> int:
        """``systemctl stop``: SIGTERM to the master alone (mixed), and the unit's patience."""
        assert self.service["KillMode"] == "mixed"
        return super().stop(number, float(self.service["TimeoutStopSec"]))

    def die(self) -> None:
        """All of it at once, as when its host goes down."""
        os.killpg(self.pid, signal.SIGKILL)
        eventually(lambda: not self.running)


class Instances:
    """``systemctl enable --now chat@PORT`` for each address, with nginx before them."""

    def __init__(self, start: Start, nginx: Nginx, folder: Path, env: dict[str, str]) -> None:
        self._start = start
        self._nginx = nginx
        self._folder = folder
        self._statuses = folder.parent / "statuses"
        self.env = env
        self.instances: list[Instance] = []
        self.addresses: list[tuple[str, int]] = []
        self.proxy = SimpleNamespace(url=f"{nginx.url}/board")

    def run(self, *hosts: str) -> None:
        """One instance on each of *hosts*, an address."""
        self.addresses = [(host, free_port()) for host in hosts]
        self.instances = [self._instance(address) for address in self.addresses]
        upstream = re.sub(r"( +server ).*;\n", "", documented("upstream.conf"))
        lines = "".join(f"    server {host}:{port};\n" for host, port in self.addresses)
        upstream = upstream.replace("{\n", "{\n" + lines)
        text = (ROOT / "docs/deployment.rst").read_text(encoding="utf-8")
        assert all(f"``{one}``" in text for one in PROXIED)
        site = documented_at(self._nginx.port, 1, tls=False)
        assert "proxy_pass http://127.0.0.1:1/;" in site
        site = site.replace("proxy_pass http://127.0.0.1:1/;", " ".join(PROXIED))
        logged = "log_format status $status;\n"
        site = site.replace("    listen ", "    access_log statuses status;\n    listen ", 1)
        self._nginx.run(upstream + logged + site)

    def _instance(self, address: tuple[str, int]) -> Instance:
        host, port = address
        command = unit()["ExecStart"].replace("/srv/chat", str(self._folder))
        command = command.replace("127.0.0.1:%i", f"{host}:{port}")
        return self._start(  # type: ignore[return-value]
            Instance, in_folder(self._folder, shlex.split(command)), self.env
        )

    @property
    def statuses(self) -> set[str]:
        """Of nginx' answers, WebSockets that ended included."""
        return set(self._statuses.read_text(encoding="utf-8").split())

    def post(self, path: str, number: int) -> Any:
        """To one instance, past nginx."""
        host, port = self.addresses[number]
        request = urllib.request.Request(f"http://{host}:{port}{path}", b"")
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return json.load(answer)


@pytest.fixture
def users() -> Iterator[Callable[..., list[User]]]:
    """``users(instances)``: four clients, on each transport two, connected."""
    there: list[User] = []

    def users(instances: Instances) -> list[User]:
        there.extend(User(instances, f"u{n}", ("ws", "ajax")[n % 2]) for n in range(4))  # type: ignore[arg-type]
        for user in there:
            user.chsk.wait_open(WAIT)
        return there

    yield users
    for user in there:
        user.chsk.destroy()


@pytest.fixture
def instances(start: Start, nginx: Nginx, chat: Path, redis_url: str) -> Instances:
    url = f"{redis_url}?prefix={free_port()}"
    return Instances(start, nginx, chat, environment("chat.env", url))


def hear(users: list[User], count: int) -> list[tuple[list[int], int]]:
    """What each user heard, and of how many gaps they were told, once they heard so many."""
    eventually(lambda: min(len(user.heard) for user in users) >= count, PATIENCE)
    return [(user.heard, len(user.gaps)) for user in users]


# systemd ----------------------------------------------------------------------------------


def test_systemd_finds_no_fault_in_the_unit(chat: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    text = documented("chat@.service").replace("/srv/chat", str(chat))
    path = tmp_path / "chat@8001.service"
    path.write_text(text.replace("User=chat", "User=root"), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = [line for line in ran.stderr.splitlines() if "chat@" in line]
    assert (ran.returncode, said) == (0, [])


def test_instances_that_reload_one_by_one_cost_nobody_an_event(
    instances: Instances, users: Callable[..., list[User]]
) -> None:
    instances.run("127.0.0.1", "127.0.0.1")
    there = users(instances)
    sent = 0
    with Publisher(instances.env["CHSK_BROKER_URL"]) as publisher, ThreadPoolExecutor() as pool:
        for instance in instances.instances:
            reloading = pool.submit(instance.reload)
            while not reloading.done():
                for user in there:
                    assert publisher.send(user.uid, ["test/item", sent]) is not None
                sent += 1
            reloading.result()
    assert sent > 20
    assert hear(there, sent) == [(list(range(sent)), 0)] * 4
    assert {"101", "200"} <= instances.statuses <= {"101", "200", "503"}


def test_stopping_waits_for_a_drain_and_not_for_ever(
    instances: Instances, users: Callable[..., list[User]]
) -> None:
    """Handlers that take a minute get the graceful timeout, and systemd need not kill."""
    instances.run("127.0.0.1")
    there = users(instances)
    for user in there:
        user.chsk.send(["test/note", 0])
        user.chsk.send(["test/once", 60])
    assert hear(there, 1) == [([0], 0)] * 4
    [instance] = instances.instances
    graceful = re.search(r"--graceful-timeout (\d+)", unit()["ExecStart"])
    assert graceful is not None
    assert 2 * int(graceful[1]) < float(unit()["TimeoutStopSec"])
    assert instance.stop() == 0


# nginx ------------------------------------------------------------------------------------


def test_without_stickiness_events_of_any_instance_reach_all(
    instances: Instances, users: Callable[..., list[User]]
) -> None:
    instances.run("127.0.0.2", "127.0.0.2", "127.0.0.3")
    there = users(instances)
    for number in range(9):
        instances.post(f"/broadcast/{number}", number % 3)
    assert hear(there, 9) == [(list(range(9)), 0)] * 4
    for user in there:
        assert [user.chsk.request(["test/echo", n], WAIT) for n in range(6)] == list(range(6))


def test_who_was_on_an_instance_that_dies_misses_nothing(
    instances: Instances, users: Callable[..., list[User]]
) -> None:
    instances.run("127.0.0.2", "127.0.0.3")
    there = users(instances)
    with Publisher(instances.env["CHSK_BROKER_URL"]) as publisher:
        for number in range(60):
            if number == 20:
                instances.instances[0].die()
            for user in there:
                publisher.send(user.uid, ["test/item", number])
    assert hear(there, 60) == [(list(range(60)), 0)] * 4
    assert {"101", "200"} <= instances.statuses <= {"101", "200", "502", "503", "504"}


def test_a_poll_parked_on_an_instance_that_dies_goes_on_at_the_next(
    instances: Instances, nginx: Nginx
) -> None:
    instances.env["LP_TIMEOUT"] = "20"  # it is parked until its instance dies
    instances.run("127.0.0.2", "127.0.0.3")
    tab = Peer(nginx.port, path="/board/chsk", uid="ann", v="1")
    tab.hello()
    with ThreadPoolExecutor() as pool:
        poll = pool.submit(tab.get, n="1")
        dying = whoever(instances, "parked")
        instances.instances[dying].die()
        instances.post("/send/ann?last=0", 1 - dying)
        status, text = poll.result()
    assert (status, EDN.unpack(text)[0]) == (200, [["test/item", 0]])


def test_a_post_that_dies_with_its_instance_is_told_and_not_repeated(
    instances: Instances, nginx: Nginx
) -> None:
    instances.run("127.0.0.2", "127.0.0.3")
    tab = Peer(nginx.port, path="/board/chsk", uid="ann", v="1")
    tab.hello()
    with ThreadPoolExecutor() as pool:
        post = pool.submit(tab.post_raw, '[[:test/once 60] "cb"]')
        dying = whoever(instances, "events_in")
        instances.instances[dying].die()
        assert post.result()[0] == 502
    for _ in range(2):  # no request goes to who is dead
        assert tab.post_raw('[[:test/echo 1] "cb"]')[0] == 200
    assert stats(instances, 1 - dying)["events_in"] == 2


def whoever(instances: Instances, gauge: str) -> int:
    """The number of the instance whose *gauge* is not nought, once there is one."""
    found: Any = eventually(lambda: [n for n in (0, 1) if stats(instances, n).get(gauge)])
    return int(found[0])


def stats(instances: Instances, number: int) -> dict[str, int]:
    host, port = instances.addresses[number]
    with urllib.request.urlopen(f"http://{host}:{port}/stats", timeout=WAIT) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def test_the_head_of_an_answer_passes_nginx_before_its_body_is_there(
    instances: Instances, nginx: Nginx
) -> None:
    instances.run("127.0.0.2")
    tab = Peer(nginx.port, path="/board/chsk", uid="ann", v="1")
    tab.hello()
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=WAIT)
    form = urlencode({**tab.params, "ppstr": '[[:test/later "a"] "cb"]'})
    headers = {"Content-Type": "application/x-www-form-urlencoded", **tab.proofs()}
    connection.request("POST", "/board/chsk", form, headers)
    answer = connection.getresponse()  # or the reply would never be
    assert answer.status == 200
    instances.post("/reply/a", 0)
    assert EDN.unpack(answer.read().decode())[0] == "a"
    connection.close()


def test_a_deferred_reply_holds_no_later_event_back(
    instances: Instances, users: Callable[..., list[User]]
) -> None:
    instances.run("127.0.0.2")
    replies: list[Any] = []
    there = users(instances)
    for user in there:
        assert user.chsk.send(["test/later", user.uid], 60.0, replies.append)
        assert user.chsk.send(["test/note", 1])
        assert user.chsk.request(["test/echo", 2], WAIT) == 2
    assert hear(there, 1) == [([1], 0)] * 4
    assert replies == []
    for user in there:
        instances.post(f"/reply/{user.uid}", 0)
    eventually(lambda: len(replies) == 4)
    assert sorted(replies) == ["u0", "u1", "u2", "u3"]


# Two hosts --------------------------------------------------------------------------------


class SecureRedis(Process):
    """The redis.conf of the docs, with certificates of an authority of our own."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str] | None) -> None:
        super().__init__(command, log, env)
        self.wait_for_log("Ready to accept connections")


def authority(folder: Path, name: str) -> Path:
    """The certificate of a new authority, as strict as Python 3.13 wants it."""
    certify(folder, name, "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
    return folder / f"{name}.pem"


def certify(folder: Path, name: str, *extensions: str, by: str | None = None) -> None:
    """``name.pem`` and ``name-key.pem``, signed by itself or *by* an authority."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
    command += ["-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"]
    for extension in extensions:
        command += ["-addext", extension]
    if by is not None:
        command += ["-CA", f"{by}.pem", "-CAkey", f"{by}-key.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def secure_url(start: Start, tmp_path: Path) -> str:
    """The CHSK_BROKER_URL of the docs, at the Redis of the docs."""
    ca, port = authority(tmp_path, "ours"), free_port()
    certify(
        tmp_path, "redis", "subjectAltName=IP:127.0.0.1", "basicConstraints=CA:FALSE", by="ours"
    )
    conf = documented("redis.conf").replace("tls-port 6379", f"tls-port {port}")
    conf = conf.replace("bind 0.0.0.0", "bind 127.0.0.1")
    conf = conf.replace("/etc/redis/", f"{tmp_path}/") + f'save ""\ndir {tmp_path}\n'
    (tmp_path / "redis.conf").write_text(conf, encoding="utf-8")
    start(SecureRedis, [program("redis-server"), str(tmp_path / "redis.conf")])
    url = re.search("^CHSK_BROKER_URL=(.*)$", documented("two-hosts.env"), re.M)
    assert url is not None
    there = url[1].replace("redis.internal:6379", f"127.0.0.1:{port}")
    return there.replace("/etc/ssl/chat-ca.pem", str(ca))


def test_two_hosts_share_a_redis_by_tls_and_a_password(
    start: Start, nginx: Nginx, chat: Path, secure_url: str, users: Callable[..., list[User]]
) -> None:
    env = environment("two-hosts.env", secure_url)
    hosts = Instances(start, nginx, chat, env)
    hosts.run("127.0.0.2", "127.0.0.3")
    there = users(hosts)
    for number in range(6):
        hosts.post(f"/broadcast/{number}", number % 2)
    assert hear(there, 6) == [(list(range(6)), 0)] * 4
    assert [bool(stats(hosts, n)["opened"]) for n in (0, 1)] == [True, True]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (":password@", ":guess@", "invalid username-password pair"),
        (":password@", "", "Authentication required"),
        ("ours.pem", "theirs.pem", "certificate verify failed"),
        ("rediss://", "redis://", "is away"),
    ],
    ids=["password", "no-password", "authority", "no-tls"],
)
def test_a_wrong_password_or_certificate_is_said(
    secure_url: str, tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    authority(tmp_path, "theirs")
    url = secure_url.replace(right, wrong)
    if wrong == "redis://":
        url = url.partition("?")[0]
    with Publisher(url) as publisher, pytest.raises(BrokerUnavailable, match=said):
        publisher.send("ann", ["test/item", 1])


def test_a_host_with_a_wrong_password_says_so_to_its_probe(
    start: Start, nginx: Nginx, chat: Path, secure_url: str
) -> None:
    env = environment("two-hosts.env", secure_url.replace(":password@", ":guess@"))
    hosts = Instances(start, nginx, chat, env)
    hosts.run("127.0.0.2")
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=WAIT)
    connection.request("GET", "/board/chsk/health")
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    assert (status, "invalid username-password pair" in text) == (503, True), text
    [host] = hosts.instances
    host.wait_for_log("no subscription: .*invalid username-password pair")
    assert "guess" not in host.log + text


# Compose ----------------------------------------------------------------------------------


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(documented("compose.yaml"))["services"]
    return found


class Composed(Process):
    """``docker compose up SERVICE``, of which its command is run, as it stands but for ports."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str] | None) -> None:
        super().__init__(command, log, {**(env or {}), **AS_IT_STANDS})
        self.wait_for_log("Ready to accept connections|Booting worker")


def test_the_commands_of_compose_work_together(
    start: Start, services: dict[str, Any], chat: Path
) -> None:
    redis_port, port = free_port(), free_port()
    redis = shlex.split(services["redis"]["command"])
    here = ["--bind", "127.0.0.1", "--port", str(redis_port), "--save", ""]
    start(Composed, [program(redis[0]), *redis[1:], *here])
    web = services["web"]
    assert web["ports"] == ["127.0.0.1:8000:8000"]
    assert web["environment"] == {
        "CHSK_BROKER_URL": "redis://redis:6379/0",
        "SECRET_KEY": "${SECRET_KEY:?}",
    }
    env = {"CHSK_BROKER_URL": f"redis://127.0.0.1:{redis_port}/0", "SECRET_KEY": "of Compose"}
    command = web["command"].replace("0.0.0.0:8000", f"127.0.0.1:{port}")
    [gunicorn, *arguments] = shlex.split(command)
    server = start(
        Composed,
        in_folder(chat, [f"{chat}/.venv/bin/{gunicorn}", *arguments]),
        env,
    )
    peers = [Peer(port, uid="ann", v="1") for _ in range(8)]
    eventually(lambda: listens(port))
    for peer in peers:
        peer.open()
    with Publisher(env["CHSK_BROKER_URL"]) as publisher:
        publisher.send("ann", ["test/item", 1])
    assert [peer.events(1) for peer in peers] == [[["test/item", 1]]] * 8
    patience = int(web["stop_grace_period"].removesuffix("s"))
    graceful = int(arguments[arguments.index("--graceful-timeout") + 1])
    assert 2 * graceful < patience
    assert server.stop(timeout=patience) == 0
    for peer in peers:
        peer.cut()


def test_a_redis_that_evicts_is_refused(
    start: Start, gunicorn: Callable[..., Server], services: dict[str, Any]
) -> None:
    """So the ``noeviction`` of the files is needed."""
    command = services["redis"]["command"]
    assert "--maxmemory-policy noeviction" in command
    assert "maxmemory-policy noeviction" in documented("redis.conf").splitlines()
    redis = shlex.split(command.replace("noeviction", "allkeys-lru"))
    port = free_port()
    here = ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    start(Composed, [program(redis[0]), *redis[1:], *here])
    server = gunicorn(f"{APP}:app", env={"CHSK_BROKER_URL": f"redis://127.0.0.1:{port}/0"})
    tab = Peer(server.port, uid="ann", v="1")
    for _ in range(3):
        status, text = tab.get(**{"handshake?": "1"})
        assert (status, "set maxmemory-policy noeviction" in text) == (503, True), text


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_dockerfile_installs_what_the_commands_need() -> None:
    """Its steps themselves need Docker."""
    dockerfile = documented("Dockerfile")
    steps = dict(line.split(" ", 1) for line in dockerfile.strip().splitlines())
    assert list(steps) == ["FROM", "WORKDIR", "RUN", "COPY", "USER"]
    supported = re.findall(
        r"Programming Language :: Python :: (3\.\d+)", (ROOT / "setup.py").read_text()
    )
    assert steps["FROM"].removeprefix("python:").removesuffix("-slim") in supported
    assert shlex.split(steps["RUN"])[-1] == "Flask-Chsk[gunicorn,redis]"
    for extra in ("gunicorn", "redis"):
        assert f'"{extra}": ["' in (ROOT / "setup.py").read_text()
