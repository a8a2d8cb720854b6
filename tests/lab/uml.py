"""What User Mode Linux needs of the host it is started on, beyond being installed.

On processors with AMX it dies at the first instruction of its first process, unless `uml_xstate.c` is preloaded; that
file says why. The library is compiled where it is used, which takes a tenth of a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "uml_xstate.c"


def unable() -> str:
    """Why User Mode Linux would not come up on this processor, or ''."""
    flags = Path("/proc/cpuinfo").read_text("utf-8", "replace").split()
    if "amx_tile" in flags and not shutil.which("gcc"):
        return "on this processor (AMX) User Mode Linux needs the packages gcc and libc6-dev"
    return ""


def environment(folder: Path) -> dict[str, str]:
    """The environment to start linux.uml in. `folder` takes the library."""
    shared = Path("/dev/shm")
    memory = shared if shared.is_dir() else Path(tempfile.gettempdir())
    variables = {**os.environ, "TMPDIR": str(memory)}
    if shutil.which("gcc"):
        library = folder / "uml_xstate.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        variables["LD_PRELOAD"] = str(library)
    return variables
