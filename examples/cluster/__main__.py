"""The chat over four workers, nginx and Redis: a message reaches the clients of all workers.

Install nginx and redis-server. Then run this from the root of the repository, and open
http://127.0.0.1:8080 in several tabs::

    pip install -e ".[demo,redis]"
    python -m examples.cluster

Kill a worker while you watch. Its tabs connect to another worker and get what they have missed::

    python -m examples.cluster kill

A new worker replaces the killed one after two seconds. Ctrl+C stops everything.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

WORKERS = 4
NGINX = """
daemon off;
error_log stderr;
pid {folder}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream workers {{
        least_conn;
        {servers}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://workers;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


def pid_file(port: int) -> Path:
    """Return the file that lists the process ids of the workers behind a port."""
    return Path(tempfile.gettempdir()) / f"serverwamp-cluster-{port}.pids"


def write_pids(port: int, workers: Mapping[int, subprocess.Popen[bytes]]) -> None:
    pids = "\n".join(str(worker.pid) for worker in workers.values())
    pid_file(port).write_text(pids, "utf-8")


def found(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        sys.exit(f"{program} isn't installed")
    return path


def wait_until_it_listens(port: int) -> None:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens at port {port}")


def serve(port: int) -> None:
    """Run everything until it is interrupted. The other ports follow `port`."""
    redis_port, *ports = range(port + 1, port + 2 + WORKERS)
    url = f"redis://127.0.0.1:{redis_port}"

    def start(*command: str) -> subprocess.Popen[bytes]:
        # In a session of its own, Ctrl+C doesn't reach the process: `serve` stops all in order.
        environment = {**os.environ, "REDIS_URL": url}
        return subprocess.Popen(command, env=environment, start_new_session=True)

    def start_worker(number: int) -> subprocess.Popen[bytes]:
        service = ("-m", "uvicorn", "examples.cluster.service:wamp", "--log-level", "warning")
        options = ("--port", str(number), "--timeout-graceful-shutdown", "1")
        return start(sys.executable, *service, *options)

    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "nginx.conf"
        servers = "\n        ".join(f"server 127.0.0.1:{number};" for number in ports)
        configuration.write_text(NGINX.format(folder=folder, servers=servers, port=port), "utf-8")
        redis = ("--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        others = [start(found("redis-server"), *redis, "--loglevel", "warning")]
        workers = {number: start_worker(number) for number in ports}
        try:
            for number in ports:
                wait_until_it_listens(number)
            others.append(start(found("nginx"), "-p", folder, "-c", str(configuration)))
            wait_until_it_listens(port)
            write_pids(port, workers)
            print(f"The chat is running on http://127.0.0.1:{port}", flush=True)
            while all(process.poll() is None for process in others):
                time.sleep(2)
                for number, worker in workers.items():
                    if worker.poll() is not None:
                        workers[number] = start_worker(number)
                        write_pids(port, workers)
                        print(f"Worker {worker.pid} has ended; {workers[number].pid} replaces it")
        finally:
            pid_file(port).unlink(missing_ok=True)
            for process in (*workers.values(), *others):
                process.terminate()
                process.wait()


def kill_worker(port: int) -> None:
    if not pid_file(port).exists():
        sys.exit("the cluster isn't running")
    pid = int(random.choice(pid_file(port).read_text("utf-8").split()))
    os.kill(pid, signal.SIGKILL)
    print(f"Killed worker {pid}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.cluster")
    parser.add_argument("action", nargs="?", choices=("serve", "kill"), default="serve")
    parser.add_argument("-P", "--port", type=int, default=8080)
    options = parser.parse_args()
    if options.action == "kill":
        kill_worker(options.port)
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    try:
        serve(options.port)
    except KeyboardInterrupt:
        print("Stopped")


if __name__ == "__main__":
    main()
