"""A process of its own that runs jobs: `python -m tests.sweep.jobs_coordinator FOLDER`."""

import sys
from pathlib import Path

from lowshot_kedro.sweep.jobs import Job, Workers, run_jobs
from tests.sweep.jobs_functions import sleep_long

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    jobs = [Job(f"sleep{number}", sleep_long, (folder,), 1) for number in range(4)]
    for _ in run_jobs(jobs, Workers(n_workers=2)):
        pass
