# SPDX-License-Identifier: Apache-2.0
"""Two hosts: network namespaces with a wire between them, or where they are not allowed this host alone."""

import contextlib
import os
import subprocess
import time


class Servers:
    def __init__(self, processes, endpoints):
        self.processes = processes
        self.endpoints = endpoints

    def peaks(self):
        """Resident memory of each at its highest, in KiB."""
        out = []
        for process in self.processes:
            # `ip netns exec` becomes the program itself.
            with open(f"/proc/{process.pid}/status") as status:
                out.append(next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")))
        return out


class Hosts:
    def __init__(self):
        self.names = [f"st-llama-{os.getpid()}-{i}" for i in (0, 1)]
        self.apart = self.make()

    def make(self):
        first, second = self.names
        # Names of interfaces are the system's, but for those in a namespace.
        commands = [["netns", "add", first], ["netns", "add", second], ["link", "add", "name", "stl0", "netns", first, "type", "veth", "peer", "name", "stl1", "netns", second]]
        for i, name in enumerate(self.names):
            commands += [["-n", name, "address", "add", f"10.77.0.{i + 1}/24", "dev", f"stl{i}"], ["-n", name, "link", "set", f"stl{i}", "up"], ["-n", name, "link", "set", "lo", "up"]]
        try:
            for command in commands:
                subprocess.run(["ip", *command], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.remove()
            return False
        return True

    def remove(self):
        for name in self.names:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def inside(self, i):
        """What a command on host i begins with."""
        return ["ip", "netns", "exec", self.names[i]] if self.apart else []

    def bytes_sent(self):
        """By host 0, on the wire."""
        text = subprocess.run([*self.inside(0), "cat", "/proc/net/dev"], check=True, capture_output=True, text=True).stdout
        return next(int(line.split(":")[1].split()[8]) for line in text.splitlines() if line.strip().startswith("stl0:"))

    @contextlib.contextmanager
    def serving(self, program, count):
        """Servers on host 1, as soon as they answer."""
        host = "10.77.0.2" if self.apart else "127.0.0.1"
        endpoints = [f"{host}:{17713 + i}" for i in range(count)]
        processes = []
        try:
            for endpoint in endpoints:
                processes.append(subprocess.Popen([*self.inside(1), str(program), "--serve", endpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            for endpoint in endpoints:
                self.wait_for(endpoint)
            yield Servers(processes, ",".join(endpoints))
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def wait_for(self, endpoint):
        _, port = endpoint.rsplit(":", 1)
        listening = f":{int(port):04X} 00000000:0000 0A"
        for _ in range(100):
            text = subprocess.run([*self.inside(1), "cat", "/proc/net/tcp"], capture_output=True, text=True).stdout
            if listening in text:
                return
            time.sleep(0.1)


@contextlib.contextmanager
def two_hosts():
    hosts = Hosts()
    try:
        yield hosts
    finally:
        if hosts.apart:
            hosts.remove()
