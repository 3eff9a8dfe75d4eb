"""What loading Chroma leaves out, for programs that use Chroma themselves in the same process."""

import subprocess
import sys

PROGRAM = """
from inspect import signature
from tribal_mcp.stores.chroma.loading import load_chroma
load_chroma()

import chromadb.api.client
from chromadb.telemetry import opentelemetry
opentelemetry.OTLPSpanExporter(endpoint="http://127.0.0.1:9", insecure=True).shutdown()
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
print(isinstance(OTLPSpanExporter, type))

default = signature(chromadb.api.client.Client.__init__).parameters["settings"].default
print(default == chromadb.Settings())

import overrides
try:
    class Sub(dict):
        @overrides.override
        def unknown(self): ...
except TypeError:
    print(True)
"""


def test_chroma_s_traces_its_settings_and_the_checks_of_overridden_methods_still_work() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (["True"] * 3, "")
