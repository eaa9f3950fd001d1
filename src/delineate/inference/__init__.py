"""Inference: apply a model to scans."""

import sys

# OpenVINO reports to its makers that it is used, from a thread that starts a copy of the process:
# that hangs where other threads compute, and nothing may leave a hospital unasked. Without this
# module OpenVINO uses a stub of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
