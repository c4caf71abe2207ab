from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SUITE = Path(__file__).parent / "suite"
ROOT = SUITE.parents[2]


def test_the_demo_works_on_its_own_settings() -> None:
    demos_own = ("DEMO_", "REDIS_URL", "PYTEST_", "DJANGO_SETTINGS_MODULE")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "--ds=example_project.settings", "-p", "no:cacheprovider", "-q", str(SUITE)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith(demos_own)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stdout
