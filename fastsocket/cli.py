"""The command fastsocket: its subcommands, their output and the exit status."""

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.live import Live
from typer.completion import completion_init  # type: ignore[attr-defined]

from fastsocket import arguments, launch
from fastsocket.arguments import UsageError
from fastsocket.binary import Verdict, find
from fastsocket.binary import check as check_binary
from fastsocket.build import built_library
from fastsocket.libbpf import BpfError
from fastsocket.printable import printable
from fastsocket.servers import Ended, Server, absence, survey
from fastsocket.status import tables
from fastsocket.steering import BACKENDS, Device, Mode, Plan, lasting

if TYPE_CHECKING:
    from fastsocket.attach.plan import Given

INTERRUPTED = 130
COMPLETE = "_FASTSOCKET_COMPLETE"  # shells set this variable when they complete a line: fastsocket/manual.py

BACKEND_NAMES = ", ".join(backend.name for backend in BACKENDS)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def fastsocket() -> None:
    """Per-core TCP listeners for unmodified servers: libfsocket.so, preloaded.

    \b
    fastsocket check nginx                   can it be accelerated?
    fastsocket run -- nginx -g 'daemon off;' run it accelerated
    fastsocket status                        what runs, and how well
    fastsocket measure nginx                 would it pay, for a server that runs without it?
    fastsocket nic eth0 perfect              packets to the CPU that handles their connection
    fastsocket attach nginx                  locality for a server that runs already, without the library
    """


# The options of run, in the order of its --help.
Command = Annotated[list[str], typer.Argument(metavar="COMMAND", help="The server and its arguments, best after --.")]
ListenTable = Annotated[bool | None, typer.Option(help="Give each CPU a listener (the library's default: on).")]
Balance = Annotated[
    bool | None,
    typer.Option(
        help="The kernel gives a connection to another worker where its own is away or has a long queue; "
        "that takes CAP_BPF and CAP_NET_ADMIN (the library's default: off)."
    ),
]
FastEpoll = Annotated[
    bool | None,
    typer.Option(help="Put a connection into the epoll only when it has to wait (the library's default: off)."),
]
FlowDeliver = Annotated[
    bool | None,
    typer.Option(help="Connect from source ports of the CPU that connects (the library's default: off)."),
]
AnswerWithFin = Annotated[
    bool | None,
    typer.Option(help="Send the last answer of a connection together with its FIN (the library's default: off)."),
]
DelayedAck = Annotated[
    bool | None,
    typer.Option(help="Leave the ACK of a request to its answer (the library's default: off)."),
]
DeferAccept = Annotated[
    bool | None,
    typer.Option(help="Accept a connection when its first data is there (the library's default: off)."),
]
Only = Annotated[list[str] | None, typer.Option(metavar="PORT", help="Accelerate this port alone; again for more.")]
Pin = Annotated[
    bool | None,
    typer.Option(
        help="Pin workers not pinned by the server, always or never "
        "(the library's default: if there is one for each CPU)."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Rather do not run than run without acceleration.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="The library says on stderr what it does and why not.")]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Command,
    listen_table: ListenTable = None,
    balance: Balance = None,
    fast_epoll: FastEpoll = None,
    flow_deliver: FlowDeliver = None,
    answer_with_fin: AnswerWithFin = None,
    delayed_ack: DelayedAck = None,
    defer_accept: DeferAccept = None,
    only: Only = None,
    pin: Pin = None,
    strict: Strict = False,
    verbose: Verbose = False,
) -> None:
    """Run a server accelerated.

    Process id, signals and exit status are the server's own. What cannot be accelerated runs all the same, after a
    line on stderr; with --strict it does not, and that is exit status 3. A command that does not exist is 127. With
    FSOCKET=off in the environment the library does nothing.

    \b
    fastsocket run -- nginx -g 'daemon off;'
    fastsocket run --only 80 --only 443 --no-pin -- haproxy -f haproxy.cfg
    fastsocket run --strict --fast-epoll -- lighttpd -D -f lighttpd.conf
    """
    library = built_library()
    ports = arguments.only_ports(only or [])
    wishes = launch.Wishes(
        listen_table,
        balance,
        fast_epoll,
        flow_deliver,
        answer_with_fin,
        delayed_ack,
        defer_accept,
        only=ports,
        pin=pin,
        strict=strict,
        verbose=verbose,
    )
    inherited = launch.inherited_environment()
    variables = launch.environment(inherited, library, wishes)
    hindrance = launch.hindrance(command, library)
    if hindrance and strict:
        raise launch.LaunchError(str(hindrance))
    if hindrance:
        _say(f"runs without acceleration: {hindrance}")
    launch.execute(command, launch.without_library(inherited, library) if hindrance and hindrance.breaks else variables)


