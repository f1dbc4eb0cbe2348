"""The load generator sends when it should, charges a stalled server for all that waited, and says when it could not."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from tests.harness.patience import patient
from workloads import generator
from workloads.process import WorkloadError

CPU = min(os.sched_getaffinity(0))
ANSWER = b"right\n"
UNDER_LOAD = 50  # connections
REQUEST = ["--request", "ask\\n", "--begins", "ri", "--ends", "ght\\n"]


@pytest.fixture(scope="module", autouse=True)
def built():
    generator.build()


class AnswersAll:
    """A server in a thread: answers each connection and closes it, unless it is told to pause."""

    def __init__(self, answer: bytes = ANSWER):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.sources: Counter = Counter()
        self.is_under_load = threading.Event()
        self.paused = threading.Lock()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, source = self.listener.accept()
            except OSError:
                return
            with self.paused, connection:
                self.sources[source[0]] += 1
                if self.sources.total() == UNDER_LOAD:
                    self.is_under_load.set()
                connection.recv(64)
                connection.sendall(self._answer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()


@contextmanager
def answering(answer: bytes = ANSWER):
    server = AnswersAll(answer)
    try:
        yield server
    finally:
        server.close()


def started(port: int, *options: str) -> subprocess.Popen:
    command = [generator.PROGRAM, "--server", f"127.0.0.1:{port}", "--cpus", str(CPU), *REQUEST, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(port: int, *options: str) -> dict:
    out, err = started(port, *options).communicate(timeout=patient(60))
    assert err == ""
    return json.loads(out)


def total(counts: list) -> int:
    return sum(count for _, count in counts)


def test_a_constant_rate_sends_each_request_and_counts_every_answer():
    with answering() as server:
        result = run(server.port, "--rate", "500", "--seconds", "1", "--constant")
    assert result["requests"] == total(result["whole_ns"]) == total(result["connect_ns"]) == 499
    assert not any(result["errors"].values())


def test_the_same_seed_gives_the_same_arrivals():
    with answering() as server:
        numbers = {run(server.port, "--rate", "300", "--seconds", "1", "--seed", "7")["requests"] for _ in range(2)}
        other = run(server.port, "--rate", "300", "--seconds", "1", "--seed", "8")["requests"]
    assert len(numbers) == 1
    assert abs(other - 300) < 5 * 300**0.5


def test_what_is_warm_up_is_not_counted():
    with answering() as server:
        result = run(server.port, "--rate", "500", "--seconds", "1", "--constant", "--warm-up", "0.4")
    assert result["requests"] == 300
    assert result["seconds"] == pytest.approx(0.6, abs=0.1)


def test_a_trace_goes_from_one_rate_to_the_next(tmp_path):
    trace = tmp_path / "trace"
    trace.write_text("0.5 100\n0.5 1000\n")
    with answering() as server:
        result = run(server.port, "--trace", str(trace), "--constant")
    assert 545 <= result["requests"] <= 550


def test_a_server_that_stops_is_charged_for_all_that_waited():
    """At a constant rate, all that come in a stop of T wait; of them half wait longer than T/2."""
    rate, stop = 500, patient(0.2)
    with answering() as server:
        process = started(server.port, "--rate", str(rate), "--seconds", str(5 * stop), "--constant")
        assert server.is_under_load.wait(patient(10))
        with server.paused:
            began = time.monotonic()
            time.sleep(stop)  # what is measured
            lasted = time.monotonic() - began
        result = json.loads(process.communicate(timeout=patient(60))[0])
    longest = max(value for value, _ in result["whole_ns"]) / 1e9
    assert longest == pytest.approx(lasted, abs=0.05 + 0.2 * lasted)
    waited_half = sum(count for value, count in result["whole_ns"] if value / 1e9 > lasted / 2)
    assert waited_half == pytest.approx(rate * lasted / 2, rel=0.3)


def test_source_addresses_are_used_by_turns():
    with answering() as server:
        run(server.port, "--rate", "200", "--seconds", "0.5", "--constant", "--sources", "127.0.0.2,127.0.0.3")
        assert abs(server.sources["127.0.0.2"] - server.sources["127.0.0.3"]) <= 1
        assert set(server.sources) == {"127.0.0.2", "127.0.0.3"}


def test_a_wrong_answer_is_no_request_served():
    with answering(b"wrong\n") as server:
        result = run(server.port, "--rate", "200", "--seconds", "0.5", "--constant")
    assert result["requests"] == 0
    assert result["errors"]["wrong"] == 99


def test_a_refused_connection_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert run(port, "--rate", "100", "--seconds", "0.5", "--constant")["errors"]["refused"] == 49


def test_an_answer_that_does_not_come_is_late():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = run(silent.getsockname()[1], "--rate", "50", "--seconds", "0.2", "--constant", "--patience", "0.1")
    assert result["errors"]["late"] == 9


def test_bursts_are_whole_and_keep_the_rate():
    """The threads share each burst, also where it cannot be divided evenly."""
    with answering() as server:
        threads = ["--cpus", f"{CPU},{CPU}"]
        result = run(server.port, "--rate", "800", "--seconds", "1", "--burst", "25", *threads)
    assert result["requests"] % 25 == 0
    assert abs(result["requests"] - 800) < 5 * 25 * 32**0.5
    assert result["intervals"] == pytest.approx(result["requests"] / 25, abs=1)
    assert result["distance"] < generator.SURE / result["intervals"] ** 0.5
    assert not any(result["errors"].values())


def test_a_closed_loop_has_always_as_many_under_way():
    with answering() as server:
        result = run(server.port, "--always", "4", "--seconds", "0.5")
    assert result["requests"] > 100
    assert not any(result["errors"].values())


@pytest.mark.parametrize(
    "wrong, said",
    [
        (["--rate", "0", "--seconds", "1"], "--rate 0: give a number from 1"),
        (["--rate", "10"], "say --seconds"),
        (["--seconds", "1"], "say one of --rate, --trace and --always"),
        (["--rate", "10", "--seconds", "1", "more"], "more: --help says"),
        (["--trace", "/nowhere"], "--trace /nowhere: No such file"),
        (["--rate", "10", "--seconds", "1", "--warm-up", "1"], "--warm-up is as long as all of it"),
        (["--always", "2", "--seconds", "1", "--burst", "2"], "--burst: not with --always or --constant"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(wrong, said):
    process = started(1, *wrong)
    out, err = process.communicate()
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert said in err


# ---- the check of its own schedule


def result_with(lateness_ns: int, distance: float = 0.0, real_time: bool = True) -> dict:
    counts = [[lateness_ns, 1000]]
    return {
        "requests": 1000,
        "warmed_up": 0,
        "seconds": 1.0,
        "cpu_seconds": 0.1,
        "errors": {},
        "intervals": 1000,
        "distance": distance,
        "real_time": real_time,
        **{name: [[1_000_000, 1000]] for name in ("connect_ns", "first_byte_ns", "whole_ns")},
        "lateness_ns": counts,
    }


def test_a_generator_that_was_late_has_no_result():
    with pytest.raises(WorkloadError, match=r"could not keep to its schedule: it was up to 5.0 ms late"):
        generator.read(result_with(5_000_000), late_ms=4)
    assert generator.read(result_with(3_000_000), late_ms=4).requests == 1000


def test_a_generator_with_other_intervals_has_no_result():
    with pytest.raises(WorkloadError, match="intervals that were asked for; let it run at real-time priority"):
        generator.read(result_with(0, distance=0.1, real_time=False), late_ms=4)


@pytest.mark.parametrize("rate", [500, 4000])
@pytest.mark.parametrize("arrivals", [[], ["--constant"]])
def test_the_check_finds_the_process_that_was_asked_for(rate, arrivals):
    """At 4,000 a second an interval is no longer than some calls of connect(): the check then spans several."""
    with answering() as server:
        result = run(server.port, "--rate", str(rate), "--seconds", "1", *arrivals)
    assert result["intervals"] == pytest.approx(min(rate, 1000), rel=0.2)
    assert result["distance"] < 0.2


def test_the_check_finds_a_generator_out_that_was_stopped():
    """What was due meanwhile is then sent at once, which is no Poisson process any more."""
    stop = 0.4
    with answering() as server:
        process = started(server.port, "--rate", "1000", "--seconds", "1")
        assert server.is_under_load.wait(patient(10))
        process.send_signal(signal.SIGSTOP)
        time.sleep(stop)  # what is tested
        process.send_signal(signal.SIGCONT)
        result = json.loads(process.communicate(timeout=patient(60))[0])
    assert result["distance"] > stop / 2


def test_histograms_are_kept_whole():
    load = generator.read(result_with(1000), late_ms=4)
    whole = generator.HdrHistogram.decode(load.histograms["whole"])
    assert whole.get_total_count() == 1000
    assert load.latency_ms["50"] == pytest.approx(1.0, rel=0.001)
