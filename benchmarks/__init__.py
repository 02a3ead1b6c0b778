"""spikefold's neuron and its networks against their peers: see README.md beside this file."""

import logging
import os

# On a CPU, torch logs that there is no Triton for the kernels that SpikingJelly registers, and its
# profiler logs its start and stop: both would tear the progress bar.
logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