@app.command()
def check(
    binary: Annotated[str, typer.Argument(metavar="BINARY", help="A file, or a command in PATH.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Can this program be accelerated?

    Yes is exit status 0, no is 1, no such program 2. The answer holds for who asks: a setuid program that gains
    privileges when you start it may gain none when root does.

    \b
    fastsocket check nginx
    fastsocket check --json ./my-server
    """
    verdict = check_binary(find(binary), built_library())
    if as_json:
        answer = {"can_be_accelerated": verdict.can_be_accelerated, **asdict(verdict)}
        typer.echo(json.dumps(answer, indent=2, default=os.fspath))
    else:
        _print_verdict(verdict)
    raise typer.Exit(0 if verdict.can_be_accelerated else 1)


def _print_verdict(verdict: Verdict) -> None:
    typer.echo(printable(f"{verdict} {'can' if verdict.can_be_accelerated else 'cannot'} be accelerated"))
    for obstacle in verdict.obstacles:
        typer.echo(printable(f"  {obstacle.reason}"))
        typer.echo(printable(f"  -> {obstacle.remedy}"))
    for note in verdict.notes:
        typer.echo(printable(f"  {note}"))


@app.command()
def status(
    pids: Annotated[
        list[int] | None, typer.Argument(metavar="PID", help="Only the servers that these processes belong to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="In Prometheus' text format.")] = False,
    watch: Annotated[
        float | None,
        typer.Option("--watch", "-w", metavar="SECONDS", min=0.1, help="Look again so often, until Ctrl-C."),
    ] = None,
) -> None:
    """Show the running servers.

    Their listeners, who accepts on each CPU, what they counted, and why they are not accelerated. When no process
    that was asked for belongs to a server, that is exit status 1.

    \b
    fastsocket status
    fastsocket status -w 1 $(pidof nginx)
    fastsocket status --prometheus > /var/lib/node_exporter/fastsocket.prom
    """
    if sum((as_json, prometheus, watch is not None)) > 1:
        raise UsageError("--json, --prometheus and --watch exclude each other: choose one")
    found = _look(pids or [])
    if watch is not None:
        _watch(pids or [], watch)
    elif as_json:
        typer.echo(json.dumps([asdict(server) for server in found], indent=2))
    elif prometheus:
        from fastsocket.prometheus import exposition  # imported here, so that the other subcommands start quickly

        typer.echo(exposition(found), nl=False)
    else:
        Console().print(tables(found))


def _look(pids: list[int]) -> list[Server]:
    """The servers that these processes belong to, or all servers. Says on stderr which could not be seen.

    Raises the reason when none of these processes belongs to a server.
    """
    found = survey(pids)
    if not pids:
        for remark in found.remarks():
            _say(remark)
        return found.servers
    asked = found.of(pids)
    absent = [absence(pid, found) for pid in pids if not any(pid in server.processes for server in asked)]
    if not asked:
        raise max(absent, key=lambda reason: reason.exit_status)
    for reason in absent:
        if not isinstance(reason, Ended):
            _say(str(reason))
    return asked


def _watch(pids: list[int], seconds: float) -> None:
    console = Console()
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            found = survey(pids)
            view = tables(found.of(pids) if pids else found.servers)
            live.update(view, refresh=True) if console.is_terminal else console.print(view)
            time.sleep(seconds)


@app.command()
def measure(
    server: Annotated[str, typer.Argument(metavar="PID|NAME", help="One of its processes, or what it is called.")],
    seconds: Annotated[
        float, typer.Option("--seconds", "-s", metavar="SECONDS", min=0.1, max=3600, help="How long to watch it.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Would it pay? Watch a live server, and say what each switch could bring.

    Nothing is preloaded or restarted, and nothing stays. Measure under the usual load: it tells how many connections
    come, on which CPU they are read, how long they wait for accept(), and what they cost; and of each switch what
    speaks for it here, and what against it. It takes root, or CAP_BPF and CAP_PERFMON, to see reads; without, it says
    what is missing. Another user's server is exit status 3, one that is not there 2.

    \b
    fastsocket measure nginx
    fastsocket measure 4711 --seconds 60
    fastsocket measure --json haproxy > before.json
    """
    from fastsocket.measure.measuring import measure as measured_over  # here, so that other subcommands start quickly
    from fastsocket.measure.report import report
    from fastsocket.measure.rules import advice
    from fastsocket.measure.target import find as find_server

    found = measured_over(find_server(server), seconds)
    advices = advice(found)
    if as_json:
        answer = {**asdict(found), "advice": [asdict(one) for one in advices]}
        typer.echo(json.dumps(answer, indent=2))
    else:
        Console(highlight=False, markup=False, emoji=False).print(report(found, advices))


@app.command()
def nic(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="A network device of this machine.")],
    mode: Annotated[
        str | None, typer.Argument(metavar="[rss|atr|perfect|off]", help="Without it: show what is on.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"{BACKEND_NAMES}; without it, the first of them that can."),
    ] = None,
    cpus: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="The CPUs that shall handle packets, as in 0-3,8 (all it may use itself)."),
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(metavar="PORT=CPU", help="With perfect: this port's packets to this CPU; again for more."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Steer the packets that a device receives to CPUs.

    rss: by hash. atr: to the CPU that last sent on the connection. perfect: answers to the CPU that connect() encoded
    in the port, what --port names to its CPU, the rest by RSS. It lasts until off puts back what was there before, or
    the device or the machine goes. No such device is exit status 2; what cannot be done is 3, and changes nothing.

    \b
    fastsocket nic eth0 perfect
    fastsocket nic eth0 perfect --port 6379=0 --port 6380=1
    fastsocket nic eth0 off
    """
    target = Device(device)
    if mode == "off":
        if not lasting.turn_off(target):
            _say(f"nothing was on at {device}")
    elif mode is not None:
        lasting.turn_on(
            target, Plan(cast("Mode", mode), arguments.cpus(cpus), arguments.port_rules(port or [])), backend
        )
    found = lasting.described(target)
    typer.echo(json.dumps(found, indent=2) if as_json else printable(_steering_line(found)))


def _steering_line(found: dict[str, Any]) -> str:
    if found["mode"] == "off":
        return f"{found['device']}: off"
    ports = "".join(f", port {port} to CPU {cpu}" for port, cpu in found["ports"].items())
    return f"{found['device']}: {found['mode']} by {found['backend']}, CPUs {','.join(map(str, found['cpus']))}{ports}"


@app.command()
def attach(
    server: Annotated[str, typer.Argument(metavar="PID|NAME", help="A process of the server, or its name.")],
    pin: Annotated[bool, typer.Option("--pin", help="Confine each worker to a CPU of its own meanwhile.")] = False,
    watch: Annotated[
        float | None,
        typer.Option("--watch", "-w", metavar="SECONDS", min=0.1, help="Look again so often: follows reloads."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a line whenever something changes.")] = False,
) -> None:
    """Give a running server's listeners to the CPUs of its workers.

    For servers that cannot be preloaded, or not be restarted: static ones, too. Their workers need SO_REUSEPORT
    listeners of their own. It lasts until Ctrl-C, until fastsocket detach, or until this process ends in any other way;
    then the server is as it was found. Needs root. What cannot be done is exit status 3, and changes nothing.

    \b
    fastsocket attach nginx
    fastsocket attach --pin --watch 1 4711
    """
    from fastsocket.attach.session import attach as attached  # imported here, so that other subcommands start quickly
    from fastsocket.measure.target import find

    target = find(server)

    def tell(given: "list[Given]") -> None:
        typer.echo(json.dumps(_given(target.pid, given)) if as_json else _given_lines(target.pid, given))

    why = "interrupted"
    with suppress(KeyboardInterrupt):
        why = attached(target.process, pin, watch, tell, _say)
    _say(f"everything is put back: {why}")


@app.command()
def detach(
    server: Annotated[str, typer.Argument(metavar="PID|NAME", help="A process of the server, or its name.")],
) -> None:
    """End an attach, and put everything back.

    When nothing is attached to the server, that is exit status 1.

    \b
    fastsocket detach nginx
    """
    from fastsocket.attach.guard import put_back
    from fastsocket.measure.target import find

    pid = find(server).pid
    if not put_back(pid):
        _say(f"nothing is attached to process {pid}")
        raise typer.Exit(1)


def _given(server: int, given: "list[Given]") -> dict[str, Any]:
    return {
        "server": server,
        "listeners": [
            {"address": one.address, "inode": one.inode, "cpu": one.cpu, "worker": one.worker.thread} for one in given
        ],
    }


def _given_lines(server: int, given: "list[Given]") -> str:
    lines = [f"{one.address}  CPU {one.cpu}  worker {one.worker.thread}" for one in given]
    return "\n".join([*lines, f"until Ctrl-C, or: fastsocket detach {server}"])


@app.command()
def path() -> None:
    """Print where libfsocket.so is, for LD_PRELOAD.

    \b
    LD_PRELOAD=$(fastsocket path) nginx
    """
    typer.echo(built_library())


def _say(message: str) -> None:
    print(f"fastsocket: {printable(message)}", file=sys.stderr)


def main() -> int:
    """Run the command, and return its exit status."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: the stream was closed before the start
        stream.reconfigure(errors="backslashreplace")  # for characters that the locale's encoding lacks
    if COMPLETE in os.environ:
        completion_init()
    try:
        return app(sys.argv[1:] or ["--help"], standalone_mode=False, prog_name="fastsocket") or 0
    except typer.TyperException as error:
        return _complain(error.format_message(), 2)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except BpfError as error:
        refusal, *log = str(error).splitlines()
        return _complain(refusal, error.exit_status, log)
    except Exception as error:
        if not hasattr(error, "exit_status"):  # our own exceptions have one; any other is a bug and shows its traceback
            raise
        return _complain(str(error), error.exit_status)


def _complain(message: str, status: int, log: Sequence[str] = ()) -> int:
    _say(message)
    for line in log:
        print(printable(line), file=sys.stderr)
    return status
