# SPDX-License-Identifier: Apache-2.0
"""
A Hub to test with: it answers on the wire as huggingface.co does, as near as `huggingface_hub` tells.

`repo` and `content` say what it holds, `api` and `resolve` what it answers, `access` to whom, `faults` what goes
wrong, `log` what was asked; `server` joins them, `process` runs it beside a test. The Xet service is not there:
clients run with HF_HUB_DISABLE_XET=1.
"""

from .content import Bytes, Content, OnDisk, Pattern
from .faults import Fault
from .log import Entry
from .process import HubProcess
from .repo import HubFile, HubRepo
from .server import Hub

__all__ = ["Bytes", "Content", "Entry", "Fault", "Hub", "HubFile", "HubProcess", "HubRepo", "OnDisk", "Pattern"]
