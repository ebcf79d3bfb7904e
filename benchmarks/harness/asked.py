"""What the benchmarks of the transport ask with: 8 KB of system prompt, and how."""

from __future__ import annotations

from mira_megatron.scoring.endpoint import EndpointSettings

IN_FLIGHT = 64
SYSTEM = "Judge the record by what it teaches: names, tests, reasons and steps. " * 117
SETTINGS = EndpointSettings(
    model="instant",
    temperature=0.0,
    top_p=1.0,
    max_tokens=1024,
    max_in_flight=IN_FLIGHT,
    timeout_seconds=60.0,
    max_retries=5,
)
