"""What every trainer of this project shares: epochs, schedules, checkpoints, processes."""

from lowshot_kedro.extras import require

require("torch", __name__)
