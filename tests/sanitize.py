"""Run the kernels' tests on the package in a folder: `make sanitize` builds one with sanitizers.

The editable installation's import hook would find the compiled module elsewhere, so it goes first.
"""

import os
import sys
from pathlib import Path

import pytest

WITHOUT_HOOK = """import sys
sys.meta_path = [hook for hook in sys.meta_path if "ScikitBuild" not in type(hook).__name__]
"""

if __name__ == "__main__":
    folder, *options = sys.argv[1:]
    exec(WITHOUT_HOOK)
    (Path(folder) / "sitecustomize.py").write_text(WITHOUT_HOOK)  # for the tests' own processes
    os.environ["PYTHONPATH"] = folder
    status = pytest.main(["-o", f"pythonpath={folder}", *options])
    tested = str(sys.modules["spikefold.dynamics._kernels._native"].__file__)
    assert tested.startswith(folder), f"tested {tested}, not the one in {folder}"
    sys.exit(status)
